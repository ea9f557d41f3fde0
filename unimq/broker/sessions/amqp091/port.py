"""What the AMQP session asks of a virtual host (`unimq.broker.engine.vhost.VHost`), and what it gives to it.

Rules
- The virtual host knows no frames: it takes decoded arguments and raises `AmqpError(code, text, scope, class_id, method_id)`.
- A consumer is handed entries only while `room()` is positive; the entries are leased to `consumer.owner` then.
- The virtual host calls a consumer at the end of an operation, never in its middle.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from unimq.broker.engine import Entry, Stored


class Consumer(Protocol):
    """Made by the session for each basic.consume."""

    tag: str
    owner: Hashable  # who holds the leases: the channel
    no_ack: bool
    exclusive: bool
    priority: int  # x-priority, 0 without

    def room(self) -> int:
        """How many entries it takes now; 0: none until `VHost.wanted(consumer)` is called."""

    def deliver(self, queue: QueueHandle, entries: Sequence[Entry]) -> None:
        """They are leased to `owner`; without acknowledgement they have ended already."""

    def cancelled(self) -> None:
        """The queue is gone: the server cancels it."""


class QueueHandle(Protocol):
    @property
    def name(self) -> str: ...


class Routed(Protocol):
    @property
    def routed(self) -> int: ...  # queues that wanted it; 0: unroutable
    @property
    def refused(self) -> Any: ...  # true when a queue refused it (overflow reject-publish, no room): nack


class VHost(Protocol):
    """`connection` is the identity of the connection, for exclusive queues; `arguments` are decoded field tables whose
    values are the typed ones of `unimq.wire.amqp091.table`."""

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, internal: bool, arguments: Mapping[str, Any]
    ) -> None: ...
    def check_exchange(self, name: str) -> None: ...  # passive
    def delete_exchange(self, name: str, *, if_unused: bool) -> None: ...
    def bind_queue(
        self, queue: str, exchange: str, routing_key: str, arguments: Mapping[str, Any], *, connection: Hashable
    ) -> None: ...
    def unbind_queue(
        self, queue: str, exchange: str, routing_key: str, arguments: Mapping[str, Any], *, connection: Hashable
    ) -> None: ...
    def bind_exchange(self, destination: str, source: str, routing_key: str, arguments: Mapping[str, Any]) -> None: ...
    def unbind_exchange(self, destination: str, source: str, routing_key: str, arguments: Mapping[str, Any]) -> None: ...
    def declare_queue(
        self,
        name: str,  # never empty: the session makes the amq.gen- names
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any],
        connection: Hashable,
    ) -> QueueHandle: ...
    def find_queue(self, name: str, *, connection: Hashable) -> QueueHandle: ...  # 404, 405
    def counts(self, queue: QueueHandle) -> tuple[int, int]: ...  # ready messages, consumers
    def delete_queue(self, name: str, *, if_unused: bool, if_empty: bool, connection: Hashable) -> int: ...
    def purge_queue(self, name: str, *, connection: Hashable) -> int: ...
    def publish(self, exchange: str, routing_key: str, stored: Stored) -> Routed: ...  # 404, 403; one stored for all
    def get(self, name: str, owner: Hashable, *, no_ack: bool, connection: Hashable) -> tuple[QueueHandle, Entry, int] | None: ...
    def consume(self, name: str, consumer: Consumer, *, connection: Hashable) -> QueueHandle: ...
    def cancel(self, consumer: Consumer) -> None: ...
    def wanted(self, consumer: Consumer) -> None: ...  # it has room again
    def ack(self, queue: QueueHandle, entries: Sequence[Entry]) -> None: ...
    def requeue(self, queue: QueueHandle, entries: Sequence[Entry]) -> None: ...
    def reject(self, queue: QueueHandle, entries: Sequence[Entry]) -> None: ...  # dead-letter, or drop
    def drop_connection(self, connection: Hashable) -> None: ...  # exclusive queues go
