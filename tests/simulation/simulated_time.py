"""A clock that moves when told, and the jobs that are due then: stands in for the ticker."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from unimq._ticker import Job


class SimulatedTime:
    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Job]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        return self.now

    def at(self, due: float, run: Callable[[], None]) -> Job:
        job = Job(due, run)
        heapq.heappush(self._heap, (due, next(self._order), job))
        return job

    def after(self, delay_s: float, run: Callable[[], None]) -> Job:
        return self.at(self.now + delay_s, run)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, job = heapq.heappop(self._heap)
            if job.run is not None:
                job.run()
        self.now = end
