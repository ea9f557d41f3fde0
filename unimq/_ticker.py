"""One lazy daemon thread per client for what has to happen at a time: deadlines, linger, back-off, idle driving.

Rules
- The thread starts with the first `at` and ends when there has been nothing to do for `IDLE_EXIT_S`, or at `close`.
- A job must not block; what it raises is logged, never lost with the thread.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

IDLE_EXIT_S: Final = 5.0
_log = logging.getLogger("unimq.ticker")


class Job:
    """A scheduled call; `cancel` makes it do nothing."""

    __slots__ = ("due", "run")

    def __init__(self, due: float, run: Callable[[], None]) -> None:
        self.due = due
        self.run: Callable[[], None] | None = run

    def cancel(self) -> None:
        self.run = None


class Clockwork(Protocol):
    """What the core needs of a ticker; the simulation's has a clock of its own."""

    def at(self, due: float, run: Callable[[], None]) -> Job: ...
    def after(self, delay_s: float, run: Callable[[], None]) -> Job: ...


class Ticker:
    """Times are `time.monotonic` seconds."""

    def __init__(self, name: str = "unimq-ticker") -> None:
        self._name = name
        self._heap: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, due: float, run: Callable[[], None]) -> Job:
        """Call `run` at `due` on the ticker's thread. After `close` nothing runs any more."""
        job = Job(due, run)
        with self._changed:
            if self._closed:
                job.cancel()
                return job
            heapq.heappush(self._heap, (due, next(self._order), job))
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
            elif self._heap[0][2] is job:
                self._changed.notify()
        return job

    def after(self, delay_s: float, run: Callable[[], None]) -> Job:
        return self.at(time.monotonic() + delay_s, run)

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            run = job.run
            if run is None:
                continue
            try:
                run()
            except Exception:  # a job of ours has a bug: the other jobs' deadlines must still be kept
                _log.exception("a timed job failed")

    def _next(self) -> Job | None:
        with self._changed:
            idle_until = time.monotonic() + IDLE_EXIT_S
            while not self._closed:
                now = time.monotonic()
                while self._heap and self._heap[0][2].run is None:
                    heapq.heappop(self._heap)
                if self._heap and self._heap[0][0] <= now:
                    return heapq.heappop(self._heap)[2]
                if not self._heap and now >= idle_until:
                    break
                wait_until = self._heap[0][0] if self._heap else idle_until
                self._changed.wait(max(wait_until - now, 0.0))
            self._thread = None
            return None

    def close(self, timeout_s: float = 5.0) -> None:
        with self._changed:
            self._closed = True
            self._heap.clear()
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
