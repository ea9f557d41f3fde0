"""One row measured: rounds are added until its ratio is known well enough, or a limit ends it.

Rules
- Nothing is compared that did not run side by side: a round is twin, ours, twin.
- The first run of each side is thrown away: it pays for what is done once.
- A limit on the time of a row is a limit on the whole of it, what prepares a run included: no round is begun that would
  pass it, going by the longest one so far. The least number of rounds is given up before the limit is.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from bench.stats import Round, Run, Target, narrow

WARM_UP_SHARE: Final = 10  # the thrown-away runs have a tenth of the messages
ROUNDS_MIN_ANY: Final = 3  # below it an interval says nothing

Contender = Callable[[int], Run]  # prepares, runs `count` messages, tells the time of these alone


class BenchFailed(Exception):
    """A run did not do what it was to do: a message missing, refused, or no end in time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is measured."""

    messages: int = 30_000
    slow_messages: int = 30_000  # where each message waits for the one before it
    rounds_min: int = 15
    rounds_max: int = 60
    row_s: float = 600.0


FULL: Final = Limits()
SHORT: Final = Limits(messages=5_000, slow_messages=2_000, rounds_min=5, rounds_max=12, row_s=12.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `facts` is asked once, for what is not a figure of a run."""

    name: str
    title: str
    twin_title: str
    ours: Contender
    twin: Contender
    target: Target = field(default_factory=Target)
    count: int | None = None  # of one run, where it is not the number of messages
    slow: bool = False
    facts: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out. `why` says what ended it early, or what went wrong."""

    row: Row
    count: int
    rounds: list[Round] = field(default_factory=list)
    took_s: float = 0.0
    why: str = ""
    facts: str = ""
    failed: bool = False


def measure(row: Row, limits: Limits, clock: Callable[[], float] = time.monotonic) -> Measured:
    """Never raises for what a run does wrong: that is the row's outcome, and the next row is measured all the same."""
    count = row.count or (limits.slow_messages if row.slow else limits.messages)
    result = Measured(row, count)
    started = clock()
    try:
        warm = max(count // WARM_UP_SHARE, 1)
        _clean(row.twin, warm)
        _clean(row.ours, warm)
        longest_s = 0.0
        while not _enough(result.rounds, limits):
            now = clock()
            if len(result.rounds) >= ROUNDS_MIN_ANY and now - started + longest_s > limits.row_s:
                result = replace(result, why=f"{limits.row_s:g} s were over")
                break
            result.rounds.append(
                Round(_clean(row.twin, count), _clean(row.ours, count), _clean(row.twin, count))
            )
            longest_s = max(longest_s, clock() - now)
        if row.facts is not None:
            result = replace(result, facts=row.facts())
    except Exception as error:  # whatever a client library raises: the row failed, the others have not
        return replace(result, took_s=clock() - started, why=f"{type(error).__name__}: {error}", failed=True)
    return replace(result, took_s=clock() - started)


def _enough(rounds: list[Round], limits: Limits) -> bool:
    return len(rounds) >= limits.rounds_max or (len(rounds) >= limits.rounds_min and narrow(rounds))


def _clean(contender: Contender, count: int) -> Run:
    """Nobody pays for the garbage of the one before."""
    gc.collect()
    run = contender(count)
    if run.count != count or run.wall_s <= 0:
        raise BenchFailed(f"{run.count} of {count} messages in {run.wall_s:g} s")
    return run


class Stopwatch:
    """Wall and CPU time between `start` and `stop`; the CPU time is that of all threads of this process."""

    __slots__ = ("_cpu_s", "_wall_s")

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._cpu_s = time.process_time()
        self._wall_s = time.perf_counter()

    def stop(self, count: int) -> Run:
        wall_s = time.perf_counter() - self._wall_s
        return Run(count, wall_s, time.process_time() - self._cpu_s)
