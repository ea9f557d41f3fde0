"""basic.publish, confirm.select.

Rules
- An unroutable mandatory message is returned before it is confirmed.
- A message that a queue refuses (overflow reject-publish, no room) is confirmed with basic.nack.
- In a transaction routing is checked now; the message goes to its queues at the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimq.broker.engine import Stored
from unimq.broker.engine.errors import AmqpError
from unimq.broker.engine.publication import prepared, publication, publication_of
from unimq.broker.engine.vhost import Prepared

from . import replies

if TYPE_CHECKING:
    from .channel import Channel


def publish(
    ch: Channel,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    immediate: bool,
    properties: bytes,
    body: bytes,
) -> None:
    if immediate:
        raise AmqpError(540, "immediate=true")
    sent = publication(exchange, routing_key, properties)
    if sent.properties.fixed.get("reply_to") == replies.REPLY_TO:
        sent = replies.with_reply_address(ch, sent)
    stored = prepared(sent, body, ch.connection.user)
    ready = ch.vhost.prepare(exchange, routing_key, stored)
    if ch.mode == "tx":
        ch.tx.publish(ready, mandatory)
        return
    if ch.mode == "confirm":
        ch.published += 1
        ch.connection.talked[ch] = None
    refused = send(ch, ready, mandatory)
    if refused and ch.mode == "confirm":
        ch.refused.append(ch.published)
    if ch.node.alarm:
        ch.connection.published()


def send(ch: Channel, ready: Prepared, mandatory: bool) -> bool:
    """To its queues, or back. True when a queue refused it."""
    routed = ch.vhost.deliver(ready)
    if not routed.routed and not replies.deliver(ch, ready.stored) and mandatory:
        give_back(ch, ready.stored)
    return routed.refused


def give_back(ch: Channel, stored: Stored) -> None:
    sent = publication_of(stored)
    ch.say("basic.return", 312, "NO_ROUTE", sent.exchange, sent.routing_key)
    ch.say_content(sent.properties.raw, stored.body or b"")


def too_large(_ch: Channel, size: int, limit: int) -> None:
    raise AmqpError(406, f"message size {size} is larger than configured max size {limit}")


def confirm_select(ch: Channel, no_wait: bool) -> None:
    if ch.mode == "tx":
        raise AmqpError(406, "cannot switch from tx to confirm mode")
    ch.mode = "confirm"
    if not no_wait:
        ch.say("confirm.select-ok")
