"""What the proofs share: one exchange for both worlds, a limit for everything, figures that are printed.

Rules
- An exchange is written once, as a coroutine over `now(...)`: with the sync client it never suspends, with the async one it does.
- Everything runs on a thread that is given up at its limit: a hang is a finding with the stacks of all threads, never a
  test run that stands still.
- A check returns its findings as texts; a proof asserts that there are none, a seeded bug that there are some.
- `UNIMQ_SHORT=1` runs the short form of each proof.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import unimq

SHORT = os.environ.get("UNIMQ_SHORT", "") not in ("", "0")
R = TypeVar("R")


class Hang(AssertionError):
    """Something did not end within its limit; the text has the stacks of all threads."""


@dataclass(frozen=True, slots=True)
class World:
    """One of the two facades. `connect` is what a user calls."""

    name: str
    connect: Callable[..., Any] = field(repr=False)

    def __str__(self) -> str:
        return self.name


SYNC = World("sync", unimq.connect)
ASYNC = World("async", unimq.connect_async)
WORLDS = (SYNC, ASYNC)


async def now(value: Any) -> Any:
    """The value itself, or what it becomes when awaited."""
    return await value if inspect.isawaitable(value) else value


def stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"--- {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame)[-8:])}"
        for ident, frame in sys._current_frames().items()
    ]
    return "\n".join(parts)


def within(limit_s: float, what: str, work: Callable[[], R]) -> R:
    """`work()` on a thread of its own; `Hang` at the limit."""
    outcome: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # carried to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"proof-{what}", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise Hang(f"{what} did not end within {limit_s:g} s\n{stacks()}")
    if errors:
        raise errors[0]
    return outcome[0]  # type: ignore[no-any-return]


def run(limit_s: float, what: str, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """A coroutine to its end, within the limit."""
    return within(limit_s, what, lambda: asyncio.run(work()))


def ours() -> list[str]:
    """The names of the threads that the library has running."""
    return sorted(thread.name for thread in threading.enumerate() if _is_ours(thread))


def gone(limit_s: float) -> list[str]:
    """What of the library still runs after so long: a thread on its last lines is waited for."""
    deadline = time.monotonic() + limit_s
    while ours() and time.monotonic() < deadline:
        for thread in threading.enumerate():
            if _is_ours(thread):
                thread.join(max(deadline - time.monotonic(), 0.0))
    return ours()


def _is_ours(thread: threading.Thread) -> bool:
    """A client's. The clock of a broker in memory lives as long as that broker, and the proxy is the test's."""
    return thread.name.startswith("unimq-") and not thread.name.startswith(
        ("unimq-memory-", "unimq-fault-proxy")
    )
