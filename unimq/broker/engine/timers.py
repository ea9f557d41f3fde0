"""Entries ordered by the time at which something happens to them.

Rules
- Nothing is taken out of the middle: a record is skipped when its entry has moved on (another state, another time).
- The number of such dead records is bounded: when they outnumber the live ones, the heap is swept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from operator import itemgetter

from .limits import SWEEP_MIN_RECORDS
from .message import Entry


class TimerHeap:
    """`states` and `when` say which record still holds: the entry is in one of these states, with that very time."""

    __slots__ = ("_heap", "_pushed", "_states", "_sweep_at", "_when")

    def __init__(self, states: tuple[int, ...], when: Callable[[Entry], float | None]) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._states = states
        self._when = when
        self._pushed = 0
        self._sweep_at = SWEEP_MIN_RECORDS

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, when: float, entry: Entry) -> None:
        self._pushed += 1  # breaks ties first come, first served: entries themselves have no order
        heapq.heappush(self._heap, (when, self._pushed, entry))
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def next(self) -> float:
        """The time of the first live record; inf when there is none."""
        heap = self._heap
        while heap:
            when, _, entry = heap[0]
            if entry.state in self._states and self._when(entry) == when:
                return when
            heapq.heappop(heap)
        return inf

    def pop_due(self, now: float) -> Entry | None:
        return heapq.heappop(self._heap)[2] if self.next() <= now else None

    def _sweep(self) -> None:
        live = [r for r in self._heap if r[2].state in self._states and self._when(r[2]) == r[0]]
        live.sort(key=itemgetter(0, 1))  # a sorted list is a heap
        self._heap = live
        self._sweep_at = 2 * len(live) + SWEEP_MIN_RECORDS
