"""A receiver's link: leases of one queue.

Rules
- Messages are leased when they are asked for, never beyond `prefetch` and `prefetch_bytes` unsettled. While other links of
  the queue are hungry a link takes its share of what is ready, so that they compete fairly.
- A link that came back empty is *hungry*: it listens to its queue, and is told once. Told and woken is under the lock.
- Closing, or losing the line, hands back what is unsettled: redelivered, counted, where it stood.
- An ordered link is the single active consumer of its queue. What it releases takes with it what it holds of the same key
  behind it (`LockLostEvent`): the order of a key is kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from unimq.address import Source, Subscription
from unimq.broker.engine import Entry, QueueCore
from unimq.driver import (
    ALL_SETTLED,
    Ack,
    DeadLetterOutcome,
    Delivery,
    Done,
    Forget,
    LockLostEvent,
    Outcome,
    Place,
    ReceiverOptions,
    Release,
    SettleResult,
    Sink,
)
from unimq.errors import Unsupported

from . import names, topology
from .errors import ADAPTER, LineLost, not_found
from .fields import MemoryDelivery

if TYPE_CHECKING:
    from . import outbox
    from .connection import MemoryConnection

MODES: Final = ("consume", "on_receive", "browse", "dead")
WAIT_MAX_S: Final = 3600.0


def open_receiver(
    connection: MemoryConnection, source: Source | Place, options: ReceiverOptions
) -> MemoryReceiver:
    """Under the lock. Raises `NotFound` for a place that nobody declared."""
    if options.mode not in MODES or options.session is not None or options.also_read:
        raise Unsupported(
            f"a receiver with mode={options.mode!r}, session={options.session!r}", adapter=ADAPTER
        )
    if options.native:
        raise Unsupported(
            f"native option {next(iter(options.native))!r}: the memory broker takes none", adapter=ADAPTER
        )
    engine = connection.broker.engine
    private = False
    if isinstance(source, Place):
        name, what, ordered = names.queue_of_place(source), f"queue {source}", False
        queue = engine.queue(name)
    elif names.is_private(source):
        assert isinstance(source, Subscription)
        queue = topology.make_private(connection.broker, source)
        what, ordered, private = str(source), source.ordered, True
    else:
        queue = engine.queue(names.queue_of(source))
        what, ordered = str(source), source.ordered
        if isinstance(source, Subscription) and queue is not None:
            topology.check_filter(engine, source)
    if queue is None:
        raise not_found(what)
    return MemoryReceiver(
        connection, queue, options, ordered=ordered and options.mode != "browse", private=private
    )


class MemoryReceiver:
    prefetch_keeps_order = True

    def __init__(
        self,
        connection: MemoryConnection,
        queue: QueueCore,
        options: ReceiverOptions,
        *,
        ordered: bool,
        private: bool,
    ) -> None:
        self._connection = connection
        self._broker = connection.broker
        self._queue = queue
        self._mode = options.mode
        self._prefetch = options.prefetch
        self._prefetch_bytes = options.prefetch_bytes
        self._on_ready = options.on_ready
        self.ordered = ordered
        self._private = private
        self._error: BaseException | None = None
        self._held: dict[Entry, Delivery] = {}  # unsettled
        self._held_bytes = 0
        self._waiting: deque[tuple[Sequence[Delivery], Outcome | None, Done[SettleResult]]] = deque()
        self._seen_seq = 0  # browse: how far
        self.hungry = False
        self._polled = False  # hungry after a receive that did not wait: on_ready is to be called
        self._woken = False
        self._gate = threading.Event()
        if self._mode != "browse":
            self._broker.consumers.setdefault(queue, []).append(self)

    @property
    def sink(self) -> Sink:
        return self._connection.sink

    # ----------------------------------------------------------------------------------------------- receiving
    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        deadline: float | None = None
        while True:
            with self._broker.turn:
                if self._error is not None:
                    raise self._error
                found = self._take(max_messages)
                if found:
                    self._sated()
                    return found
                if timeout_s <= 0 or self._woken:
                    self._woken = False
                    self._hunger(polled=True)
                    return found
                self._hunger(polled=False)
                self._gate.clear()
            now = time.monotonic()
            if deadline is None:
                deadline = now + min(timeout_s, WAIT_MAX_S)
            if not self._gate.wait(deadline - now) or time.monotonic() >= deadline:
                timeout_s = 0.0

    def wake(self) -> None:
        with self._broker.turn:
            self._woken = True
            self._gate.set()

    def set_prefetch(self, count: int) -> None:
        with self._broker.turn:
            self._prefetch = count
            self.look_again()

    def _take(self, wanted: int) -> list[Delivery]:
        """Under the lock."""
        queue = self._queue
        if self._broker.paused:
            return []
        if self._mode == "browse":
            return self._look(wanted)
        room = min(wanted, self._prefetch - len(self._held))
        if room <= 0 or self._held_bytes >= self._prefetch_bytes:
            return []
        others = self._broker.consumers[queue]
        if len(others) > 1:
            if not self._may_take(others):
                return []
            hungry = sum(1 for link in others if link.hungry and link is not self)
            room = min(room, -(-queue.ready // (1 + hungry)))
            if room <= 0:
                queue.tick()
                room = min(1, queue.ready)
        entries = self._lease(room)
        deliveries: list[Delivery] = [MemoryDelivery(entry, None, self) for entry in entries]
        if self._mode == "on_receive":
            queue.ack(entries)
        else:
            self._held.update(zip(entries, deliveries, strict=True))
        return deliveries

    def _lease(self, count: int) -> list[Entry]:
        """Up to `count`, and until `prefetch_bytes` are reached: as many at once as should fit."""
        queue = self._queue
        entries: list[Entry] = []
        while len(entries) < count and self._held_bytes < self._prefetch_bytes:
            share = count - len(entries)
            if self._held_bytes + queue.ready_bytes > self._prefetch_bytes:
                mean_bytes = queue.ready_bytes // max(queue.ready, 1) + 1
                share = min(share, (self._prefetch_bytes - self._held_bytes) // mean_bytes or 1)
            taken = queue.lease(self, share)
            self._held_bytes += sum([entry.stored.size_bytes for entry in taken])
            entries += taken
            if len(taken) < share:
                break
        if self._mode == "on_receive":
            self._held_bytes = 0
        return entries

    def _may_take(self, others: Sequence[MemoryReceiver]) -> bool:
        """The first ordered link of a queue is the only one that is served."""
        active = next((link for link in others if link.ordered), None)
        return active is None or active is self

    def _look(self, wanted: int) -> list[Delivery]:
        entries = self._queue.browse(min(wanted, self._prefetch), from_seq=self._seen_seq + 1)
        if entries:
            self._seen_seq = entries[-1].seq
        return [MemoryDelivery(entry, None, self) for entry in entries]

    # ------------------------------------------------------------------------------------- hunger, under the lock
    def _hunger(self, *, polled: bool) -> None:
        self._polled = polled
        self.hungry = True
        if self._told not in self._queue.listeners:
            self._queue.listeners.append(self._told)

    def _sated(self) -> None:
        if self.hungry:
            self.hungry = False
            if self._told in self._queue.listeners:
                self._queue.listeners.remove(self._told)

    def _told(self, queue: QueueCore) -> None:
        """The engine's listener: something is ready. Called under the lock; once per hunger."""
        queue.listeners.remove(self._told)
        self._call()

    def _call(self) -> None:
        self._gate.set()
        if self._polled and self._on_ready is not None:
            self._polled = False
            self._broker.turn.later(self._on_ready)

    def look_again(self) -> None:
        """What kept this link from taking may be over."""
        if self.hungry and self._queue.ready:
            self._call()

    # ------------------------------------------------------------------------------------------------ settling
    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        with self._broker.turn as calls:
            if self._error is not None:
                calls.append(partial(done, SettleResult(lost=deliveries)))
            elif self._broker.paused:
                self._waiting.append((deliveries, outcome, done))
            else:
                calls.append(partial(done, self._settle(deliveries, outcome, calls)))

    def flush(self, done: Done[SettleResult]) -> None:
        with self._broker.turn as calls:
            if self._broker.paused and self._error is None:
                self._waiting.append(((), None, done))
            else:
                calls.append(partial(done, ALL_SETTLED))

    def _settle(
        self, deliveries: Sequence[Delivery], outcome: Outcome, calls: list[outbox.Call]
    ) -> SettleResult:
        queue = self._queue
        entries = [delivery.raw for delivery in deliveries]
        for entry in entries:
            if self._held.pop(entry, None) is not None:
                self._held_bytes -= entry.stored.size_bytes
        if isinstance(outcome, Ack):
            lost = queue.ack(entries)
        elif isinstance(outcome, Release):
            if self.ordered:
                self._take_along(entries, calls)
            lost = queue.release(entries)
        elif isinstance(outcome, DeadLetterOutcome):
            lost = queue.dead_letter(entries, outcome.reason, outcome.description)
        elif isinstance(outcome, Forget):
            lost = ()  # the lease ends with the link
        else:
            return SettleResult(lost=deliveries)
        if self.hungry:
            self.look_again()
        if not lost:
            return ALL_SETTLED
        gone = set(map(id, lost))
        return SettleResult(lost=[delivery for delivery in deliveries if id(delivery.raw) in gone])

    def _take_along(self, released: Sequence[Entry], calls: list[outbox.Call]) -> None:
        """What is held of the same keys behind what is released goes back with it, uncounted: nobody was to see it yet."""
        first: dict[object, int] = {}
        for entry in released:
            key = entry.stored.meta.key
            first[key] = min(first.get(key, entry.position), entry.position)
        behind = {
            entry: delivery
            for entry, delivery in self._held.items()
            if entry.position > first.get(entry.stored.meta.key, entry.position)
        }
        if not behind:
            return
        for entry in behind:
            del self._held[entry]
            self._held_bytes -= entry.stored.size_bytes
        self._queue.release(list(behind), count=False)
        event = LockLostEvent(self, list(behind.values()))
        calls.append(lambda: self._connection.sink(event))

    # ----------------------------------------------------------------------------------------------- the end
    def close(self, timeout_s: float) -> None:
        with self._broker.turn as calls:
            if self._error is None:
                self.die(LineLost("this link is closed"), calls)

    def die(self, error: BaseException, calls: list[outbox.Call]) -> None:
        """Under the lock. What is unsettled goes back; whoever waits is told."""
        if self._error is not None:
            return
        self._error = error
        self._connection.forget(self)
        broker, queue = self._broker, self._queue
        for deliveries, _, done in self._waiting:
            calls.append(partial(done, SettleResult(lost=deliveries)))
        self._waiting.clear()
        self._sated()
        self._held.clear()
        self._held_bytes = 0
        others = broker.consumers.get(queue, [])
        if self in others:
            others.remove(self)
        if not others:
            broker.consumers.pop(queue, None)
        if self._private:
            topology.drop_private(broker, queue)
        else:
            queue.drop_owner(self)
        for link in others:
            link.look_again()
        self._gate.set()
        if self._on_ready is not None:
            calls.append(self._on_ready)

    def go_on(self, calls: list[outbox.Call]) -> None:
        """Under the lock: the broker answers again."""
        while self._waiting and not self._broker.paused:
            deliveries, outcome, done = self._waiting.popleft()
            calls.append(
                partial(done, ALL_SETTLED if outcome is None else self._settle(deliveries, outcome, calls))
            )
        self.look_again()
