"""Messages that no handler is called for: over the crash limit, taken by nobody, or copied back to be counted.

Rules
- Where `dead_letter=None` was written, what would be dead is dropped, with an error in the log.
- A link that died meanwhile only means that the message comes again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .. import headers as h
from .._settlement import Desk
from ..address import Source
from ..delivery import Delivery
from ..errors import AlreadySettled, LockLost
from .outcomes import Ledger, Outcome, Verb
from .post import settle_failed

_log = logging.getLogger("unimq.worker")


class Unhandled:
    def __init__(self, source: Source, desk: Callable[[], Desk], ledger: Ledger) -> None:
        self._source = source
        self._desk = desk
        self._ledger = ledger

    def crashed(self, delivery: Delivery, count: int) -> None:
        text = f"it was in hand {count} times when its process or link died; no handler was called again"
        self._bury(delivery, "crashed", text)

    def rejected(self, delivery: Delivery) -> None:
        self._bury(delivery, "rejected", "no handler matches")

    def _bury(self, delivery: Delivery, reason: str, text: str) -> None:
        desk = self._desk()
        dropped = desk.plan.dead_write is None
        try:
            if dropped:
                desk.ack(delivery)
            else:
                desk.dead_letter(delivery, reason, text)
        except (LockLost, AlreadySettled):
            self._write(Verb.LOST, delivery, "")
            return
        if dropped:
            _log.error(
                "%s: %r is dropped, since dead_letter=None was written: %s", self._source, delivery, text
            )
        else:
            _log.error("%s: %r is dead: %s", self._source, delivery, text)
        self._write(Verb.DROPPED if dropped else Verb.DEAD, delivery, reason)

    def copy_back(self, delivery: Delivery, count: int) -> None:
        """To where it came from, with its count of crashes."""
        try:
            self._desk().copy_back(delivery, {h.CRASHES: count})
        except (LockLost, AlreadySettled):
            self._write(Verb.LOST, delivery, "")

    def match_failed(self, delivery: Delivery, error: Exception) -> Verb:
        """`match=` raised: as if the handler had failed. IN_HAND: ask it again."""
        _log.warning("%s: match= failed on %r: %s", self._source, delivery, error, exc_info=error)
        try:
            verb, reason = settle_failed(self._desk(), delivery, error)
        except (LockLost, AlreadySettled):
            verb, reason = Verb.LOST, ""
        self._write(verb, delivery, reason)
        return verb

    def _write(self, verb: Verb, delivery: Delivery, reason: str) -> None:
        self._ledger.write(Outcome(verb, self._source, "", delivery, delivery.attempt, reason))
