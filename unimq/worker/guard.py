"""Messages that kill their process: how often, who is suspect, and how wide the receiver may be. Pure.

Rules (§5.4)
- The count lives with the broker: its own delivery count, plus what we wrote into a copy (`unimq-crashes`).
- A receiver opens *narrow* (prefetch 1): what a crash left comes one at a time. The first fresh message widens it, after one
  with a count the `CALM`th: where there is one there are more, since what was in hand together comes again together, and what
  finds the receiver narrow pays for no other. A message with a count of `SUSPECT` or more runs alone, and narrows it again.
- Where the broker does not count, a redelivered message is first copied back with its count + 1, and handled as that copy.
- Where the link keeps a journal instead (`CrashJournal`), every redelivered one is a suspect: each try is noted before it begins.
- At `crashes` a message is dead (`crashed`) before its handler is called.
- What a line took that this process survived is taken off, where no handler had begun it (`spared.py`).
"""

from __future__ import annotations

import enum
from typing import Final

from .. import headers as h
from ..delivery import Delivery, _whole
from .spared import Spared

SUSPECT: Final = 2
NARROW: Final = 1
CALM: Final = 10


class Look(enum.Enum):
    NORMAL = "normal"
    SUSPECT = "suspect"  # runs alone
    CRASHED = "crashed"  # over the limit
    RECOUNT = "recount"  # copied back with its count first


def crashes_of(delivery: Delivery) -> int:
    """How often this message was in hand when something ended badly."""
    meta = delivery.metadata
    written = _whole(meta.unimq.get(h.CRASHES))
    if meta.delivery_count is not None:
        return written + meta.delivery_count
    return written + (1 if meta.redelivered else 0)


class Guard:
    """`limit` is `Retry.crashes`; `can_copy`: this source takes copies back (not where order counts); `journal`: a suspect's
    try is noted before it begins."""

    def __init__(self, *, limit: int, wide: int, can_copy: bool, journal: bool = False) -> None:
        self.spared = Spared()
        self._limit = limit
        self._can_copy = can_copy
        self._suspect = 1 if journal else SUSPECT
        self._wide = wide
        self._wanted_calm = 0  # so many fresh ones until it widens
        self.prefetch = NARROW

    def reopened(self) -> None:
        """The link is a new one: it opened narrow."""
        self.prefetch = NARROW

    def count(self, delivery: Delivery) -> int:
        """What its next owner is to know, or it dies of."""
        crashes = crashes_of(delivery)
        return max(crashes - self.spared.times(delivery), 0) if crashes else 0

    def look(self, delivery: Delivery) -> Look:
        """Says what to do with a delivery and sets `prefetch`, which the caller passes on when it changed."""
        meta = delivery.metadata
        crashes = self.count(delivery)
        if crashes or meta.redelivered:
            self._wanted_calm = CALM
        if crashes >= self._limit:
            return Look.CRASHED
        if crashes and meta.redelivered and meta.delivery_count is None and self._can_copy:
            return Look.RECOUNT
        if crashes >= self._suspect:
            self.prefetch = NARROW
            return Look.SUSPECT
        if not crashes and not meta.redelivered:
            self._wanted_calm = max(self._wanted_calm - 1, 0)
            if not self._wanted_calm:
                self.prefetch = self._wide
        return Look.NORMAL
