"""How much comes to a lane: its link's prefetch, changed while it is open where that can be, and its pauses.

Rules
- A link whose prefetch cannot be changed must be opened anew (`must_reopen`); so must that of an ordered source where a change
  would let others pass (`prefetch_keeps_order`), and only to widen it.
- Where the link can be paused (`Flow`), it is while a suspect that came among others waits or runs: a new, narrow prefetch need
  not count what came with the wide one.
- A link that comes back by itself is narrow again.
"""

from __future__ import annotations

from .._async.receiver import AsyncReceiver
from .._latch import Latch
from ..address import Source
from ..delivery import Delivery
from ..driver import CrashJournal, Flow, Prefetching, ReceiverLink
from .guard import NARROW


class Tap:
    """On the loop. `prefetch`: what the link has, as far as it was told."""

    def __init__(self, source: Source) -> None:
        self.prefetch = 0
        self._source = source
        self._receiver: AsyncReceiver | None = None
        self._seen: object = None  # the link of what came last
        self._paused: Flow | None = None
        self._still = Latch()

    def opened(self, receiver: AsyncReceiver, prefetch: int) -> None:
        self._receiver, self.prefetch = receiver, prefetch
        self._seen = self._link
        self._paused = None

    @property
    def _link(self) -> ReceiverLink | None:
        return self._receiver._intake.link if self._receiver is not None else None

    def is_of_a_new_link(self, delivery: Delivery) -> bool:
        """True once for each link that came back: it is narrow."""
        if delivery.link is self._seen:
            return False
        self._seen = delivery.link
        self.prefetch = NARROW
        return True

    @property
    def journal(self) -> CrashJournal | None:
        """The link, where it keeps one."""
        link = self._link
        return link if isinstance(link, CrashJournal) else None

    # -------------------------------------------------------------------------------------------------- how much
    def must_reopen(self, wanted: int) -> bool:
        """Whether the link must be opened anew to have that prefetch."""
        if wanted == self.prefetch or (self._source.ordered and wanted < self.prefetch):
            return False
        return self._link is not None and self._resizable is None

    @property
    def _resizable(self) -> Prefetching | None:
        link = self._link
        if not isinstance(link, Prefetching) or (self._source.ordered and not link.prefetch_keeps_order):
            return None
        return link

    def set_prefetch(self, count: int) -> None:
        """Where it can be."""
        link = self._resizable if count != self.prefetch else None
        if link is not None:
            self.prefetch = count
            link.set_prefetch(count)

    # --------------------------------------------------------------------------------------------------- whether
    def pause(self) -> None:
        """Before the prefetch is set. Not where it is narrow already: then the suspect itself keeps others away."""
        link = self._link
        if isinstance(link, Flow) and self._paused is not link and self.prefetch != NARROW:
            self._paused, self._still = link, Latch()
            link.pause(self._still.set)

    @property
    def still(self) -> Latch | None:
        """Set when nothing more is under way; None: it is not paused."""
        return self._still if self._paused is not None else None

    def resume(self) -> None:
        link, self._paused = self._paused, None
        if link is not None:
            link.resume()

    def shut(self) -> None:
        """For good; what is on its way still comes."""
        self._paused = None
        self.set_prefetch(NARROW)
