"""A virtual host: exchanges, queues, bindings and consumers, as AMQP 0-9-1 with RabbitMQ's extensions has them.

Rules
- No frames in here: decoded arguments come in, `AmqpError` goes out with RabbitMQ's code and words.
- `connection` is an identity: who owns exclusive queues. `owner` is who holds leases: a channel.
- Names lose carriage returns and line feeds where RabbitMQ strips them. `amq.` is the broker's.
- Time passes by `engine.tick()`; queues that expire unused are looked after there too.
- Errors are raised before anything has changed.

What a session does
- `publish(exchange, key, stored)` with `stored = prepared(publication(exchange, key, raw), body, user)`. A transaction calls
  `prepare` at once, for its errors and its routing, and `deliver` at the commit.
- `consume(name, consumer, arguments=..., on_ok=...)`: `on_ok` writes consume-ok; deliveries follow it.
- What it sends is `queue.content(entry)`, for basic.get `queue.content(entry, by_get=True)`: quorum queues add their count.
- A channel that ends calls `end_channel(its consumers, what it holds by queue)`: other than `requeue`, which is a reader's
  wish, that puts entries where a vanished reader's go, and serves nobody before all of them are back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

from . import arguments as args
from .amqpqueue import AmqpQueue
from .broker import Engine, Mismatch
from .consumers import Consumer
from .dialect import DIALECT_3, Dialect
from .errors import (
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    RESOURCE_LOCKED,
    AmqpError,
    failed,
    inequivalent,
    locked,
    missing,
    refused,
    resource,
)
from .limits import EngineLimit
from .message import Entry
from .options import QueueOptions
from .publishing import Prepared, Publishing, Routed
from .queue import QueueCore
from .undertaker import Undertaker

__all__ = ["Prepared", "Routed", "VHost"]

NO_ARGUMENTS: Final[Mapping[str, Any]] = {}


class VHost(Publishing):
    def __init__(self, engine: Engine, name: str = "/", dialect: Dialect = DIALECT_3) -> None:
        super().__init__(engine, name)
        self.dialect = dialect
        self._owned: dict[Hashable, dict[str, AmqpQueue]] = {}
        self._reads: dict[Consumer, AmqpQueue] = {}
        self._undertaker = Undertaker(self)

    # -------------------------------------------------------------------------------------------------- queues

    def declare_queue(
        self,
        name: str,
        *,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        connection: Hashable = None,
    ) -> AmqpQueue:
        """An empty name asks for one of the broker's."""
        name = stripped(name)
        durable = durable and not exclusive  # RabbitMQ says so: its owner's end is its end
        if not name:
            kind: args.QueueKind = "quorum" if arguments.get("x-queue-type") == "quorum" else "classic"
            if kind == "quorum":
                raise args.server_named_refused(kind)
            name = f"amq.gen-{self.engine.random.getrandbits(128):032x}"
        elif name.startswith("amq.") and not name.startswith("amq.gen-"):
            raise refused(f"queue name '{name}' contains reserved prefix 'amq.*'")
        there = self.queues.get(name)
        if there is not None:
            self._check_equivalent(there, durable, auto_delete, exclusive, arguments, connection)
            self._undertaker.seen(there)
            return there
        what = resource("queue", name, self.name)
        if not (durable or exclusive or self.dialect.transient_queues):
            raise AmqpError(
                541,
                f"Feature `transient_nonexcl_queues` is deprecated. {what} is neither durable nor exclusive",
            )
        kind = args.check_declare(what, arguments)
        args.check_properties(what, kind, durable=durable, exclusive=exclusive, auto_delete=auto_delete)
        spec = args.spec_of(kind, arguments, self.dialect)
        options = args.options_of(spec, arguments, self._undertaker.take)
        queue = AmqpQueue(
            name,
            self._core(name, what, options),
            spec,
            durable=durable,
            auto_delete=auto_delete,
            exclusive_to=connection if exclusive else None,
            arguments=arguments,
        )
        self.queues[name] = queue
        if exclusive:
            self._owned.setdefault(connection, {})[name] = queue
        self._undertaker.seen(queue)
        if self.journal is not None and durable:
            queue.core.journal = self.journal.queue_declared(self.name, queue)
        return queue

    def engine_name(self, name: str) -> str:
        """Of queue `name`: the engine is shared by all virtual hosts, and / shares its queues with other protocols. No
        name of a queue has a line feed."""
        return name if self.name == "/" else f"{self.name}\n{name}"

    def queue_of(self, core: QueueCore) -> AmqpQueue | None:
        return self.queues.get(core.name.rpartition("\n")[2])

    def _core(self, name: str, what: str, options: QueueOptions) -> QueueCore:
        try:
            core = self.engine.declare_queue(self.engine_name(name), options)
        except EngineLimit as limit:
            raise failed(f"cannot declare {what}: {limit}") from None
        if isinstance(core, Mismatch):
            # another protocol made it; its options hold
            raise failed(f"inequivalent {what}: it was declared by another protocol")
        return core

    def find_queue(self, name: str, *, connection: Hashable = None) -> AmqpQueue:
        """404, or 405 where it is another connection's. This is the passive declare, too."""
        queue = self.queues.get(name)
        if queue is None:
            raise missing(resource("queue", name, self.name))
        if queue.exclusive_to is not None and queue.exclusive_to != connection:
            raise locked(resource("queue", name, self.name))
        return queue

    def counts(self, queue: AmqpQueue) -> tuple[int, int]:
        """Ready messages and consumers. Asking counts as using (x-expires)."""
        queue.core.tick()
        self._undertaker.seen(queue)
        return queue.core.ready, queue.reader_count

    def delete_queue(
        self, name: str, *, if_unused: bool = False, if_empty: bool = False, connection: Hashable = None
    ) -> int:
        name = stripped(name)
        if name not in self.queues:
            return 0  # idempotent since RabbitMQ 3.2
        queue = self.find_queue(name, connection=connection)
        what = resource("queue", name, self.name)
        if queue.spec.kind == "quorum" and (if_unused or if_empty):
            flag = "if-unused" if if_unused else "if-empty"
            raise AmqpError(
                NOT_IMPLEMENTED,
                f"cannot delete {what}. queue.delete operations with {flag} flag set are not supported by quorum queues",
            )
        queue.core.tick()
        ready = queue.core.ready
        if if_empty and ready:
            raise failed(f"{what} not empty")
        if if_unused and len(queue.consumers):
            raise failed(f"{what} in use")
        self.remove_queue(queue)
        return ready

    def remove_queue(self, queue: AmqpQueue) -> None:
        """It goes with its bindings and messages; who still reads is told."""
        if self.queues.get(queue.name) is not queue:
            return
        del self.queues[queue.name]
        if queue.exclusive_to is not None:
            owned = self._owned.get(queue.exclusive_to, {})
            owned.pop(queue.name, None)
            if not owned:
                self._owned.pop(queue.exclusive_to, None)
        self.forget_queue(queue.name)
        if self.journal is not None and queue.durable:
            self.journal.queue_deleted(self.name, queue)
            queue.core.journal = None
        self.engine.delete_queue(queue.core.name)
        self._undertaker.forget(queue)
        for consumer in queue.consumers:
            self._reads.pop(consumer, None)
            consumer.cancelled()

    def purge_queue(self, name: str, *, connection: Hashable = None) -> int:
        return self.find_queue(name, connection=connection).core.purge()

    def drop_connection(self, connection: Hashable) -> None:
        """Its exclusive queues go. The session has closed its channels before (`close_channel`)."""
        for queue in tuple(self._owned.get(connection, {}).values()):
            self.remove_queue(queue)

    # ------------------------------------------------------------------------------------------------ bindings

    def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        *,
        connection: Hashable = None,
    ) -> None:
        checks = self._queue_checks(queue, connection)
        self.bind(exchange, ("queue", queue), routing_key, arguments, *checks)

    def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        *,
        connection: Hashable = None,
    ) -> None:
        checks = self._queue_checks(queue, connection)
        self.unbind(exchange, ("queue", queue), routing_key, arguments, *checks)

    def _queue_checks(self, name: str, connection: Hashable) -> tuple[Callable[[], bool], Callable[[], None]]:
        def check_owner() -> None:
            self.find_queue(name, connection=connection)

        return lambda: name in self.queues, check_owner

    # ----------------------------------------------------------------------------------------------- consuming

    def get(
        self, name: str, owner: Hashable, *, no_ack: bool = False, connection: Hashable = None
    ) -> tuple[AmqpQueue, Entry, int] | None:
        """The entry, and how many are ready behind it. `queue.content(entry, by_get=True)` is what to send."""
        queue = self.find_queue(name, connection=connection)
        if queue.spec.kind == "quorum" and queue.spec.single_active:
            raise AmqpError(
                RESOURCE_LOCKED,
                f"cannot obtain access to locked {resource('queue', name, self.name)}. basic.get operations are not "
                "supported by quorum queues with single active consumer",
            )
        self._undertaker.seen(queue)
        entry = queue.get(owner, no_ack=no_ack)
        if entry is None:
            return None
        if (
            queue.spec.kind == "classic"
        ):  # a quorum queue counts first, and sees then what has expired behind it
            queue.core.tick()
        return queue, entry, queue.core.ready

    def consume(
        self,
        name: str,
        consumer: Consumer,
        *,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        connection: Hashable = None,
        global_prefetch: bool = False,
        on_ok: Callable[[], None] | None = None,
    ) -> AmqpQueue:
        """`on_ok` is called when it is certain, and before the first delivery: the place of basic.consume-ok."""
        queue = self.find_queue(name, connection=connection)
        what = resource("queue", name, self.name)
        priority = args.check_consume(what, arguments, queue.spec.kind)
        if queue.spec.kind == "quorum":
            if global_prefetch:
                raise AmqpError(NOT_IMPLEMENTED, f"{what} does not support global qos")
        elif not queue.consumers.admits(consumer.exclusive):
            raise refused(f"{what} in exclusive use")
        # quorum queues of 3.10 know no exclusive consumers
        queue.add_consumer(consumer, priority, consumer.exclusive and queue.spec.kind == "classic")
        self._reads[consumer] = queue
        self._undertaker.used(queue)
        if on_ok is not None:
            on_ok()
        queue.core.tick()
        queue.pump()
        return queue

    def cancel(self, consumer: Consumer) -> None:
        """What it holds stays its channel's. It may be gone already, with its queue."""
        queue = self._reads.pop(consumer, None)
        if queue is not None and queue.remove_consumer(consumer):
            self._unread(queue)
            queue.pump()

    def end_channel(
        self, consumers: Iterable[Consumer], held: Iterable[tuple[AmqpQueue, Sequence[Entry]]]
    ) -> None:
        """First none of the channel's consumers reads any more, then what it holds comes back, then who reads now is
        served (rabbit_amqqueue_process:handle_ch_down)."""
        queues: dict[AmqpQueue, Sequence[Entry]] = {}
        for consumer in consumers:
            queue = self._reads.pop(consumer, None)
            if queue is not None and queue.remove_consumer(consumer):
                queues[queue] = ()
        for queue in queues:
            self._unread(queue)
        for queue, entries in {**queues, **dict(held)}.items():
            self.abandon(queue, entries)

    def wanted(self, *consumers: Consumer) -> None:
        """They have room again."""
        queues = {queue: None for each in consumers if (queue := self._reads.get(each)) is not None}
        for queue in queues:
            queue.consumers.wanted(consumers)
            queue.pump()

    def _unread(self, queue: AmqpQueue) -> None:
        if queue.is_done:
            self.remove_queue(queue)
        elif not queue.core.closed:
            self._undertaker.seen(queue)

    # ------------------------------------------------------------------------------------------------ settling

    # `reader`: whose room they took. He stands in line again before anything comes back, and all are served before a dead
    # letter arrives anywhere (rabbit_amqqueue_process:subtract_acks).

    def ack(self, queue: AmqpQueue, entries: Sequence[Entry], reader: Consumer | None = None) -> None:
        queue.ack(entries)
        if reader is not None and not queue.core.closed:
            queue.consumers.wanted((reader,))
            queue.pump()

    def requeue(self, queue: AmqpQueue, entries: Sequence[Entry], reader: Consumer | None = None) -> None:
        self._settle(queue, queue.requeue, entries, reader)

    def abandon(self, queue: AmqpQueue, entries: Sequence[Entry]) -> None:
        """Their reader is gone: they come back, not by his wish."""
        self._settle(queue, queue.abandon, entries, None)

    def reject(self, queue: AmqpQueue, entries: Sequence[Entry], reader: Consumer | None = None) -> None:
        """Dead-lettered, or dropped where the queue has no dead-letter exchange."""
        self._settle(queue, queue.reject, entries, reader)

    def _settle(
        self,
        queue: AmqpQueue,
        verb: Callable[[Sequence[Entry]], None],
        entries: Sequence[Entry],
        reader: Consumer | None,
    ) -> None:
        if queue.core.closed:
            return
        with self.engine.together():
            if reader is not None:
                queue.consumers.wanted((reader,))
            verb(entries)
            queue.pump()
            queue.bound()

    # ---------------------------------------------------------------------------------------------- the checks

    def _check_equivalent(
        self,
        queue: AmqpQueue,
        durable: bool,
        auto_delete: bool,
        exclusive: bool,
        arguments: Mapping[str, Any],
        connection: Hashable,
    ) -> None:
        """In RabbitMQ's order (rabbit_amqqueue:assert_equivalence)."""
        what = resource("queue", queue.name, self.name)
        if (connection if exclusive else None) != queue.exclusive_to:
            raise locked(what)
        for name, there, wanted in (
            ("durable", queue.durable, durable),
            ("auto_delete", queue.auto_delete, auto_delete),
        ):
            if there != wanted:
                raise inequivalent(name, what, there, wanted)
        args.check_same(what, queue.spec.kind, queue.arguments, arguments)


def stripped(name: str) -> str:
    return name.replace("\n", "").replace("\r", "")


def tag_in_use(tag: str) -> AmqpError:
    return AmqpError(NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
