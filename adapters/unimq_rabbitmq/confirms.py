"""What was published on one channel and is not confirmed yet: delivery tags → batches. Pure.

Rules
- A batch is one or more runs of consecutive tags; books are kept per run, never per message: confirming in order is one
  addition, `multiple` one per run, and a set exists only for what is confirmed out of order.
- A `basic.return` has no tag and comes before its confirmation: it marks the first unmarked message in send order that fits.
- A batch is complete when its last item is; it then says so once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from unimq.driver import ALL_WELL, BatchResult, Done, Failed

PRUNE_RUNS: Final = 256  # dead runs at the head before the lists are cut


class Open:
    """An accepted batch (or copies) on its way. `match(i, id, key, body)` tells whether item i is what came back."""

    __slots__ = ("done", "left", "failures", "match")

    def __init__(
        self, total: int, done: Done[BatchResult], match: Callable[[int, str | None, str, bytes], bool]
    ) -> None:
        self.done = done
        self.left = total
        self.failures: dict[int, Failed] | None = None
        self.match = match

    def fail(self, index: int, failed: Failed) -> None:
        """Item `index` is over, badly."""
        if self.failures is None:
            self.failures = {}
        self.failures[index] = failed
        self.left -= 1

    def result(self) -> BatchResult:
        return ALL_WELL if self.failures is None else BatchResult(self.failures)


class Run:
    """Tags `first`…`last` are the items `index`, `index + 1` … of `batch`."""

    __slots__ = ("first", "last", "index", "batch", "low", "beyond", "returned")

    def __init__(self, first: int, count: int, index: int, batch: Open) -> None:
        self.first = self.low = first  # below `low` all are confirmed
        self.last = first + count - 1
        self.index = index
        self.batch = batch
        self.beyond: set[int] | None = None  # confirmed out of order
        self.returned: dict[int, Failed] | None = None

    def open_tags(self) -> Iterator[int]:
        for tag in range(self.low, self.last + 1):
            if self.beyond is None or tag not in self.beyond:
                yield tag

    def settle(self, tag: int, failed: Failed | None) -> bool:
        """One tag; False when it was settled before."""
        if tag < self.low or tag > self.last or (self.beyond is not None and tag in self.beyond):
            return False
        if tag == self.low:
            self.low += 1
            if self.beyond is not None:
                while self.low in self.beyond:
                    self.beyond.discard(self.low)
                    self.low += 1
        else:
            self.beyond = self.beyond or set()
            self.beyond.add(tag)
        self._over(tag, failed)
        return True

    def settle_to(self, tag: int, failed: Callable[[], Failed] | None) -> int:
        """All open tags up to `tag`; how many."""
        last = min(tag, self.last)
        if failed is None and self.beyond is None and self.returned is None:
            count = last - self.low + 1
            if count > 0:
                self.low = last + 1
                self.batch.left -= count
            return max(count, 0)
        count = 0
        for one in list(self.open_tags()):
            if one > last:
                break
            count += self.settle(one, None if failed is None else failed())
        return count

    def _over(self, tag: int, failed: Failed | None) -> None:
        if self.returned is not None:
            failed = self.returned.pop(tag, failed)
        if failed is None:
            self.batch.left -= 1
        else:
            self.batch.fail(self.index + tag - self.first, failed)


class Ledger:
    """The books of one channel. I/O thread only; completions are handed to `complete`."""

    def __init__(self, complete: Callable[[Open], None]) -> None:
        self._complete = complete
        self._next = 1
        self._firsts: list[int] = []
        self._runs: list[Run] = []
        self._head = 0
        self._returns_from = (
            0  # no message before this tag is unmarked and returned: returns come in send order
        )

    def published(self, batch: Open, index: int, count: int) -> None:
        """Items `index` … were just written, in order."""
        self._firsts.append(self._next)
        self._runs.append(Run(self._next, count, index, batch))
        self._next += count

    def confirm(self, tag: int, multiple: bool, failed: Callable[[], Failed] | None) -> int:
        """How many messages that settled. `failed` is for a nack."""
        finished: list[Open] = []
        count = 0
        if multiple:
            if tag == 0:
                tag = self._next - 1
            for position in range(self._head, len(self._runs)):
                run = self._runs[position]
                if run.first > tag:
                    break
                count += run.settle_to(tag, failed)
                if run.batch.left == 0:
                    finished.append(run.batch)
        else:
            position = bisect_right(self._firsts, tag, self._head) - 1
            if position >= self._head:
                run = self._runs[position]
                count = int(run.settle(tag, None if failed is None else failed()))
                if count and run.batch.left == 0:
                    finished.append(run.batch)
        self._prune()
        for batch in finished:
            if batch.left == 0:
                batch.left = -1  # a batch of several runs finishes once
                self._complete(batch)
        return count

    def returned(self, message_id: str | None, routing_key: str, body: bytes, failed: Failed) -> bool:
        """Mark what came back. False when nothing fits (it was confirmed before, or is not ours)."""
        for start in (self._returns_from, 0):
            for run in self._runs[self._head :]:
                if run.last < start:
                    continue
                for tag in run.open_tags():
                    if tag < start or (run.returned is not None and tag in run.returned):
                        continue
                    if run.batch.match(run.index + tag - run.first, message_id, routing_key, body):
                        run.returned = run.returned or {}
                        run.returned[tag] = failed
                        self._returns_from = tag + 1
                        return True
            if start == 0:
                break
        return False

    def all_failed(self, failed: Failed) -> int:
        """The channel is gone: what is open is over."""
        return self.confirm(self._next - 1, True, lambda: failed) if self._next > 1 else 0

    @property
    def idle(self) -> bool:
        return self._head >= len(self._runs)

    def _prune(self) -> None:
        runs = self._runs
        while self._head < len(runs) and runs[self._head].low > runs[self._head].last:
            self._head += 1
        if self._head == len(runs):
            self._runs, self._firsts, self._head = [], [], 0
        elif self._head >= PRUNE_RUNS:
            del self._runs[: self._head], self._firsts[: self._head]
            self._head = 0


def spans(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending indices as (first, count) of consecutive ones."""
    start = previous = -2
    for index in indices:
        if index != previous + 1:
            if start >= 0:
                yield start, previous - start + 1
            start = index
        previous = index
    if start >= 0:
        yield start, previous - start + 1
