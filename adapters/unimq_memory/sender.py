"""A sender's link: batches into queues, in order.

Rules
- A batch is stored and confirmed before `submit` returns, unless a fault says otherwise: a blocked or silent broker keeps
  it (`HELD_BATCHES_MAX`, then the link is full), a lost confirmation leaves it unanswered until the link dies.
- `handed_over` is True exactly for what the broker has, or may have: stored, or accepted by a silent one.
- Inside a batch the clock is read once.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from unimq.address import Address, Queue, Target, Topic
from unimq.broker.engine import Entry, QueueCore, Refusal, Stored
from unimq.broker.engine import Topic as TopicCore
from unimq.driver import ALL_WELL, Batch, BatchResult, Copy, Done, Failed, Place, Room, SenderOptions
from unimq.errors import SendTimeout, Unroutable, Unsupported
from unimq.message import Message

from . import names
from .errors import ADAPTER, LineLost, not_found, refused
from .fields import encode, encode_copy

if TYPE_CHECKING:
    from . import outbox
    from .connection import MemoryConnection

HELD_BATCHES_MAX: Final = 64

Routing = Callable[[Stored, "float | None"], Any]  # → the position, or Failed
Work = Callable[[], BatchResult]


def open_sender(connection: MemoryConnection, target: Target | Place, options: SenderOptions) -> MemorySender:
    """Under the lock. Raises `NotFound` for a place that nobody declared."""
    if options.native:
        raise Unsupported(
            f"native option {next(iter(options.native))!r}: the memory broker takes none", adapter=ADAPTER
        )
    engine = connection.broker.engine
    where: Address | Place = target
    if isinstance(where, Place) and isinstance(where.ref, Topic):
        where = where.ref
    if isinstance(where, Topic):
        topic = engine.topic(names.topic_of(where))
        if topic is None:
            raise not_found(where)
        return MemorySender(connection, where, topic, strict=options.unroutable == "error")
    name = names.queue_of_place(where) if isinstance(where, Place) else _queue_name(where)
    queue = engine.queue(name)
    if queue is None:
        raise not_found(where if isinstance(where, Queue) else f"queue {name!r}")
    return MemorySender(connection, where, queue, strict=False)


def _queue_name(target: Address) -> str:
    if not isinstance(target, Queue):
        raise Unsupported(f"messages are sent to a Queue or a Topic, not to {target}", adapter=ADAPTER)
    return names.queue_of(target)


class MemorySender:
    def __init__(
        self, connection: MemoryConnection, target: object, place: QueueCore | TopicCore, *, strict: bool
    ) -> None:
        self._connection = connection
        self._broker = connection.broker
        self._target = target
        self._place = place
        self._strict = strict
        self._error: BaseException | None = None
        self._held: deque[tuple[int, Work, Done[BatchResult]]] = deque()
        self._unanswered: list[tuple[int, Done[BatchResult]]] = []
        self._full = False
        self._route: Routing = self._to_topic if isinstance(place, TopicCore) else self._to_queue

    # ------------------------------------------------------------------------------------------------ the seam
    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        with self._broker.turn as calls:
            if len(self._held) >= HELD_BATCHES_MAX:
                self._full = True
                return 0
            self._accept(len(batch), partial(self._store, batch), done, calls)
        return len(batch)

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        with self._broker.turn as calls:
            self._accept(len(copies), partial(self._store_copies, copies), done, calls)

    def close(self, timeout_s: float) -> None:
        with self._broker.turn as calls:
            if self._error is None:
                self.die(LineLost("this link is closed"), calls)

    # ------------------------------------------------------------------------------------------ under the lock
    def die(self, error: BaseException, calls: list[outbox.Call]) -> None:
        if self._error is not None:
            return
        self._error = error
        self._connection.forget(self)
        for count, done in self._unanswered:
            calls.append(partial(done, _all_failed(count, error, handed_over=True)))
        for count, _, done in self._held:
            calls.append(partial(done, _all_failed(count, error, handed_over=self._broker.paused)))
        self._unanswered.clear()
        self._held.clear()

    def go_on(self, calls: list[outbox.Call]) -> None:
        broker = self._broker
        while self._held and not (broker.blocked or broker.paused or self._error):
            count, work, done = self._held.popleft()
            self._do(count, work, done, calls)
        if self._full and len(self._held) < HELD_BATCHES_MAX and self._error is None:
            self._full = False
            calls.append(lambda: self._connection.sink(Room(self)))

    def _accept(self, count: int, work: Work, done: Done[BatchResult], calls: list[outbox.Call]) -> None:
        broker = self._broker
        if self._error is not None:
            calls.append(partial(done, _all_failed(count, self._error, handed_over=False)))
        elif broker.blocked or broker.paused:
            self._held.append((count, work, done))
        else:
            self._do(count, work, done, calls)

    def _do(self, count: int, work: Work, done: Done[BatchResult], calls: list[outbox.Call]) -> None:
        broker = self._broker
        if broker.drops_next_batch:
            broker.drops_next_batch = False
            self._unanswered.append((count, done))
            self._store_half(work)
            self._connection.break_line(LineLost("the line was cut while it was sent"), calls)
            return
        result = work()
        if broker.unconfirmed_batches:
            broker.unconfirmed_batches -= 1
            self._unanswered.append((count, done))
        else:
            calls.append(partial(done, result))

    # ----------------------------------------------------------------------------------------------- the storing
    def _store(self, batch: Batch, count: int | None = None) -> BatchResult:
        failures: dict[int, Failed] = {}
        positions: list[Any] = []
        route = self._route
        now = self._broker.clock.now()
        if batch.deadline < time.monotonic():
            late = SendTimeout("the time was up before the broker took it", adapter=ADAPTER)
            return _all_failed(len(batch), late, handed_over=False)
        ids, types = batch.ids, batch.content_types
        for index, (message, body) in enumerate(zip(batch.messages, batch.bodies, strict=True)):
            if index == count:
                break
            due_at = None
            if message.delay_s is not None or message.deliver_at is not None:
                due_at = now + _delay_s(message)
            stored = encode(
                message,
                body,
                message.content_type if types is None else batch.content_type(index),
                message.message_id if ids is None else ids[index],
                now if due_at is None else due_at,
            )
            position = route(stored, due_at)
            if type(position) is Failed:
                failures[index] = position
                position = None
            positions.append(position)
        return BatchResult(failures or None, positions)

    def _store_copies(self, copies: Sequence[Copy], count: int | None = None) -> BatchResult:
        failures: dict[int, Failed] = {}
        now = self._broker.clock.now()
        for index, copy in enumerate(copies[:count]):
            due_at = now + copy.delay_s if copy.delay_s else None
            outcome = self._route(encode_copy(copy, now if due_at is None else due_at), due_at)
            if type(outcome) is Failed:
                failures[index] = outcome
        return BatchResult(failures) if failures else ALL_WELL

    @staticmethod
    def _store_half(work: Work) -> None:
        assert isinstance(work, partial)
        work.func(work.args[0], len(work.args[0]) // 2)

    def _to_queue(self, stored: Stored, due_at: float | None) -> Any:
        queue = self._place
        assert isinstance(queue, QueueCore)
        outcome = queue.put(stored, due_at)
        if type(outcome) is Entry:
            return outcome.seq
        if outcome is Refusal.DUPLICATE:
            return None
        if outcome is Refusal.CLOSED:
            again = self._broker.engine.queue(queue.name)
            if again is not None:  # deleted, and declared again
                self._place = again
                return self._to_queue(stored, due_at)
        assert isinstance(outcome, Refusal)
        return Failed(refused(outcome, f"queue {queue.name!r}", stored_elsewhere=False), handed_over=False)

    def _to_topic(self, stored: Stored, due_at: float | None) -> Any:
        topic = self._place
        assert isinstance(topic, TopicCore)
        engine = self._broker.engine
        if engine.topic(topic.name) is not topic:
            again = engine.topic(topic.name)
            if again is None:
                return Failed(
                    refused(Refusal.CLOSED, f"topic {topic.name!r}", stored_elsewhere=False),
                    handed_over=False,
                )
            topic = self._place = again
        published = engine.publish_to(topic.route(stored), stored, due_at)
        if published.refused:
            queue, refusal = published.refused[0]
            elsewhere = bool(published.entries)
            error = refused(refusal, f"queue {queue.name!r}", stored_elsewhere=elsewhere)
            return Failed(error, handed_over=elsewhere)
        if not published.routed and self._strict:
            return Failed(
                Unroutable(
                    f"no subscription of {self._target} wants it; mq.declare(...) makes one", adapter=ADAPTER
                ),
                handed_over=False,
            )
        if due_at is None:
            return None
        return tuple((queue.name, entry.seq) for queue, entry in published.entries)


def _delay_s(message: Message) -> float:
    if message.delay_s is not None:
        return message.delay_s
    assert message.deliver_at is not None
    return max((message.deliver_at - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)


def _all_failed(count: int, error: BaseException, *, handed_over: bool) -> BatchResult:
    return BatchResult(dict.fromkeys(range(count), Failed(error, handed_over)))
