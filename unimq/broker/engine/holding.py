"""The places of a queue and every way from one to another: the inside of `QueueCore`.

Rules
- The table of these transitions is at the top of queue.py; each method here is one row or a part of one.
- What time brings (a delayed message due, a lock or a message expired, an id forgotten) is one method: `_tick`.
- Nobody outside is called in the middle: what is to be told is collected in `news` and told at the end.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from .clock import Clock
from .deadletter import EXPIRED, MAX_DELIVERIES, OVERFLOW
from .journal import QueueJournal
from .limits import DEDUP_ID_OVERHEAD_BYTES
from .message import DEAD, DEFERRED, DELAYED, ENDED, LEASED, READY, Entry, Stored
from .options import Position, QueueOptions
from .results import Budget
from .session import SessionTable
from .shelf import Shelf
from .timers import TimerHeap

if TYPE_CHECKING:
    from .queue import QueueCore

# Why a queue signals its engine.
NEWS_READY: Final = 1
NEWS_DEAD: Final = 2
NEWS_DUE: Final = 4

BEFORE_ALL: Final = -(1 << 62)  # positions from here on stand before every message that was ever put


class Holding:
    __slots__ = (
        "_bodies_only", "_checked", "_dead_again", "_dead_retry_at", "_expiry", "_first", "_ids", "_last", "_lazy_ttl",
        "_leases", "_locks", "_next_due", "_now", "_rejecting", "_seq", "_shelf", "_shelves", "_signal", "_starts", "budget",
        "closed", "dead", "deferred", "delayed", "held_bytes", "journal", "listeners", "name", "news", "options",
        "ready", "ready_bytes", "removed", "sessions",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        options: QueueOptions = QueueOptions(),
        *,
        clock: Clock,
        budget: Budget | None = None,
        signal: Callable[[QueueCore], None] | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.budget = budget or Budget()
        self.listeners: list[Callable[[QueueCore], None]] = []
        self.journal: QueueJournal | None = None
        self.removed: Counter[str] = Counter()
        self.closed = False
        self.news = 0
        self.ready = self.ready_bytes = self.held_bytes = 0
        self.delayed: dict[int, Entry] = {}
        self.deferred: dict[int, Entry] = {}
        self.dead: dict[int, Entry] = {}
        self._leases: dict[Hashable, dict[int, Entry]] = {}
        self._shelf = Shelf(options.max_priority)
        self._shelves: dict[str, Shelf] = {}
        self._starts = TimerHeap((DELAYED,), attrgetter("due_at"))
        self._locks = TimerHeap((LEASED,), attrgetter("lease_deadline"))
        self._expiry = TimerHeap((READY, DEFERRED), attrgetter("expires_at"))
        # message id → when it is forgotten. Ordered: taking the first of a plain dict again and again is quadratic.
        self._ids: OrderedDict[str, float] = OrderedDict()
        self._dead_again: dict[int, float] = {}  # refused by their place → when they are offered again
        self._dead_retry_at = inf
        self._next_due = inf  # never later than the next thing due; perhaps earlier
        self._now = clock.now
        self._signal = signal
        self._seq = self._last = 0
        self._first = BEFORE_ALL
        self._lazy_ttl = options.expire_at == "head"
        self.sessions = SessionTable(self, clock) if options.sessions else None  # type: ignore[arg-type]
        bounds = (options.max_length, options.max_bytes, options.dedup_window_s)
        self._checked = options.sessions or bounds != (None, None, None)
        self._bodies_only = options.bytes_counted == "body"
        self._rejecting = False  # "reject-late" has begun and not ended

    def _weight(self, stored: Stored) -> int:
        """What counts against `max_bytes`."""
        return len(stored.body or b"") if self._bodies_only else stored.size_bytes

    def _over(self, messages: int, size_bytes: int) -> bool:
        options = self.options
        if options.max_length is not None and self.ready + messages > options.max_length:
            return True
        return options.max_bytes is not None and self.ready_bytes + size_bytes > options.max_bytes

    def _remember(self, stored: Stored, now: float) -> None:
        window_s = self.options.dedup_window_s
        if window_s is not None and stored.message_id is not None:
            self._ids[stored.message_id] = now + window_s
            self.budget.held_bytes += id_bytes(stored.message_id)
            self._wake_at(now + window_s)

    def _arrive(self, entry: Entry, at: float) -> None:
        """It becomes ready for the first time, at `at`, behind all others."""
        stored = entry.stored
        options = self.options
        self._last += 1
        entry.position = self._last
        if options.max_priority is not None:
            entry.priority = min(max(stored.priority, 0), options.max_priority)
        entry.expires_at = self._expires_at(stored, at)
        (self._shelf if self.sessions is None else self._session_shelf(stored.session_id)).append(entry)
        if entry.expires_at is not None:
            self._watch_ttl(entry)  # behind the append: it may be the head itself
        self.ready += 1
        self.ready_bytes += self._weight(stored)
        if self._checked and options.overflow == "drop-head":
            self._drop_heads(entry)
        if self.listeners:
            self.news |= NEWS_READY

    def _expires_at(self, stored: Stored, at: float) -> float | None:
        options = self.options
        if stored.expires_at is None and stored.ttl_s is None and options.ttl_s is None:
            return None
        return min(
            inf if stored.expires_at is None else stored.expires_at,
            inf if stored.ttl_s is None else at + stored.ttl_s,
            inf if options.ttl_s is None else at + options.ttl_s,
        )

    def _drop_heads(self, newcomer: Entry) -> None:
        shelf = self._shelf if self.sessions is None else self._session_shelf(newcomer.stored.session_id)
        while self._over(0, 0) and (head := shelf.pop()) is not None:
            self._left_ready(head)
            self._condemn(head, OVERFLOW)
            self._watch_heads()

    def _unlease(self, entry: Entry) -> bool:
        if entry.state != LEASED:
            return False
        held = self._leases[entry.owner]
        del held[entry.seq]
        if not held:
            del self._leases[entry.owner]
        return True

    def _drop_heads_again(self) -> None:
        """After messages came back."""
        if self.options.bound_on_return:
            self._drop_to_bounds()

    def _drop_to_bounds(self) -> None:
        if not self._checked or self.options.overflow != "drop-head":
            return
        while self._over(0, 0) and (head := self._shelf.pop()) is not None:
            self._left_ready(head)
            self._condemn(head, OVERFLOW)
            self._watch_heads()

    def _come_back(self, entry: Entry, now: float, count: bool, position: Position | None = None) -> None:
        options = self.options
        position = position or options.requeue_position
        again = successor(entry)
        if options.count_on == "delivery":
            again.delivery_count -= not count
        else:
            again.delivery_count += count
        if options.max_delivery_count is not None and again.delivery_count >= options.max_delivery_count:
            self._condemn(again, MAX_DELIVERIES)
        elif self._outlived(again, now):
            self._condemn(again, EXPIRED)
        elif again.deferred:
            self._set_aside(again)
        else:
            if position == "back":
                self._last += 1
                again.position = self._last
            elif position == "head":
                self._first += 1
                again.position = self._first
            again.state = READY
            stored = again.stored
            (self._shelf if self.sessions is None else self._session_shelf(stored.session_id)).give_back(
                again
            )
            self.ready += 1
            self.ready_bytes += self._weight(stored)
            if again.expires_at is not None:
                self._watch_ttl(again)
            if self.listeners:
                self.news |= NEWS_READY
            if self.journal is not None:
                self.journal.changed(again)

    def return_all(self, owner: Hashable, count: bool) -> int:
        entries = sorted(self._leases.get(owner, {}).values(), key=attrgetter("position"))
        for entry in entries:
            self._unlease(entry)
            self._come_back(entry, self._now(), count)
        self._drop_heads_again()
        if self.sessions is not None and self.listeners:
            self.news |= NEWS_READY  # what nobody had leased of this session is free now too
        return len(entries)

    def _outlived(self, entry: Entry, now: float) -> bool:
        return entry.expires_at is not None and entry.expires_at <= now and not self._lazy_ttl

    def _set_aside(self, again: Entry) -> None:
        again.state = DEFERRED
        self.deferred[again.seq] = again
        if again.expires_at is not None and not self._lazy_ttl:
            self._watch_ttl(again)
        if self.journal is not None:
            self.journal.changed(again)

    def _lock(self, entry: Entry, deadline: float) -> None:
        if entry.lease_deadline == deadline:
            return  # renewed in the very moment: its place among equal deadlines stays
        entry.lease_deadline = deadline
        self._locks.push(deadline, entry)
        self._wake_at(deadline)

    def _left_ready(self, entry: Entry) -> None:
        self.ready -= 1
        self.ready_bytes -= self._weight(entry.stored)

    def _condemn(self, entry: Entry, reason: str, description: str = "") -> None:
        """The caller has taken it out of the place of its former state."""
        if self.options.dead_letter is None:
            self._end(entry, reason)
            return
        entry.state = DEAD
        entry.reason = reason
        entry.description = description
        self.dead[entry.seq] = entry
        self.news |= NEWS_DEAD
        if self.journal is not None:
            self.journal.changed(entry)

    def _end(self, entry: Entry, cause: str) -> None:
        entry.state = ENDED
        self.held_bytes -= entry.stored.size_bytes
        self.budget.held_bytes -= entry.stored.size_bytes
        self.removed[cause] += 1
        if self.journal is not None:
            self.journal.left(entry)

    def _clear_shelves(self) -> None:
        self._shelf = Shelf(self.options.max_priority)
        self._shelves.clear()
        self.ready = self.ready_bytes = 0

    # ---------------------------------------------------------------------------------------------------- time

    def _catch_up(self) -> float:
        now = self._now()
        if self._next_due <= now:
            self._tick(now)
        return now

    def _tick(self, now: float) -> None:
        while (entry := self._starts.pop_due(now)) is not None:
            del self.delayed[entry.seq]
            entry.state = READY
            if self.journal is not None:
                self.journal.changed(entry)
            self._arrive(entry, entry.due_at or now)
        while (entry := self._locks.pop_due(now)) is not None:
            self._unlease(entry)
            self._come_back(entry, now, True)
        if self.sessions is not None:
            self.sessions.expire(now)
        self._expire(now)
        while self._ids:
            first = next(iter(self._ids))
            if self._ids[first] > now:
                break
            del self._ids[first]
            self.budget.held_bytes -= id_bytes(first)
        if self._dead_retry_at <= now:
            self._dead_retry_at = min((at for at in self._dead_again.values() if at > now), default=inf)
            self.news |= NEWS_DEAD
        self._next_due = self._first_due()
        self.news |= NEWS_DUE

    def _first_due(self) -> float:
        return min(
            self._starts.next(),
            self._locks.next(),
            self._expiry.next(),
            self._head_expiry() if self._lazy_ttl else inf,
            next(iter(self._ids.values()), inf),
            self.sessions.next_due() if self.sessions is not None else inf,
            self._dead_retry_at,
        )

    def _expire(self, now: float) -> None:
        while (entry := self._expiry.pop_due(now)) is not None:
            was_ready = entry.state == READY
            self._condemn(entry, EXPIRED)
            if was_ready:
                self._taken_from_shelf(entry)
            else:
                del self.deferred[entry.seq]
        if self._lazy_ttl:
            while (head := self._expired_head(now)) is not None:
                self._condemn(head, EXPIRED)
                self._taken_from_shelf(head)

    def _expired_head(self, now: float) -> Entry | None:
        for shelf in self._all_shelves():
            head = shelf.head()
            if head is not None and head.expires_at is not None and head.expires_at <= now:
                return head
        return None

    def _head_expiry(self) -> float:
        """Only what is next to be handed out, of all priorities, expires (rabbit_priority_queue:dropwhile)."""
        heads = (shelf.head() for shelf in self._all_shelves())
        return min((h.expires_at for h in heads if h is not None and h.expires_at is not None), default=inf)

    def _taken_from_shelf(self, entry: Entry) -> None:
        """`entry` has just left READY where it stood."""
        self._left_ready(entry)
        if self.sessions is None:
            self._shelf.taken(entry)
        else:
            session_id = entry.stored.session_id or ""
            self._session_shelf(session_id).taken(entry)
            self._forget_if_empty(session_id)

    def _watch_ttl(self, entry: Entry) -> None:
        assert entry.expires_at is not None
        if self._lazy_ttl:
            self._watch_heads()
        else:
            self._expiry.push(entry.expires_at, entry)
            self._wake_at(entry.expires_at)

    def _watch_heads(self) -> None:
        """Where only heads expire, a new head may be the next thing due."""
        if self._lazy_ttl and (when := self._head_expiry()) != inf:
            self._wake_at(when)

    def _wake_at(self, when: float) -> None:
        if when < self._next_due:
            self._next_due = when
            self.news |= NEWS_DUE

    # ------------------------------------------------------------------------------------------------- the rest

    def _session_shelf(self, session_id: str | None) -> Shelf:
        assert session_id is not None  # put refuses the others
        shelf = self._shelves.get(session_id)
        if shelf is None:
            shelf = self._shelves[session_id] = Shelf(self.options.max_priority)
        return shelf

    def _forget_if_empty(self, session_id: str) -> None:
        if not self._shelves[session_id].count:
            del self._shelves[session_id]

    def _all_shelves(self) -> Iterator[Shelf]:
        return chain((self._shelf,), self._shelves.values())

    def _tell(self) -> None:
        if self._signal is None:
            self.news = 0
        else:
            self._signal(self)  # type: ignore[arg-type]  # QueueCore is the only subclass


def id_bytes(message_id: str) -> int:
    """What a remembered message id is charged."""
    return DEDUP_ID_OVERHEAD_BYTES + len(message_id)


def successor(entry: Entry) -> Entry:
    """The next handle of a message whose lease ends; the old one is void from here on."""
    entry.state = ENDED
    return Entry(
        entry.stored,
        entry.seq,
        ENDED,  # the caller gives it its state
        entry.enqueued_at,
        entry.position,
        entry.priority,
        True,
        entry.deferred,
        entry.delivery_count,
        entry.expires_at,
    )
