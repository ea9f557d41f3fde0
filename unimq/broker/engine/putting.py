"""What comes into a queue, and what is refused there.

Rules
- Bounds are checked against what is ready; a delayed message is not bounded before its time.
- Refusing is an answer, and it is given before anything has changed. Only "dead-letter" takes the newcomer as dead.
- "reject-late" refuses only once the bound has been passed, and then until the queue has sunk well below it. What is dead
  and still held counts (rabbit_fifo:is_over_limit).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import attrgetter

from .deadletter import OVERFLOW
from .holding import BEFORE_ALL, NEWS_DEAD, Holding
from .limits import SOFT_BOUND
from .message import DEAD, DEFERRED, DELAYED, ENDED, LEASED, READY, Entry, Stored
from .results import PutOutcome, Refusal


class Putting(Holding):
    __slots__ = ()

    def put(
        self, stored: Stored, due_at: float | None = None, *, moved: bool = False, bounded: bool = True
    ) -> PutOutcome:
        """`moved`: it already lies in another queue of this engine and leaves it now: neither new nor a duplicate. Without
        `bounded` no bound refuses it."""
        now = self._now()
        if self._next_due <= now:
            self._tick(now)
        refused = self._refusal(stored, now, due_at, moved, bounded) if self._checked else None
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
        if self.journal is not None:
            self.journal.entered(entry)
        if due_at is None or due_at <= now:
            self._arrive(entry, now)
            if self._next_due <= now:  # no time to live at all
                self._tick(now)
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
        if self.journal is not None:
            self.journal.entered(entry)
        if self.news:
            self._tell()
        return entry

    def restore(self, entries: Iterable[Entry], owner: Hashable) -> None:
        """What a journal kept of an empty queue, each in its state and place; what was leased is `owner`'s now. Bounds are
        not looked at, nothing is told: let all queues be restored, then call `drop_owner(owner)`."""
        for entry in sorted(entries, key=attrgetter("position")):
            stored = entry.stored
            self._seq = max(self._seq, entry.seq)
            if entry.position > BEFORE_ALL // 2:
                self._last = max(self._last, entry.position)
            else:
                self._first = max(self._first, entry.position)
            self.budget.held_bytes += stored.size_bytes
            self.held_bytes += stored.size_bytes
            if entry.state == READY:
                (self._shelf if self.sessions is None else self._session_shelf(stored.session_id)).append(
                    entry
                )
                self.ready += 1
                self.ready_bytes += self._weight(stored)
                if entry.expires_at is not None:
                    self._watch_ttl(entry)
            elif entry.state == LEASED:
                entry.owner = owner
                self._leases.setdefault(owner, {})[entry.seq] = entry
            elif entry.state == DELAYED:
                assert entry.due_at is not None
                self.delayed[entry.seq] = entry
                self._starts.push(entry.due_at, entry)
                self._wake_at(entry.due_at)
            elif entry.state == DEFERRED:
                self._set_aside(entry)
            elif entry.state == DEAD:
                self.dead[entry.seq] = entry
                self.news |= NEWS_DEAD

    def _refusal(
        self, stored: Stored, now: float, due_at: float | None, moved: bool, bounded: bool
    ) -> Refusal | None:
        options = self.options
        if self.closed:
            return Refusal.CLOSED
        if self.sessions is not None and stored.session_id is None:
            return Refusal.NO_SESSION
        if not moved and stored.message_id in self._ids:
            return Refusal.DUPLICATE
        if not bounded or options.overflow == "drop-head":
            return None
        if (due_at is None or due_at <= now) and self._refuses(stored):
            if options.overflow == "dead-letter" and (moved or self.budget.has_room(stored.size_bytes)):
                self._seq += 1
                self.budget.held_bytes += stored.size_bytes
                self.held_bytes += stored.size_bytes
                entry = Entry(stored, self._seq, ENDED, now)
                if self.journal is not None:
                    self.journal.entered(entry)
                self._condemn(entry, OVERFLOW)
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
        self._rejecting = self._rejecting or self._over(len(self.dead), self._dead_weight())
        return self._rejecting

    def _dead_weight(self) -> int:
        return sum(self._weight(entry.stored) for entry in self.dead.values())

    def _within_soft_bound(self) -> bool:
        options = self.options
        held = self.ready + len(self.dead)
        pairs = ((options.max_length, held), (options.max_bytes, self.ready_bytes + self._dead_weight()))
        return all(bound is None or there <= int(bound * SOFT_BOUND) for bound, there in pairs)
