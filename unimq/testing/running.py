"""Run a worker until its work is done, with a clock that moves: `run(worker) -> Outcomes`.

Rules
- `until="idle"`: nothing waits, is delayed or is in hand at any of the worker's sources, seen twice with nothing in between.
  `until=n`: n messages are over (acknowledged, settled by their handler, or dead).
- On a broker with a clock that can be moved (`memory://`) nobody waits for a delay: when only delayed messages are left, the
  clock jumps to the next one that is due.
- The worker really runs, with its threads and its loop, and is stopped gracefully. A start that fails raises here; so does a
  time-out, saying what was still there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..address import Source
from ..errors import UnimqError
from ..stats import Stats
from ..worker import Outcome, Verb, Worker
from ..worker.stopping import Stage

LOOK_S: Final = 0.01
STOP_S: Final = 10.0
DUE_MARGIN_S: Final = 0.001  # a clock of floats: land behind the moment, not on it


@dataclass
class Outcomes:
    """Every try that was made, in the order they ended."""

    all: list[Outcome] = field(default_factory=list)
    exit_code: int = 0

    def _of(self, *verbs: Verb) -> list[Outcome]:
        return [outcome for outcome in self.all if outcome.verb in verbs]

    @property
    def handled(self) -> list[Outcome]:
        """Those that ended well."""
        return self._of(Verb.ACKED, Verb.SETTLED)

    @property
    def retried(self) -> list[Outcome]:
        """Failed tries that were followed by another, in hand or later."""
        return self._of(Verb.RETRIED, Verb.IN_HAND)

    @property
    def dead(self) -> list[Outcome]:
        return self._of(Verb.DEAD, Verb.DROPPED)

    @property
    def errors(self) -> list[BaseException]:
        """What handlers raised."""
        return [outcome.error for outcome in self.all if outcome.error is not None]

    @property
    def finished(self) -> int:
        return sum(outcome.final for outcome in self.all)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __repr__(self) -> str:
        return f"<Outcomes handled={len(self.handled)} retried={len(self.retried)} dead={len(self.dead)}>"


def run(worker: Worker, until: Literal["idle"] | int = "idle", timeout_s: float = 5.0) -> Outcomes:
    """See the module. Blocks: call it from a plain test, or from a thread."""
    running = _Running(worker)
    try:
        running.start()
        running.wait(until, time.monotonic() + timeout_s)
    finally:
        running.stop()
    return running.outcomes


class _Running:
    def __init__(self, worker: Worker) -> None:
        self.outcomes = Outcomes()
        self._worker = worker
        self._news = threading.Condition()
        self._problem: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name="unimq-test-worker", daemon=True)

    def _run(self) -> None:
        try:
            self.outcomes.exit_code = self._worker.run()
        except BaseException as error:  # carried over to the test, whatever it is
            self._problem = error
        with self._news:
            self._over = True
            self._news.notify_all()

    def _watch(self, outcome: Outcome) -> None:
        with self._news:
            self.outcomes.all.append(outcome)
            self._news.notify_all()

    def start(self) -> None:
        self._worker._ledger.watchers.append(self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._worker.stop()
        self._thread.join(STOP_S)
        self._worker._ledger.watchers.remove(self._watch)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._worker!r} did not stop within {STOP_S:g} s")

    # --------------------------------------------------------------------------------------------------- waiting
    def wait(self, until: Literal["idle"] | int, deadline: float) -> None:
        seen_quiet: int | None = None
        while True:
            if self._over:
                if self._problem is not None:
                    raise self._problem
                raise UnimqError(f"the worker stopped by itself with exit code {self.outcomes.exit_code}")
            if until == "idle":
                quiet = self._quiet()
                if quiet and seen_quiet == len(self.outcomes):
                    return
                seen_quiet = len(self.outcomes) if quiet else None
            elif self.outcomes.finished >= until:
                return
            else:
                self._quiet()
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not {until if until == 'idle' else f'{until} over'}: {self._state()}")
            with self._news:
                self._news.wait(LOOK_S)

    def _quiet(self) -> bool:
        """Whether there is nothing to do; moves the clock when only time is missing."""
        shift = self._worker._shift
        if shift is None or shift.client is None or shift.stopping.stage is not Stage.RUNNING:
            return False
        if any(lane.busy or lane.unsettled for lane in list(shift.lanes)):
            return False
        stats = [self._stats(source) for source in self._worker.sources]
        if any((each.depth or 0) + (each.in_flight or 0) for each in stats):
            return False
        if not any(each.delayed for each in stats):
            return True
        self._move_clock()
        return False

    def _stats(self, source: Source) -> Stats:
        shift = self._worker._shift
        if shift is None or shift.client is None:
            return Stats()
        try:
            return shift.client._questions.stats(source)
        except UnimqError:
            return Stats()  # it has no numbers (a private subscription): what is in hand has to do

    def _move_clock(self) -> None:
        clock = self._clock()
        due_s = None if clock is None else clock.until_due_s()
        if clock is not None and due_s is not None:
            clock.advance(due_s + DUE_MARGIN_S)

    def _clock(self) -> Any:
        shift = self._worker._shift
        assert shift is not None and shift.client is not None
        adapter = shift.client._supervisor.adapter
        find = getattr(adapter, "broker", None)
        target = self._worker._settings.target or os.environ.get("UNIMQ_URL")
        if find is None or not isinstance(target, str):
            return None
        return find(target).clock

    def _state(self) -> str:
        stats = {str(source): self._stats(source) for source in self._worker.sources}
        return f"{self.outcomes!r}, {self._worker.health().details}, {stats}"
