"""The table of promises: every behaviour by number, with the cases that prove it.

Rules
- A behaviour is one async function and the sync twin generated from it; its docstring is the promise.
- `needs` names capability flags. Where the broker declares one ABSENT, the behaviour counts as unsupported only after the
  flag's *probe* has shown that asking is refused: a declaration is proven either way.
- `hooks` names what the harness must offer (a proxy, a restart …); without it the behaviour was *not run*, which is said.
- Every case has a hard limit: it runs on a thread of its own, and one that does not end fails with the stack it hangs in.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ...capabilities import EMULATED, FLAGS, Capabilities
from ..harness import Harness

WORLDS: Final = ("async", "sync")
PARTS: Final = (
    "basics",
    "groups",
    "ack",
    "retry_dead",
    "replay",
    "worker",
    "worker_faults",
    "timing",
    "order",
    "send",
    "lifecycle",
    "faults",
    "ops",
    "probes",
)
LIMIT_S: Final = 60.0

PASS, EMULATION, UNSUPPORTED, KNOWN, NOT_RUN, FAILED = (
    "pass", "emulated", "unsupported", "known difference", "not run", "failed",
)  # fmt: skip
KINDS: Final = (PASS, EMULATION, UNSUPPORTED, KNOWN, NOT_RUN, FAILED)

Function = Callable[[Harness], "Awaitable[None] | None"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Behaviour:
    """`part` is the module it stands in; `functions` its cases by world."""

    number: int
    name: str
    promise: str
    needs: tuple[str, ...]
    hooks: tuple[str, ...]
    limit_s: float
    part: str
    functions: dict[str, Function] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """`kind` is one of KINDS; `reason` says why it is not a plain pass."""

    kind: str
    reason: str = ""


BEHAVIOURS: Final[dict[int, Behaviour]] = {}
PROBES: Final[dict[str, dict[str, Function]]] = {world: {} for world in WORLDS}


def behaviour(
    number: int, *, needs: Iterable[str] = (), hooks: Iterable[str] = (), limit_s: float = LIMIT_S
) -> Callable[[F], F]:
    """Register the decorated function as the case of behaviour `number` in its world."""

    def register(function: F) -> F:
        world = "async" if inspect.iscoroutinefunction(function) else "sync"
        promise = " ".join((function.__doc__ or "").split())
        part = function.__module__.rpartition(".")[2]
        made = Behaviour(number, function.__name__, promise, tuple(needs), tuple(hooks), limit_s, part)
        known = BEHAVIOURS.setdefault(number, made)
        if known.name != made.name or world in known.functions:
            raise ValueError(
                f"behaviour {number} is {known.name} already; {made.name} needs a number of its own"
            )
        if not promise or not set(made.needs) <= set(FLAGS):
            raise ValueError(f"{made.name}: a promise in its docstring, and flags that exist: {made.needs}")
        known.functions[world] = function
        return function

    return register


def probe(flag: str) -> Callable[[F], F]:
    """Register what asks for `flag` where it is ABSENT: the function passes when asking is refused in time."""
    if flag not in FLAGS:
        raise ValueError(f"{flag} is not a capability")

    def register(function: F) -> F:
        world = "async" if inspect.iscoroutinefunction(function) else "sync"
        PROBES[world][flag] = function
        return function

    return register


def load() -> dict[int, Behaviour]:
    """All behaviours, both worlds, by number."""
    for world in WORLDS:
        for part in PARTS:
            importlib.import_module(f"{__package__}._{world}.{part}")
    return dict(sorted(BEHAVIOURS.items()))


# ------------------------------------------------------------------------------------------------------- running one
class CaseHung(AssertionError):
    """The hard limit of a case was over; the text has the stack it hung in."""


def run_limited(function: Callable[[], Any], limit_s: float, what: str) -> Any:
    """`function()` on a thread of its own; a coroutine that it returns is run on a loop of its own."""
    box: list[Any] = []
    failed: list[BaseException] = []

    def main() -> None:
        try:
            made = function()
            box.append(asyncio.run(made) if inspect.iscoroutine(made) else made)
        except BaseException as error:  # whatever it was belongs to the caller's thread
            failed.append(error)

    thread = threading.Thread(target=main, name=f"case {what}", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "?"
        raise CaseHung(f"{what} did not end within {limit_s:g} s; it is here:\n{stack}")
    if failed:
        raise failed[0]
    return box[0]


@dataclass(frozen=True)
class Case:
    """One behaviour in one world; `run` it against a harness."""

    behaviour: Behaviour
    world: str

    def __str__(self) -> str:
        return f"{self.world}-{self.behaviour.number:03d}_{self.behaviour.name}"

    def run(self, harness: Harness) -> Outcome:
        """Passes, says why not, or raises what the behaviour failed with."""
        behaviour = self.behaviour
        reason = harness.known.get(behaviour.number)
        if reason is None:
            return self._run(harness)
        try:
            outcome = self._run(harness)
        except Exception as error:  # it differs, as was said; any failure of it is that difference
            return Outcome(KNOWN, f"{reason} ({type(error).__name__}: {_short(error)})")
        if outcome.kind in (PASS, EMULATION):
            raise AssertionError(
                f"{behaviour.name} holds; take its known difference ({reason}) out of the table"
            )
        return outcome

    def _run(self, harness: Harness) -> Outcome:
        behaviour = self.behaviour
        missing_hooks = [hook for hook in behaviour.hooks if getattr(harness, hook) is None]
        if missing_hooks:
            return Outcome(NOT_RUN, f"the harness offers no {', '.join(missing_hooks)}")
        capabilities = harness.capabilities
        absent = [flag for flag in behaviour.needs if not getattr(capabilities, flag)]
        for flag in absent:
            self._prove_absent(harness, flag)
        if absent:
            return Outcome(UNSUPPORTED, f"{harness.found} has no {', '.join(absent)}; asking is refused")
        function = behaviour.functions[self.world]
        run_limited(lambda: function(harness), behaviour.limit_s, str(self))
        return _held(capabilities, behaviour.needs)

    def _prove_absent(self, harness: Harness, flag: str) -> None:
        prove = PROBES[self.world].get(flag)
        if prove is not None:
            run_limited(lambda: prove(harness), self.behaviour.limit_s, f"{self.world}-probe_{flag}")


def _held(capabilities: Capabilities, needs: Iterable[str]) -> Outcome:
    emulated = [flag for flag in needs if getattr(capabilities, flag) is EMULATED]
    if not emulated:
        return Outcome(PASS)
    losses = [f"{flag}: {capabilities.losses[flag]}" for flag in emulated if flag in capabilities.losses]
    return Outcome(EMULATION, "; ".join(losses) or ", ".join(emulated))


def _short(error: BaseException) -> str:
    text = str(error).strip() or "no text"
    return text.splitlines()[0][:120]


def cases(only: Iterable[int] | None = None, worlds: Iterable[str] = WORLDS) -> list[Case]:
    """The cases of the behaviours `only` (None = all), in both worlds unless told."""
    table = load()
    chosen = list(table) if only is None else list(only)
    if unknown := [number for number in chosen if number not in table]:
        raise ValueError(f"there is no behaviour {unknown}")
    return [Case(table[number], world) for world in worlds for number in chosen]
