"""What the worker's tests on real brokers share.

Rules
- A worker runs in a thread and is stopped when the block ends; a `Tally` is written by its handlers and waited for.
- Every wait has a limit; what was missing is in the error.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unimq import Worker

WAIT_S = 30.0
STOP_S = 40.0


class Tally:
    """What handlers saw: (what, when), in their order."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.seen: list[tuple[object, float]] = []

    def add(self, what: object) -> None:
        with self._news:
            self.seen.append((what, time.monotonic()))
            self._news.notify_all()

    @property
    def counts(self) -> Counter[object]:
        with self._news:
            return Counter(what for what, _ in self.seen)

    def wait(self, enough: Callable[[Counter[object]], bool], what: str, timeout_s: float = WAIT_S) -> None:
        with self._news:
            if not self._news.wait_for(lambda: enough(Counter(each for each, _ in self.seen)), timeout_s):
                raise AssertionError(f"{what}: not within {timeout_s:g} s; {len(self.seen)} seen")


class Running:
    """`code` and `stop_took_s` are there when the block is over."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.code: int | None = None
        self.error: BaseException | None = None
        self.stop_took_s = 0.0
        self._thread = threading.Thread(target=self._run, name="worker-under-test", daemon=True)

    def _run(self) -> None:
        try:
            self.code = self.worker.run()
        except BaseException as error:  # carried over to the test
            self.error = error

    def start(self) -> None:
        self._thread.start()
        until(lambda: self.error is not None or self.worker.health().ok, "the worker starts")
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        began = time.monotonic()
        self.worker.stop()
        self._thread.join(STOP_S)
        self.stop_took_s = time.monotonic() - began
        assert not self._thread.is_alive(), "the worker does not stop"


@contextmanager
def running(worker: Worker) -> Iterator[Running]:
    it = Running(worker)
    it.start()
    try:
        yield it
    finally:
        it.stop()


def until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        pause.wait(0.02)
