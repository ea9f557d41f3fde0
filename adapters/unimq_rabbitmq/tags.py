"""Which delivery tags of a channel are settled, and the fewest acks that say so. Pure.

Rules
- `multiple` acks everything up to its tag, so it is used only where all of that is settled, and it ends on a tag acked in
  this very call: one that ends on a nacked tag closes the channel. A nacked tag in the middle is fine.
- Beyond the first unsettled tag each ack is a single one.
"""

from __future__ import annotations

from collections.abc import Iterator


class Tags:
    __slots__ = ("_low", "_beyond", "_seen")

    def __init__(self) -> None:
        self._low = 1  # below it everything is settled
        self._beyond: set[int] = set()
        self._seen = 0

    def settled(self, tag: int) -> None:
        """One tag, by a nack that is written before the acks that follow."""
        if tag >= self._low:
            self._beyond.add(tag)
            self._advance()

    def skipped_to(self, tag: int) -> None:
        """`tag` arrived; those between it and the one before it were settled by the client library."""
        self._beyond.update(range(self._seen + 1, tag))
        self._seen = tag
        self._advance()

    def acks(self, tags: list[int]) -> Iterator[tuple[int, bool]]:
        """(tag, multiple) for these tags, none of which was settled before."""
        tags.sort()
        beyond = self._beyond
        last = count = 0
        singles: list[int] = []
        for tag in tags:
            if tag == self._low:
                self._low += 1
                last, count = tag, count + 1
                if beyond:
                    self._advance()
            elif tag > self._low:
                beyond.add(tag)
                singles.append(tag)
        if count:
            yield last, count > 1
        for tag in singles:
            yield tag, False

    def _advance(self) -> None:
        while self._low in self._beyond:
            self._beyond.discard(self._low)
            self._low += 1
