"""One queue: what is ready, leased, delayed, deferred and dead.

Rules
- Every message put is in exactly one state until it ends; `removed` counts the ends by cause.
- Every operation first does what is due by the clock, so an answer never depends on who ticked when.
- A verb answers with the entries that were not the caller's any more (lost), and settles the others.
- The dead wait in `dead` until their place has taken them: confirmed write there, then removal here.

State      by                                        becomes
---------  ----------------------------------------  -------------------------------------------------------------
(new)      put                                       READY, or DELAYED when due later
DELAYED    its time                                  READY
DELAYED    cancel_scheduled, purge                   ended
READY      lease                                     LEASED
READY      its ttl, overflow                         DEAD, or ended without a dead-letter place
READY      purge                                     ended
LEASED     ack                                       ended
LEASED     release, lock expired, drop_owner         a successor: READY; DEFERRED if it was set aside before;
                                                     DEAD (ended) when over its deliveries or its ttl
LEASED     dead_letter                               DEAD, or ended without a dead-letter place
LEASED     defer                                     a successor: DEFERRED; DEAD (ended) when over its ttl
DEFERRED   receive_deferred                          LEASED
DEFERRED   its ttl                                   DEAD, or ended without a dead-letter place
DEAD       bury                                      ended
any        close                                     ended
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from math import inf
from operator import attrgetter
from typing import Final

from .deadletter import EXPIRED
from .holding import id_bytes, successor
from .message import DEAD, DEFERRED, DELAYED, ENDED, LEASED, READY, Entry
from .options import Position
from .putting import Putting
from .results import Depth

NONE_LOST: Final[Sequence[Entry]] = ()


class QueueCore(Putting):
    """Made by `Engine.declare_queue`. `ready` and the places of delayed, deferred and dead may be read."""

    __slots__ = ()

    # ------------------------------------------------------------------------------------------------- leasing

    def lease(
        self,
        owner: Hashable,
        n: int = 1,
        *,
        wants: Callable[[Entry], bool] | None = None,
        session_id: str | None = None,
    ) -> list[Entry]:
        """Up to `n` entries, in order. `wants` takes only some (a selector: it looks at all that is ready)."""
        now = self._catch_up()
        shelf = self._shelf if session_id is None else self._shelves.get(session_id)
        if shelf is None or not shelf.count:
            if self.news:  # the last of them has just expired
                self._tell()
            return []
        held = self._leases.get(owner)
        if held is None:
            held = self._leases[owner] = {}
        lock_s = None if session_id is not None else self.options.lock_s
        counts = self.options.count_on == "delivery"
        picked = None if wants is None else (e for e in shelf if wants(e))
        size = 0
        taken: list[Entry] = []
        while len(taken) < n:
            entry = shelf.pop() if picked is None else next(picked, None)
            if entry is None:
                break
            if self._lazy_ttl and entry.expires_at is not None and entry.expires_at <= now:
                self._left_ready(entry)
                self._condemn(entry, EXPIRED)
            else:
                entry.state = LEASED
                entry.owner = owner
                held[entry.seq] = entry
                size += self._weight(entry.stored)
                if counts:
                    entry.delivery_count += 1
                if lock_s is not None:
                    self._lock(entry, now + lock_s)
                taken.append(entry)
            if picked is not None:
                shelf.taken(entry)
        self.ready -= len(taken)
        self.ready_bytes -= size
        if not held:
            del self._leases[owner]
        if session_id is not None and not shelf.count:
            del self._shelves[session_id]
        if self._lazy_ttl:
            self._watch_heads()
        if self.journal is not None:
            for entry in taken:
                self.journal.changed(entry)
        if self.news:
            self._tell()
        return taken

    def renew(self, entries: Iterable[Entry]) -> Sequence[Entry]:
        """Lock them for `lock_s` from now; `entry.lease_deadline` says until when."""
        now = self._catch_up()
        lost = []
        for entry in entries:
            if entry.state != LEASED:
                lost.append(entry)
            elif self.options.lock_s is not None and entry.lease_deadline is not None:
                self._lock(entry, now + self.options.lock_s)
        if self.news:
            self._tell()
        return lost or NONE_LOST

    def receive_deferred(self, owner: Hashable, seqs: Iterable[int]) -> list[Entry]:
        """Those of `seqs` that are set aside, leased. An entry of a session has the session's lock, not its own."""
        now = self._catch_up()
        taken = []
        for seq in seqs:
            entry = self.deferred.pop(seq, None)
            if entry is None:
                continue
            entry.state = LEASED
            entry.owner = owner
            self._leases.setdefault(owner, {})[seq] = entry
            if self.options.count_on == "delivery":
                entry.delivery_count += 1
            if self.options.lock_s is not None and self.sessions is None:
                self._lock(entry, now + self.options.lock_s)
            if self.journal is not None:
                self.journal.changed(entry)
            taken.append(entry)
        if self.news:
            self._tell()
        return taken

    # ------------------------------------------------------------------------------------------------ settling

    def ack(self, entries: Iterable[Entry]) -> Sequence[Entry]:
        self._catch_up()
        leases = self._leases
        journal = self.journal
        lost: list[Entry] | None = None
        count = size = 0
        for entry in entries:
            if entry.state != LEASED:
                lost = [*(lost or ()), entry]
                continue
            entry.state = ENDED
            owner = entry.owner
            held = leases[owner]
            del held[entry.seq]
            if not held:
                del leases[owner]
            size += entry.stored.size_bytes
            count += 1
            if journal is not None:
                journal.left(entry)
        if count:
            self.removed["acked"] += count
            self.held_bytes -= size
            self.budget.held_bytes -= size
        if self.news:
            self._tell()
        return lost or NONE_LOST

    def release(
        self, entries: Iterable[Entry], count: bool = True, position: Position | None = None
    ) -> Sequence[Entry]:
        """Back into the queue, in the order given. Without `count`, as if it had not been handed out. `position` is
        where to, when it is not what the queue's options say."""
        now = self._catch_up()
        lost = []
        for entry in entries:
            if self._unlease(entry):
                self._come_back(entry, now, count, position)
            else:
                lost.append(entry)
        self._drop_heads_again()
        if self.news:
            self._tell()
        return lost or NONE_LOST

    def drop_owner(self, owner: Hashable, count: bool = True) -> int:
        """The owner is gone: what it held comes back, the oldest first. Answers how many."""
        self._catch_up()
        returned = self.return_all(owner, count)
        if self.news:
            self._tell()
        return returned

    def dead_letter(self, entries: Iterable[Entry], reason: str, description: str = "") -> Sequence[Entry]:
        self._catch_up()
        lost = []
        for entry in entries:
            if self._unlease(entry):
                self._condemn(entry, reason, description)
            else:
                lost.append(entry)
        if self.news:
            self._tell()
        return lost or NONE_LOST

    def defer(self, entries: Iterable[Entry]) -> Sequence[Entry]:
        """Set aside: only `receive_deferred` with its number brings it out."""
        now = self._catch_up()
        lost = []
        for entry in entries:
            if self._unlease(entry):
                again = successor(entry)
                again.deferred = True
                if self._outlived(again, now):
                    self._condemn(again, EXPIRED)
                else:
                    self._set_aside(again)
            else:
                lost.append(entry)
        if self.news:
            self._tell()
        return lost or NONE_LOST

    # ------------------------------------------------------------------------------------------ dying and ending

    def bury(self, entry: Entry, cause: str = "dead-lettered") -> None:
        """Its dead-letter place has it now (or never will: `cause`)."""
        del self.dead[entry.seq]
        self._dead_again.pop(entry.seq, None)
        self._end(entry, cause)

    def keep_dead(self, entry: Entry) -> None:
        """Its place refused it: it stays, and is offered again."""
        when = self._now() + self.options.dead_retry_s
        self._dead_again[entry.seq] = when
        self._dead_retry_at = min(self._dead_retry_at, when)
        self._wake_at(when)

    def dying(self) -> list[Entry]:
        """The dead that are to be offered to their place now."""
        now = self._now()
        return [entry for seq, entry in self.dead.items() if self._dead_again.get(seq, now) <= now]

    def bound(self) -> None:
        """What came back is bounded now; for a queue without `bound_on_return`, whose consumers are served first."""
        self._drop_to_bounds()
        if self.news:
            self._tell()

    def cancel_scheduled(self, seq: int) -> Entry | None:
        self._catch_up()
        entry = self.delayed.pop(seq, None)
        if entry is not None:
            self._end(entry, "cancelled")
        if self.news:
            self._tell()
        return entry

    def purge(self, *, delayed: bool = False) -> int:
        """End what is ready, and on request what is delayed. Leased, deferred and dead stay."""
        self._catch_up()
        entries = [entry for shelf in self._all_shelves() for entry in shelf]
        if delayed:
            entries += self.delayed.values()
            self.delayed.clear()
        self._clear_shelves()
        for entry in entries:
            self._end(entry, "purged")
        if self.news:
            self._tell()
        return len(entries)

    def close(self) -> int:
        """The queue is deleted: everything ends, handles included, and later puts are refused. Answers how many."""
        entries = self.browse(self.depth().total, states=(READY, LEASED, DELAYED, DEFERRED, DEAD))
        for entry in entries:
            self._end(entry, "closed")
        self._clear_shelves()
        for place in (self.delayed, self.deferred, self.dead, self._dead_again, self._leases):
            place.clear()
        self.budget.held_bytes -= sum(map(id_bytes, self._ids))
        self._ids.clear()
        if self.sessions is not None:
            self.sessions.clear()
        self._dead_retry_at = self._next_due = inf
        self._checked = self.closed = True
        self.listeners.clear()
        self.news = 0
        return len(entries)

    # ------------------------------------------------------------------------------------------------- looking

    def depth(self) -> Depth:
        self.tick()
        leased = sum(map(len, self._leases.values()))
        return Depth(
            self.ready, leased, len(self.delayed), len(self.deferred), len(self.dead), self.held_bytes
        )

    def browse(self, limit: int, from_seq: int = 0, states: Collection[int] = (READY,)) -> list[Entry]:
        """Up to `limit` entries in `states`, by `seq`. They are looked at, not held: read only."""
        self.tick()
        places: dict[int, Iterator[Entry]] = {
            READY: chain.from_iterable(self._all_shelves()),
            LEASED: chain.from_iterable(held.values() for held in self._leases.values()),
            DELAYED: iter(self.delayed.values()),
            DEFERRED: iter(self.deferred.values()),
            DEAD: iter(self.dead.values()),
        }
        found = (entry for state in states for entry in places[state] if entry.seq >= from_seq)
        return heapq.nsmallest(limit, found, key=attrgetter("seq"))

    def leased_by(self, owner: Hashable) -> list[Entry]:
        return list(self._leases.get(owner, {}).values())

    def sessions_ready(self) -> Iterator[str]:
        """Ids of sessions with ready messages, the longest waiting first."""
        return iter(self._shelves)

    def due(self) -> float | None:
        """When the next `tick` has something to do; None: never."""
        self._next_due = self._first_due()
        return None if self._next_due == inf else self._next_due

    def tick(self) -> None:
        self._catch_up()
        if self.news:
            self._tell()

    def tick_at(self, when: float) -> None:
        """Something outside the queue's own places, a session's lock, is due then."""
        self._wake_at(when)
        if self.news:
            self._tell()
