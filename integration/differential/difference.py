"""Two traces side by side: the first place where they part, and the smallest program that still parts them.

Rules
- A program that differs is run again with more patience, on both sides. If then it agrees, it was timing: counted as
  unsteady, not as a difference. So is what the left side itself, the real broker, does not do twice.
- Minimising leaves out one operation after the other, from the end, as long as something still differs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .executor import Executor, Trace, Unclean
from .making import Op

TRIES: Final = 5
CONTROLS: Final = 2  # runs of the left side alone that must agree with each other
PATIENCES: Final = (1.0, 3.0, 6.0)
MINIMISE_RUNS_MAX: Final = 60

_runs = itertools.count()


@dataclass(frozen=True)
class Sides:
    """Two URLs, and their names."""

    left: str
    right: str
    names: tuple[str, str]


@dataclass(frozen=True)
class Difference:
    at: int  # index of the operation; len(ops): what was left at the end
    left: Any
    right: Any


Outcome: TypeAlias = tuple[Difference | None, bool]  # the one that stays; was there one that did not?


class TooSlow(Exception):
    """The machine never was fast enough for a program with `wait`."""


def first_difference(left: Trace, right: Trace) -> Difference | None:
    for at, (a, b) in enumerate(zip(left, right, strict=True)):
        if a != b:
            return Difference(at, a, b)
    return None


def both(sides: Sides, ops: list[Op], patience: float) -> tuple[Trace, Trace]:
    """At the same time: a difference in time would be one in load."""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(_clean, url, ops, patience) for url in (sides.left, sides.right)]
        return runs[0].result(), runs[1].result()


def _clean(url: str, ops: list[Op], patience: float) -> Trace:
    for _ in range(TRIES):
        try:
            return Executor(url, f"d{os.getpid()}-{next(_runs)}-", patience).run(ops)
        except Unclean:
            continue
    raise TooSlow


def compare(sides: Sides, ops: list[Op], patiences: tuple[float, ...] = PATIENCES) -> Outcome:
    found: Difference | None = None
    for patience in patiences:
        try:
            found = first_difference(*both(sides, ops, patience))
        except TooSlow:
            if patience == patiences[-1]:
                raise
            continue
        if found is None:
            return None, patience != patiences[0]
    assert found is not None
    return (found, False) if _agrees_with_itself(sides.left, ops, patiences[-1]) else (None, True)


def _agrees_with_itself(url: str, ops: list[Op], patience: float) -> bool:
    try:
        first, *others = [_clean(url, ops, patience) for _ in range(CONTROLS)]
    except TooSlow:
        return True
    return all(each == first for each in others)


def minimise(
    sides: Sides, ops: list[Op], found: Difference, say: Callable[[str], None]
) -> tuple[list[int], Difference]:
    """Indices of the operations that are needed, and the difference they make."""
    keep = list(range(len(ops)))
    if found.at < len(ops):
        keep = keep[: found.at + 1]
    runs = 0
    for at in reversed(keep[:]):
        if runs >= MINIMISE_RUNS_MAX:
            say(f"minimising stopped after {runs} runs")
            break
        fewer = [each for each in keep if each != at]
        runs += 1
        try:
            difference, _ = compare(sides, [ops[each] for each in fewer], PATIENCES[:2])
        except TooSlow:
            continue
        if difference is not None:
            keep, found = fewer, difference
    return keep, found
