"""exchange.* and queue.*: from the method's arguments to the virtual host and back.

Rules
- "" as a queue's name means the one declared last on this channel; for a declare, a new name of the server's.
- With `no_wait` nothing is answered, errors are said all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unimq.broker.engine.errors import AmqpError
from unimq.wire.amqp091.encode import method_frame

from . import replies

if TYPE_CHECKING:
    from .channel import Channel


def exchange_declare(
    ch: Channel,
    name: str,
    kind: str,
    passive: bool,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    no_wait: bool,
    arguments: dict[str, Any],
) -> None:
    if passive:
        ch.vhost.check_exchange(name)
    else:
        ch.vhost.declare_exchange(
            name, kind, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
        )
    if not no_wait:
        ch.say("exchange.declare-ok")


def exchange_delete(ch: Channel, name: str, if_unused: bool, no_wait: bool) -> None:
    ch.vhost.delete_exchange(name, if_unused=if_unused)
    if not no_wait:
        ch.say("exchange.delete-ok")


def exchange_bind(
    ch: Channel, destination: str, source: str, key: str, no_wait: bool, arguments: dict[str, Any]
) -> None:
    ch.vhost.bind_exchange(destination, source, key, arguments)
    if not no_wait:
        ch.say("exchange.bind-ok")


def exchange_unbind(
    ch: Channel, destination: str, source: str, key: str, no_wait: bool, arguments: dict[str, Any]
) -> None:
    ch.vhost.unbind_exchange(destination, source, key, arguments)
    if not no_wait:
        ch.say("exchange.unbind-ok")


def queue_declare(
    ch: Channel,
    name: str,
    passive: bool,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    no_wait: bool,
    arguments: dict[str, Any],
) -> None:
    if name.startswith(replies.REPLY_TO):
        if not replies.is_there(ch, name):
            raise AmqpError(404, f"no queue '{name}' in vhost '{ch.connection.vhost_name}'")
        if not no_wait:
            ch.say("queue.declare-ok", name, 0, 1)
        return
    if passive:
        queue = ch.vhost.find_queue(name, connection=ch.connection)
    else:
        queue = ch.vhost.declare_queue(
            name or ch.node.made_name("amq.gen-"),
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
            connection=ch.connection,
        )
    ch.last_queue = queue.name
    if not no_wait:
        ch.say("queue.declare-ok", queue.name, *ch.vhost.counts(queue))


def queue_bind(
    ch: Channel, queue: str, exchange: str, key: str, no_wait: bool, arguments: dict[str, Any]
) -> None:
    name = ch.queue_name(queue)
    ch.vhost.bind_queue(name, exchange, key if key or queue else name, arguments, connection=ch.connection)
    if not no_wait:
        ch.say("queue.bind-ok")


def queue_unbind(ch: Channel, queue: str, exchange: str, key: str, arguments: dict[str, Any]) -> None:
    name = ch.queue_name(queue)
    ch.vhost.unbind_queue(name, exchange, key if key or queue else name, arguments, connection=ch.connection)
    ch.say("queue.unbind-ok")


def queue_purge(ch: Channel, queue: str, no_wait: bool) -> None:
    purged = ch.vhost.purge_queue(ch.queue_name(queue), connection=ch.connection)
    if not no_wait:
        ch.say("queue.purge-ok", purged)


def queue_delete(ch: Channel, queue: str, if_unused: bool, if_empty: bool, no_wait: bool) -> None:
    at = len(ch.out)
    deleted = ch.vhost.delete_queue(
        ch.queue_name(queue), if_unused=if_unused, if_empty=if_empty, connection=ch.connection
    )
    if not no_wait:
        # before the cancels of our own consumers, as RabbitMQ says it
        ch.out.insert(at, method_frame(ch.number, "queue.delete-ok", deleted))
