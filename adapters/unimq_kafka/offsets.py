"""The books of one partition: what was handed out, what is done, how far may be committed. Pure; one thread.

Rules
- The watermark is the offset after the longest prefix of *delivered* offsets that is done. Gaps in the log (compaction,
  control records, aborts) are no gaps here: only what was delivered counts. It never moves past what is not done.
- What is done behind an older one that is not is *held*. What was forgotten blocks like something unsettled, but is in
  nobody's hands.
- With every commit goes what the next owner must know (`journal.py`): `ended` well, or else.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from unimq.driver import Place

from .journal import CLEAN, Journal

D = Any  # a KafkaDelivery; the books do not look into it


class Lane:
    """One assigned partition. `gone`: it is no longer ours, and nothing of it may be committed. `written`: the metadata of the
    last commit that landed."""

    __slots__ = (
        "topic", "partition", "place", "pending", "open", "forgotten", "held", "watermark", "committed", "written", "journal",
        "ended", "gone", "parked", "due", "pauses",
    )  # fmt: skip

    def __init__(self, topic: str, partition: int, place: Place | None) -> None:
        self.topic = topic
        self.partition = partition
        self.place = place
        self.pending: deque[int] = deque()  # delivered and not yet below the watermark, in order
        self.open: dict[int, D] = {}
        self.forgotten: set[int] = set()
        self.held: dict[int, D] = {}
        self.watermark: int | None = None
        self.committed: int | None = None
        self.written = ""
        self.journal: Journal | None = None  # None where nothing is committed
        self.ended = False
        self.gone = False
        self.parked: deque[Any] = deque()  # records of a retry place that are not due yet
        self.due = 0.0
        self.pauses: set[str] = set()

    def begin(self, position: int, journal: Journal) -> None:
        """A group's: nothing may be handed out before `is_open`."""
        self.watermark = self.committed = position
        self.journal = journal

    @property
    def is_open(self) -> bool:
        """Whether the next owner would learn from the broker that this one died."""
        return self.journal is None or self.written == self.journal.text()

    def text(self) -> str:
        """The metadata of the next commit."""
        if self.journal is None:
            return ""
        if self.watermark is not None:
            self.journal.settled(self.watermark)
        return CLEAN if self.ended else self.journal.text()

    def deliver(self, offset: int, delivery: D) -> None:
        self.pending.append(offset)
        self.open[offset] = delivery

    def skip(self, offset: int) -> None:
        """Done without ever being handed out (a filter did not want it)."""
        self.pending.append(offset)

    def again(self, offset: int, delivery: D) -> None:
        """The same record as a new delivery."""
        self.open[offset] = delivery

    def done(self, offset: int) -> bool:
        """Mark it done. False if it was not open."""
        return self.open.pop(offset, None) is not None

    def behind(self, offset: int, delivery: D) -> bool:
        """After `advance`: whether what is done at `offset` is held behind an older one; remembers it if so."""
        if not self.pending or self.pending[0] >= offset:
            return False
        self.held[offset] = delivery
        return True

    def forget(self, offset: int) -> bool:
        if self.open.pop(offset, None) is None:
            return False
        self.forgotten.add(offset)
        return True

    def advance(self) -> bool:
        """Move the watermark over what is done. True if it moved."""
        pending, still_open, forgotten, held = self.pending, self.open, self.forgotten, self.held
        moved = False
        while pending:
            offset = pending[0]
            if offset in still_open or offset in forgotten:
                break
            pending.popleft()
            if held:
                held.pop(offset, None)
            self.watermark = offset + 1
            moved = True
        return moved

    @property
    def dirty(self) -> bool:
        return self.watermark is not None and (
            self.watermark != self.committed or self.text() != self.written
        )

    def __repr__(self) -> str:
        return f"<Lane {self.topic}[{self.partition}] pending={len(self.pending)} open={len(self.open)}>"
