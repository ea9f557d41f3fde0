"""What comes into a queue, and what is refused there.

Rules
- Bounds are checked against what is ready; a delayed message is not bounded before its time.
- Refusing is an answer, and it is given before anything has changed. Only "dead-letter" takes the newcomer as dead.
- "reject-late" refuses only once the bound has been passed, and then until the queue has sunk well below it.
"""

from __future__ import annotations

from collections.abc import Hashable

from .deadletter import OVERFLOW
from .holding import Holding
from .limits import SOFT_BOUND
from .message import DELAYED, ENDED, LEASED, READY, Entry, Stored
from .results import PutOutcome, Refusal


class Putting(Holding):
    __slots__ = ()

    def put(self, stored: Stored, due_at: float | None = None, *, moved: bool = False) -> PutOutcome:
        """`moved`: it already lies in another queue of this engine and leaves it now: neither new nor a duplicate."""
        now = self._now()
        if self._next_due <= now:
            self._tick(now)
        refused = self._refusal(stored, now, due_at, moved) if self._checked else None
        size = stored.size_bytes
        budget = self.budget
        if refused is None and budget.held_bytes + size > budget.limit_bytes and not moved:
            refused = Refusal.BROKER_FULL
        if refused is not None:
            if self.news:
                self._tell()
            return refused
        if self._checked and not moved:
            self._remember(stored, now)
        self._seq += 1
        entry = Entry(stored, self._seq, READY, now)
        budget.held_bytes += size
        self.held_bytes += size
        if due_at is None or due_at <= now:
            self._arrive(entry, now)
        else:
            entry.state = DELAYED
            entry.due_at = due_at
            self.delayed[entry.seq] = entry
            self._starts.push(due_at, entry)
            self._wake_at(due_at)
        if self.news:
            self._tell()
        return entry

    def put_leased(self, stored: Stored, owner: Hashable) -> PutOutcome:
        """Handed to `owner` at once, without having been ready: for an empty queue with somebody waiting. Neither
        "drop-head" nor a time to live of zero keeps it from him (RabbitMQ's publish_delivered); for the other overflows
        ask `refuses` before."""
        now = self._catch_up()
        budget = self.budget
        refused = Refusal.CLOSED if self.closed else None
        if refused is None and budget.held_bytes + stored.size_bytes > budget.limit_bytes:
            refused = Refusal.BROKER_FULL
        if refused is not None:
            if self.news:
                self._tell()
            return refused
        options = self.options
        self._seq += 1
        self._last += 1
        entry = Entry(stored, self._seq, LEASED, now, self._last)
        entry.owner = owner
        entry.delivery_count = int(options.count_on == "delivery")
        if options.max_priority is not None:
            entry.priority = min(max(stored.priority, 0), options.max_priority)
        entry.expires_at = self._expires_at(stored, now)
        budget.held_bytes += stored.size_bytes
        self.held_bytes += stored.size_bytes
        self._leases.setdefault(owner, {})[entry.seq] = entry
        if self.news:
            self._tell()
        return entry

    def _refusal(self, stored: Stored, now: float, due_at: float | None, moved: bool) -> Refusal | None:
        options = self.options
        if self.closed:
            return Refusal.CLOSED
        if self.sessions is not None and stored.session_id is None:
            return Refusal.NO_SESSION
        if not moved and stored.message_id in self._ids:
            return Refusal.DUPLICATE
        if options.overflow != "drop-head" and (due_at is None or due_at <= now) and self._refuses(stored):
            if options.overflow == "dead-letter" and not moved and self.budget.has_room(stored.size_bytes):
                self._seq += 1
                self.budget.held_bytes += stored.size_bytes
                self.held_bytes += stored.size_bytes
                self._condemn(Entry(stored, self._seq, ENDED, now), OVERFLOW)
            return Refusal.QUEUE_FULL
        return None

    def refuses(self, stored: Stored) -> bool:
        """A bound would turn it away now, whoever may be waiting for it."""
        return self._checked and self.options.overflow != "drop-head" and self._refuses(stored)

    def _refuses(self, stored: Stored) -> bool:
        if self.options.overflow != "reject-late":
            return self._over(1, self._weight(stored))
        if self._rejecting and self._within_soft_bound():
            self._rejecting = False
        self._rejecting = self._rejecting or self._over(0, 0)
        return self._rejecting

    def _within_soft_bound(self) -> bool:
        options = self.options
        pairs = ((options.max_length, self.ready), (options.max_bytes, self.ready_bytes))
        return all(bound is None or held <= int(bound * SOFT_BOUND) for bound, held in pairs)
