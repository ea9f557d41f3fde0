"""One queue of a virtual host: its properties, its consumers, and the engine's queue behind them.

Rules
- A message for an empty queue with a consumer waiting goes straight to him: its time to live does not come between, nor
  does a bound that drops heads; one that refuses does (RabbitMQ's maybe_deliver_or_enqueue).
- Delivering is the last step of an operation. A consumer is asked for room before every batch and never given more.
- What is handed out carries what the broker adds at that moment only (x-delivery-count); what lies here does not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from .arguments import QueueSpec
from .consumers import Consumer, Consumers
from .limits import BATCH_ENTRIES
from .message import LEASED, Entry, Stored
from .publication import Publication, delivery_count_header, publication_of
from .queue import QueueCore
from .results import Refusal


class AmqpQueue:
    __slots__ = (
        "_leaving", "_once", "arguments", "auto_delete", "consumers", "core", "durable", "exclusive_to", "had_consumers", "name",
        "spec", "unused_since",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        core: QueueCore,
        spec: QueueSpec,
        *,
        durable: bool,
        auto_delete: bool,
        exclusive_to: Hashable,
        arguments: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.core = core
        self.spec = spec
        self.durable = durable
        self.auto_delete = auto_delete
        self.exclusive_to = exclusive_to  # the connection; None: everybody's
        self.arguments = arguments
        self.consumers = Consumers(spec.single_active, quorum=spec.kind == "quorum")
        self.had_consumers = False
        self.unused_since: float | None = None  # counts with x-expires only
        self._once: list[Entry] = []  # quorum: what was got and may not be settled yet
        self._leaving: list[Consumer] = []  # quorum: cancelled, and may hold something yet

    @property
    def ready(self) -> int:
        return self.core.ready

    # ---------------------------------------------------------------------------------------------- in and out

    def put(self, stored: Stored, *, moved: bool = False, answered: bool = True) -> bool:
        """False: refused. `moved`: a dead letter from another queue, which has room in the broker already. Where nobody waits
        for an answer, a quorum queue does not refuse (rabbit_fifo_client:untracked_enqueue)."""
        bounded = answered or self.spec.kind == "classic"
        core = self.core
        if not core.ready and len(self.consumers):
            core.tick()
            waiting = self.consumers.next()
            if waiting is not None and not core.ready and not (bounded and core.refuses(stored)):
                return self._hand(stored, waiting)
        outcome = core.put(stored, moved=moved, bounded=bounded)
        return isinstance(outcome, Entry) or outcome is Refusal.DUPLICATE

    def _hand(self, stored: Stored, consumer: Consumer) -> bool:
        entry = self.core.put_leased(stored, consumer.owner)
        if not isinstance(entry, Entry):
            return False
        self._give(consumer, [entry])
        return True

    def pump(self, _core: QueueCore | None = None) -> None:
        """To the consumers what they have room for."""
        core, consumers = self.core, self.consumers
        while core.ready:
            consumer = consumers.next()
            if consumer is None:
                return
            batch = min(consumer.room(), BATCH_ENTRIES) if consumers.alone(consumer) else 1
            entries = core.lease(consumer.owner, batch)
            if not entries:
                return
            self._give(consumer, entries)

    def _give(self, consumer: Consumer, entries: Sequence[Entry]) -> None:
        if consumer.no_ack:
            self.core.ack(entries)
        consumer.deliver(self, entries)
        self.consumers.served(consumer)

    def bound(self) -> None:
        """After messages came back and consumers were served: then a quorum queue looks at its bounds (rabbit_fifo:checkout)."""
        if self.spec.kind == "quorum":
            self.core.bound()

    @property
    def reader_count(self) -> int:
        """A quorum queue takes each unsettled basic.get for a consumer, and a cancelled one until all he holds is settled;
        who waits to become the single active one does not count (rabbit_fifo:query_stat)."""
        if self.spec.kind == "classic":
            return len(self.consumers)
        self._once = [entry for entry in self._once if entry.state == LEASED]
        self._leaving = [consumer for consumer in self._leaving if consumer.unacked]
        reading = min(len(self.consumers), 1) if self.spec.single_active else len(self.consumers)
        return reading + len(self._leaving) + len(self._once)

    def get(self, owner: Hashable, *, no_ack: bool) -> Entry | None:
        entries = self.core.lease(owner)
        if no_ack:
            self.core.ack(entries)
        elif self.spec.kind == "quorum":
            if len(self._once) >= BATCH_ENTRIES:
                self._once = [entry for entry in self._once if entry.state == LEASED]
            self._once += entries
        return entries[0] if entries else None

    def content(self, entry: Entry, *, by_get: bool = False) -> Publication:
        """What a reader is sent. Quorum queues count: absent in a first delivery, 0 in a first basic.get (facts §12)."""
        sent = publication_of(entry.stored)
        if self.spec.kind == "quorum" and (by_get or entry.delivery_count):
            return sent.with_header("x-delivery-count", delivery_count_header(entry.delivery_count))
        return sent

    # ------------------------------------------------------------------------------------------------ settling

    def ack(self, entries: Iterable[Entry]) -> None:
        self.core.ack(entries)

    def requeue(self, entries: Iterable[Entry]) -> None:
        """By the reader's wish. A quorum queue without a limit puts them behind all others (rabbit_fifo:handle_aux)."""
        behind = self.spec.kind == "quorum" and self.spec.delivery_limit is None
        self.core.release(entries, position="back" if behind else None)

    def reject(self, entries: Iterable[Entry]) -> None:
        self.core.dead_letter(entries, "rejected")

    def abandon(self, entries: Iterable[Entry]) -> None:
        """Their reader is gone. The oldest comes back first; in a quorum queue, what was given first."""
        returned = list(entries)
        if self.spec.kind == "classic":
            returned.sort(key=attrgetter("position"))
        if self._leaving:
            gone = {entry.owner for entry in returned}
            self._leaving = [consumer for consumer in self._leaving if consumer.owner not in gone]
        self.core.release(returned)

    # ----------------------------------------------------------------------------------------------- consumers

    def add_consumer(self, consumer: Consumer, priority: int, exclusive: bool) -> None:
        self.consumers.add(consumer, priority, exclusive)
        self.had_consumers = True
        self.unused_since = None
        if not self.core.listeners:
            self.core.listeners.append(self.pump)

    def remove_consumer(self, consumer: Consumer) -> bool:
        removed = self.consumers.remove(consumer)
        if removed and not len(self.consumers):
            self.core.listeners.clear()
        if removed and consumer.unacked and self.spec.kind == "quorum":
            self._leaving = [each for each in self._leaving if each.unacked] + [consumer]
        return removed

    @property
    def is_done(self) -> bool:
        """Auto-delete: it has had consumers, and the last one has gone."""
        return self.auto_delete and self.had_consumers and not len(self.consumers)
