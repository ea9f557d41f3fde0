"""Direct reply-to: replies go from channel to channel, no queue lies between.

Rules
- A consumer of `amq.rabbitmq.reply-to`, without acknowledgement, makes its channel a place for replies. One per channel.
- A message published on that channel with that name as reply_to carries the channel's own address instead.
- A reply to an address whose channel is gone is unroutable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from unimq.broker.engine import Stored
from unimq.broker.engine.errors import AmqpError
from unimq.broker.engine.publication import Publication, publication_of
from unimq.wire.amqp091.encode import deliver_frames

from .limits import REPLIES_MAX_BYTES

if TYPE_CHECKING:
    from .channel import Channel

REPLY_TO: Final = "amq.rabbitmq.reply-to"
PREFIX: Final = REPLY_TO + "."


def consume(ch: Channel, tag: str, no_ack: bool, no_wait: bool) -> None:
    if not no_ack:
        raise AmqpError(406, "reply consumer cannot acknowledge")
    if ch.reply_consumer is not None:
        raise AmqpError(406, "reply consumer already set")
    ch.reply_consumer = tag or ch.node.made_name("amq.ctag-")
    if ch.reply_token is None:
        ch.reply_token = ch.node.made_name(PREFIX)
    ch.vhost.reply_to[ch.reply_token] = lambda stored: arrived(ch, stored)
    if not no_wait:
        ch.say("basic.consume-ok", ch.reply_consumer)


def cancel(ch: Channel) -> None:
    ch.reply_consumer = None
    if ch.reply_token is not None:
        ch.vhost.reply_to.pop(ch.reply_token, None)


def with_reply_address(ch: Channel, sent: Publication) -> Publication:
    if ch.reply_consumer is None or ch.reply_token is None:
        raise AmqpError(406, "fast reply consumer does not exist")
    return msgspec.structs.replace(sent, properties=sent.properties.changed(reply_to=ch.reply_token))


def is_there(ch: Channel, name: str) -> bool:
    return name == REPLY_TO or name in ch.vhost.reply_to


def deliver(ch: Channel, stored: Stored) -> bool:
    """Did the virtual host hand it to a waiting channel when it looked for queues?"""
    sent = publication_of(stored)
    return not sent.exchange and sent.routing_key in ch.vhost.reply_to


def arrived(ch: Channel, stored: Stored) -> None:
    """A reply. Whoever does not read his replies loses them: nothing holds them meanwhile."""
    connection = ch.connection
    waiting = connection.pending_bytes > REPLIES_MAX_BYTES
    if ch.reply_consumer is None or not connection.line.writable or waiting:
        return
    sent = publication_of(stored)
    ch.last_tag += 1
    frames = deliver_frames(
        ch.number,
        ch.reply_consumer,
        ch.last_tag,
        False,
        sent.exchange,
        sent.routing_key,
        sent.properties.raw,
        stored.body or b"",
        connection.frame_max,
    )
    connection.pending_bytes += len(frames)
    connection.say(frames)
