"""The ready messages of a queue (or of one session of it), in the order in which they are handed out.

Rules
- Highest priority first; in one priority by `position`. Putting, taking and giving back cost O(1) or O(log n).
- A lane is two sorted runs merged at the head: `fresh` came in order, `returned` came back.
- Taking from the middle leaves a tombstone: an entry that is no longer READY is skipped, and swept when such
  entries outnumber the living. A handle never becomes READY again (`message.py`), so a tombstone stays one.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from .limits import SWEEP_MIN_RECORDS
from .message import READY, Entry


class Lane:
    """One priority."""

    __slots__ = ("_given_back", "_tombstones", "fresh", "live", "returned")

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.returned: list[tuple[int, int, Entry]] = []
        self.live = 0
        self._tombstones = self._given_back = 0

    def give_back(self, entry: Entry) -> None:
        # the count breaks ties: a tombstone of this very message may still lie here, at the same position
        self._given_back += 1
        heapq.heappush(self.returned, (entry.position, self._given_back, entry))
        self.live += 1

    def head(self) -> Entry | None:
        fresh, returned = self.fresh, self.returned
        while fresh and fresh[0].state != READY:
            fresh.popleft()
        while returned and returned[0][2].state != READY:
            heapq.heappop(returned)
        if returned and (not fresh or returned[0][0] < fresh[0].position):
            return returned[0][2]
        return fresh[0] if fresh else None

    def pop(self) -> Entry | None:
        """The head, taken out; the caller gives it its next state."""
        if not self.returned:
            fresh = self.fresh
            while fresh:
                entry = fresh.popleft()
                if entry.state == READY:
                    self.live -= 1
                    return entry
            return None
        found = self.head()
        if found is None:
            return None
        if self.returned and self.returned[0][2] is found:
            heapq.heappop(self.returned)
        else:
            self.fresh.popleft()
        self.live -= 1
        return found

    def taken(self) -> None:
        """One entry in the middle has left READY."""
        self.live -= 1
        self._tombstones += 1
        if self._tombstones > self.live + SWEEP_MIN_RECORDS:
            self.fresh = deque(e for e in self.fresh if e.state == READY)
            self.returned = [r for r in self.returned if r[2].state == READY]
            heapq.heapify(self.returned)
            self._tombstones = 0

    def __iter__(self) -> Iterator[Entry]:
        """In order; entries may leave READY meanwhile."""
        returned = [r[2] for r in sorted(self.returned, key=lambda r: r[:2])] if self.returned else []
        at = 0
        for entry in list(self.fresh):
            while at < len(returned) and returned[at].position < entry.position:
                if returned[at].state == READY:
                    yield returned[at]
                at += 1
            if entry.state == READY:
                yield entry
        for entry in returned[at:]:
            if entry.state == READY:
                yield entry


class Shelf:
    """The lanes of all priorities."""

    __slots__ = ("_filled", "_lanes", "count")

    def __init__(self, max_priority: int | None) -> None:
        self._lanes = [Lane() for _ in range((max_priority or 0) + 1)]
        self._filled = 0  # bit p: lane p may hold something
        self.count = 0

    def append(self, entry: Entry) -> None:
        """Behind all of its priority; its position is higher than theirs."""
        priority = entry.priority
        lane = self._lanes[priority]
        lane.fresh.append(entry)
        lane.live += 1
        self._filled |= 1 << priority
        self.count += 1

    def give_back(self, entry: Entry) -> None:
        self._lanes[entry.priority].give_back(entry)
        self._filled |= 1 << entry.priority
        self.count += 1

    def pop(self) -> Entry | None:
        while self._filled:
            top = self._filled.bit_length() - 1
            entry = self._lanes[top].pop()
            if entry is not None:
                self.count -= 1
                return entry
            self._filled ^= 1 << top
        return None

    def taken(self, entry: Entry) -> None:
        """`entry` has left READY where it stood."""
        self._lanes[entry.priority].taken()
        self.count -= 1

    def head(self) -> Entry | None:
        """What `pop` would take."""
        for priority in range(self._filled.bit_length() - 1, -1, -1):
            head = self._lanes[priority].head()
            if head is not None:
                return head
        return None

    def __iter__(self) -> Iterator[Entry]:
        for priority in range(self._filled.bit_length() - 1, -1, -1):
            yield from self._lanes[priority]
