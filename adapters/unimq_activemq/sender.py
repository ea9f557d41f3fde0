"""A link that sends to one place.

Rules
- `submit` encodes, writes without blocking and returns; receipts complete the batch. It accepts less when too much is
  unconfirmed or the socket does not take it; then `Room`.
- The first delayed message makes the link wait for the scheduler's probe; what comes after waits behind it, in order.
- After `close` and on a dead session everything completes as not handed over.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from unimq.driver import ALL_WELL, Batch, BatchResult, Copy, Done, Failed, Room, SenderOptions, Sink
from unimq.errors import InvalidMessage, Unsupported

from . import fields, names
from .errors import ADAPTER, DeadlinePassed, closed
from .scheduler import Scheduler
from .session import Exchange, Failures, Session

MAX_UNCONFIRMED: Final = 4096  # messages of one link


class _UnknownScheduler(Exception):
    """A delay was wished for and whether the broker has one is not known yet."""


@dataclass(slots=True)
class _Work:
    """A prefix of a batch, or copies, on their way."""

    items: Batch | Sequence[Copy]
    count: int
    done: Done[BatchResult]
    exchange: Exchange | None = None


class SenderLink:
    def __init__(
        self,
        session: Session,
        scheduler: Scheduler,
        ref: names.Ref,
        flavour: str,
        options: SenderOptions,
        sink: Sink,
    ) -> None:
        self._session = session
        self._scheduler = scheduler
        self._flavour = flavour
        self._sink = sink
        self._dead_place = ref.dead
        place = names.native(ref, flavour)
        self._head = fields.head_of(place)
        self._group = place.queue if ref.kind == "group" else None
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._unconfirmed = 0
        self._full = False
        self._closed: BaseException | None = None
        self._open: set[Exchange] = set()
        self._held: deque[_Work] = deque()
        self._asking = False
        session.on_tick(self._on_tick)

    # ---------------------------------------------------------------------------------------------- the seam
    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        dead = self._closed or self._session.error
        with self._lock:
            if dead is not None:
                room = len(batch)
            else:
                room = 0 if self._session.full else min(len(batch), MAX_UNCONFIRMED - self._unconfirmed)
                if room <= 0:
                    self._full = True  # `_on_tick` and each completion look at it
                    return 0
            self._unconfirmed += room
            self._full = room < len(batch)
        self._begin(_Work(batch, room, done), dead)
        return room

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        with self._lock:
            self._unconfirmed += len(copies)
        self._begin(_Work(copies, len(copies), done), self._closed or self._session.error)

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._idle:
            if self._closed is None:
                self._idle.wait_for(lambda: not self._unconfirmed, timeout_s)
                self._closed = closed("sender")
            held, self._held = list(self._held), deque()
        for work in held:
            self._refuse(work, self._closed)
        self._session.forget_tick(self._on_tick)
        if self._open:
            self._session.settle_all(tuple(self._open), self._closed, max(deadline - time.monotonic(), 1.0))

    # --------------------------------------------------------------------------------------------- the work
    def _begin(self, work: _Work, dead: BaseException | None) -> None:
        if dead is not None:
            self._refuse(work, dead)
            return
        after: Callable[[], None] | None = None
        with self._lock:
            if self._held:
                self._held.append(work)
            else:
                try:
                    frames, exchange = self._encode(work)
                except _UnknownScheduler:
                    self._held.append(work)
                else:
                    after = self._posting(frames, exchange)
            ask = bool(self._held) and not self._asking
            self._asking = self._asking or ask
        if ask:
            self._scheduler.ask(self._on_probed)
        if after is not None:
            after()

    def _posting(self, frames: list[bytes], exchange: Exchange) -> Callable[[], None] | None:
        """Writes in order, under the lock; what would call back is returned, to be run outside it."""
        self._open.add(exchange)
        return self._session.post(frames, exchange)

    def _refuse(self, work: _Work, error: BaseException) -> None:
        failures = dict.fromkeys(range(work.count), Failed(error, handed_over=False))
        self._session.trampoline.run(lambda: self._finish(work, failures))

    def _encode(self, work: _Work, probe_error: BaseException | None = None) -> tuple[list[bytes], Exchange]:
        first = self._session.reserve(work.count)
        now = dt.datetime.now(dt.UTC)
        frames: list[bytes] = []
        keys: list[str] = []
        indexes: list[int] = []
        failures: Failures = {}
        batch = work.items if isinstance(work.items, Batch) else None
        late = batch is not None and time.monotonic() > batch.deadline
        for index in range(work.count):
            key = str(first + index)
            try:
                if late:
                    raise DeadlinePassed("the deadline was over")
                frames.append(self._frame(work.items, index, key, now, probe_error))
            except (DeadlinePassed, InvalidMessage, Unsupported, UnicodeEncodeError) as error:
                failures[index] = Failed(error, handed_over=False)
            except _ProbeFailed as error:
                failures[index] = Failed(error.error, handed_over=False)
            else:
                keys.append(key)
                indexes.append(index)
        exchange = Exchange(
            keys,
            indexes,
            lambda failed: self._finish(work, failed),
            failures=failures or None,
            deadline=None if batch is None else batch.deadline,
        )
        work.exchange = exchange
        return frames, exchange

    def _frame(
        self,
        items: Batch | Sequence[Copy],
        index: int,
        key: str,
        now: dt.datetime,
        probe_error: BaseException | None,
    ) -> bytes:
        if not isinstance(items, Batch):
            copy = items[index]
            if copy.delay_s:
                self._need_scheduler(probe_error)
            return fields.copy_frame(
                self._head, key, copy, self._flavour, now, dead=self._dead_place, group=self._group
            )
        message = items.messages[index]
        delay = 0
        if message.delay_s is not None or message.deliver_at is not None:
            delay = fields.delay_ms(message, now)
            if delay > 0:
                self._need_scheduler(probe_error)
        return fields.send_frame(
            self._head,
            key,
            message,
            items.bodies[index],
            items.content_type(index),
            message.message_id if items.ids is None else items.ids[index],
            self._flavour,
            now,
            delay,
        )

    def _need_scheduler(self, probe_error: BaseException | None) -> None:
        works = self._scheduler.works
        if works is False:
            raise Unsupported(
                "a delay needs the broker's scheduler (schedulerSupport), which is off", adapter=ADAPTER
            )
        if works is None:
            if probe_error is not None:
                raise _ProbeFailed(probe_error)
            raise _UnknownScheduler

    def _on_probed(self, works: bool | None, error: BaseException | None) -> None:
        """On the receiver thread: what waited goes on, in order."""
        after: list[Callable[[], None]] = []
        with self._lock:
            self._asking = False
            while self._held:
                frames, exchange = self._encode(
                    self._held[0], error or TimeoutError("the probe had no answer")
                )
                self._held.popleft()
                if (call := self._posting(frames, exchange)) is not None:
                    after.append(call)
        for call in after:
            call()

    def _finish(self, work: _Work, failures: Failures | None) -> None:
        with self._idle:
            self._unconfirmed -= work.count
            if work.exchange is not None:
                self._open.discard(work.exchange)
            if not self._unconfirmed:
                self._idle.notify_all()
        work.done(ALL_WELL if failures is None else BatchResult(failures))
        if self._full:
            self._on_tick()

    def _on_tick(self) -> None:
        if not self._full:
            return
        with self._lock:
            room = self._full and self._unconfirmed < MAX_UNCONFIRMED and not self._session.full
            if room:
                self._full = False
        if room:
            self._sink(Room(self))


class _ProbeFailed(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error
