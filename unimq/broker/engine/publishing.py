"""Publishing in a virtual host: a message checked, routed, and put into its queues.

Rules
- Routing happens when it is published, also in a transaction: `Prepared` keeps the queues until the commit.
- What the whole broker has no room for goes to none of its queues; what one queue refuses goes to the others all the same.
- The default exchange knows every queue by its name, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from .amqpqueue import AmqpQueue
from .broker import Engine
from .errors import refused, resource
from .exchange import TO_QUEUE, Destination
from .message import Stored
from .publication import Publication, publication_of
from .routing import Exchanges


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """Checked and routed; a transaction keeps it until its commit."""

    stored: Stored
    queues: tuple[AmqpQueue, ...]


class Routed(msgspec.Struct, frozen=True):
    """`routed` queues wanted it (0: unroutable); `refused`: at least one did not take it, so it is not confirmed."""

    routed: int
    refused: bool = False


class Publishing(Exchanges):
    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(name)
        self.engine = engine
        self.queues: dict[str, AmqpQueue] = {}
        # routing key of amq.rabbitmq.reply-to.<token> → who is waiting for the answer
        self.reply_to: dict[str, Callable[[Stored], None]] = {}

    def is_durable(self, destination: Destination) -> bool:
        kind, name = destination
        return self.queues[name].durable if kind == TO_QUEUE else super().is_durable(destination)

    def publish(self, exchange: str, routing_key: str, stored: Stored) -> Routed:
        """404, 403; `stored` is what `prepared` made of a publication to that exchange under that key."""
        return self.deliver(self.prepare(exchange, routing_key, stored))

    def prepare(self, exchange: str, routing_key: str, stored: Stored) -> Prepared:
        """Checked and routed: 404, 403, then what is wrong with the message. Nothing has happened yet."""
        if exchange and self.exchange(exchange).internal:
            raise refused(f"cannot publish to internal {resource('exchange', exchange, self.name)}")
        sent = stored.meta
        if not isinstance(sent, Publication):
            sent = Publication(exchange, (routing_key,), publication_of(stored).properties)
        elif sent.wrong is not None:
            raise sent.wrong
        return Prepared(stored, tuple(self.routed(sent, stored)))

    def deliver(self, ready: Prepared) -> Routed:
        """To all queues that were found and are there (again). What does not fit into the broker goes to none."""
        stored, queues = ready.stored, ready.queues
        if any(queue.core.closed for queue in queues):  # a transaction was routed to it: its name counts
            queues = tuple(there for queue in queues if (there := self.queues.get(queue.name)) is not None)
        if not queues:
            return Routed(0)
        room = self.engine.budget
        if not room.has_room(len(queues) * stored.size_bytes):
            self.engine.tick()
            if not room.has_room(len(queues) * stored.size_bytes):
                return Routed(len(queues), True)
        if len(queues) == 1:
            return Routed(1, not self._put(queues[0], stored))
        with self.engine.together():  # what dies in one of them comes to another behind the message itself
            taken = [self._put(queue, stored) for queue in queues]
        return Routed(len(queues), not all(taken))

    def _put(self, queue: AmqpQueue, stored: Stored) -> bool:
        return queue.core.closed or queue.put(stored)

    def routed(self, sent: Publication, stored: Stored) -> Iterable[AmqpQueue]:
        """The queues for it. An answer to amq.rabbitmq.reply-to is handed over at once and has no queue."""
        if sent.exchange:
            names = self.route(sent.exchange, sent.routing_keys, sent.properties)
            return [self.queues[name] for name in names]
        for key in sent.routing_keys:
            if key in self.reply_to:
                self.reply_to[key](stored)
        if len(sent.routing_keys) == 1:
            queue = self.queues.get(sent.routing_keys[0])
            return () if queue is None else (queue,)
        return [self.queues[key] for key in sorted(set(sent.routing_keys)) if key in self.queues]
