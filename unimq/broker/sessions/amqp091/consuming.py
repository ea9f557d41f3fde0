"""basic: consume, get, cancel, qos, ack, nack, reject, recover.

Rules
- An unknown delivery tag is 406, and so is `multiple` up to a tag that is not there any more (0: all there are).
- Settling makes room for its consumer at once. A channel that was found full is fed when all of it is settled.
- The prefetch of the whole channel counts what classic queues delivered since it was set, and what was unacknowledged then.
  What was got does not count, and a prefetch for consumers lifts it (rabbit_channel, rabbit_limiter).
- In a transaction, acknowledgements are checked now and done at its commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unimq.broker.engine.errors import AmqpError

from . import replies
from .consumer import Consumer
from .limits import CONSUMERS_PER_CONNECTION_MAX
from .unacked import Unacked, by_reader

if TYPE_CHECKING:
    from .channel import Channel


def consume(
    ch: Channel,
    queue: str,
    tag: str,
    no_local: bool,
    no_ack: bool,
    exclusive: bool,
    no_wait: bool,
    arguments: dict[str, Any],
) -> None:
    if tag and tag in ch.consumers:
        raise AmqpError(530, f"attempt to reuse consumer tag '{tag}'")
    if queue == replies.REPLY_TO:
        replies.consume(ch, tag, no_ack, no_wait)
        return
    if len(ch.consumers) >= CONSUMERS_PER_CONNECTION_MAX:
        raise AmqpError(506, f"a channel has at most {CONSUMERS_PER_CONNECTION_MAX} consumers")
    name = ch.queue_name(queue)
    consumer = Consumer(
        ch,
        tag or ch.node.made_name("amq.ctag-"),
        no_ack=no_ack,
        exclusive=exclusive,
        prefetch=0 if no_ack else ch.consumer_prefetch,
    )

    def on_ok() -> None:
        ch.consumers[consumer.tag] = consumer
        if not no_wait:
            ch.say("basic.consume-ok", consumer.tag)

    reads = ch.vhost.consume(
        name,
        consumer,
        arguments=arguments,
        connection=ch.connection,
        global_prefetch=ch.channel_prefetch > 0,
        on_ok=on_ok,
    )
    consumer.limited = reads.spec.kind == "classic"


def cancel(ch: Channel, tag: str, no_wait: bool) -> None:
    if tag == ch.reply_consumer and tag:
        replies.cancel(ch)
    consumer = ch.consumers.pop(tag, None)
    if consumer is not None:
        consumer.ended = True
        ch.vhost.cancel(consumer)
    if not no_wait:
        ch.say("basic.cancel-ok", tag)


def get(ch: Channel, queue: str, no_ack: bool) -> None:
    name = ch.queue_name(queue)
    got = ch.vhost.get(name, ch, no_ack=no_ack, connection=ch.connection)
    if got is None:
        ch.say("basic.get-empty")
        return
    handle, entry, left = got
    ch.last_tag += 1
    if not no_ack:
        ch.unacked[ch.last_tag] = Unacked(ch.last_tag, handle, entry, None)
    sent = handle.content(entry, by_get=True)
    ch.say("basic.get-ok", ch.last_tag, entry.redelivered, sent.exchange, sent.routing_key, left)
    ch.say_content(sent.properties.raw, entry.stored.body or b"")


def qos(ch: Channel, prefetch_bytes: int, prefetch: int, whole_channel: bool) -> None:
    if prefetch_bytes:
        raise AmqpError(540, f"prefetch_size!=0 ({prefetch_bytes})")
    if whole_channel and not ch.node.dialect.global_prefetch:
        raise AmqpError(
            540, "Feature `global_qos` is deprecated. By default, this feature is not permitted anymore."
        )
    if not whole_channel:
        ch.consumer_prefetch = prefetch
    if whole_channel and not ch.channel_prefetch:
        ch.taken = len(ch.unacked)
    ch.channel_prefetch = prefetch if whole_channel else 0
    ch.say("basic.qos-ok")
    ch.resume()


# ------------------------------------------------------------------------------------------------------- settling
def ack(ch: Channel, tag: int, multiple: bool) -> None:
    if ch.mode == "tx":
        ch.tx.settle("ack", take(ch, tag, multiple))
        return
    if not multiple:
        each = ch.unacked.pop(tag, None)
        if each is not None:
            consumer = each.consumer
            if consumer is not None:
                consumer.unacked -= 1
                ch.count_back(1)
            ch.vhost.ack(each.queue, (each.entry,), consumer)
            ch.resume()
            return
    settle(ch, "ack", take(ch, tag, multiple))


def nack(ch: Channel, tag: int, multiple: bool, requeue: bool) -> None:
    verb = "requeue" if requeue else "reject"
    taken = take(ch, tag, multiple)
    if ch.mode == "tx":
        ch.tx.settle(verb, taken)
    else:
        settle(ch, verb, taken)


def reject(ch: Channel, tag: int, requeue: bool) -> None:
    nack(ch, tag, False, requeue)


def recover(ch: Channel, requeue: bool) -> None:
    _check_requeue(requeue)
    ch.say("basic.recover-ok")  # before what is delivered again, as RabbitMQ does it
    recover_async(ch, requeue)


def recover_async(ch: Channel, requeue: bool) -> None:
    _check_requeue(requeue)
    taken, ch.unacked = list(ch.unacked.values()), {}
    settle(ch, "requeue", taken)


def _check_requeue(requeue: bool) -> None:
    if not requeue:
        raise AmqpError(540, "requeue=false")


def take(ch: Channel, tag: int, multiple: bool) -> list[Unacked]:
    """Out of `unacked`, in order."""
    if not multiple:
        each = ch.unacked.pop(tag, None)
        if each is None:
            raise AmqpError(406, f"unknown delivery tag {tag}")
        return [each]
    if tag == 0:
        taken, ch.unacked = list(ch.unacked.values()), {}
        return taken
    if tag not in ch.unacked:
        raise AmqpError(406, f"unknown delivery tag {tag}")
    tags = []
    for there in ch.unacked:
        if there > tag:
            break
        tags.append(there)
    return [ch.unacked.pop(each) for each in tags]


def settle(ch: Channel, verb: str, taken: list[Unacked]) -> None:
    act = getattr(ch.vhost, verb)
    ch.count_back(sum(each.consumer is not None for each in taken))
    with ch.vhost.engine.together():  # what dies of it comes behind all of it
        for queue, consumer, entries in by_reader(taken):
            if consumer is not None:
                consumer.unacked -= len(entries)
            act(queue, entries, consumer)
    ch.resume()
