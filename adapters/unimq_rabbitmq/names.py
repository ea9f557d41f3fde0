"""Addresses → RabbitMQ's names (§5.1). Pure.

Rules
- A name the broker takes is the broker's name, byte for byte.
- Escaped is what it refuses or would change: a leading `amq.` (but not what the broker itself made), CR and LF (it strips
  them silently), NUL; in the parts of a composed name also the dot, which is the joint. `%` is escaped only where it
  would read as an escape of ours. The map is one to one.
- Places and exchanges are composed of whole milliseconds and fixed words, the same in every version.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final

from unimq.address import Address, HeaderValue, Queue, Source, Subscription, Target, Topic
from unimq.driver import Place
from unimq.errors import Unsupported
from unimq.headers import text, type_letter
from unimq.ladder import milliseconds

NAME_MAX_BYTES: Final = 255  # an AMQP short string
DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"

_PREDEFINED: Final = frozenset({"amq.topic", "amq.direct", "amq.fanout", "amq.headers", "amq.match"})
_BROKER_MADE: Final = ("amq.gen-", DIRECT_REPLY)
_ESCAPE_LIKE: Final = re.compile(r"%(?=00|0A|0D|25|2E|61mq(?:\.|%2E)|64lq$)")
_REFUSED: Final = re.compile(r"[\x00\r\n]")
_ESCAPED: Final = re.compile(r"%(00|0A|0D|25|2E|61(?=mq(?:\.|%2E))|64(?=lq$))")


class NameTooLong(Unsupported, ValueError):
    """The broker's names are at most 255 bytes of UTF-8."""


def escape(name: str) -> str:
    """A user's name as the broker's."""
    if name.startswith("amq."):
        if name in _PREDEFINED or name.startswith(_BROKER_MADE):
            return name
        name = "%61" + _ESCAPE_LIKE.sub("%25", name[1:])
    else:
        name = _ESCAPE_LIKE.sub("%25", name)
    return _REFUSED.sub(lambda found: f"%{ord(found[0]):02X}", name)


def part(name: str) -> str:
    """A user's name as a part of a composed one. `dlq` alone would read as somebody's dead-letter place."""
    escaped = "%64lq" if name == "dlq" else escape(name)
    return escaped.replace(".", "%2E")


def unescape(name: str) -> str:
    """The inverse of `escape` and of `part`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)


def checked(name: str) -> str:
    """`name`, or `NameTooLong`."""
    if len(name) * 4 > NAME_MAX_BYTES and len(name.encode("utf-8", "surrogatepass")) > NAME_MAX_BYTES:
        raise NameTooLong(f"the name {name[:40]!r}… is longer than RabbitMQ's {NAME_MAX_BYTES} bytes")
    return name


# ------------------------------------------------------------------------------------------------------ addresses
def queue_of(source: Source) -> str:
    """The queue that a Queue or a named Subscription is."""
    if source.broker_name is not None:
        return checked(source.broker_name)
    if isinstance(source, Queue):
        return checked(escape(source.name))
    if source.name is None:
        raise ValueError("a subscription without a name has no queue until it is opened")
    return checked(f"{part(source.topic.name)}.{part(source.name)}")


def exchange_of(topic: Topic) -> str:
    return checked(escape(topic.name))


def filter_exchange(subscription: Subscription, letter: str) -> str:
    """The subscription's own exchange; there are two names, so that one can be built before the other goes."""
    return checked(f"{queue_of(subscription)}.{letter}")


def filter_mark(subscription: Subscription) -> str:
    """The filter as a name that the broker compares for us (`alternate-exchange`)."""
    where = sorted(
        (name, type_letter(value) or "s", text(value)) for name, value in subscription.where.items()
    )
    canonical = json.dumps(
        [sorted(set(subscription.subjects)), where], ensure_ascii=True, separators=(",", ":")
    )
    return f"unimq.filter.{hashlib.sha256(canonical.encode()).hexdigest()[:32]}"


def match_arguments(where: dict[str, HeaderValue]) -> dict[str, object]:
    """`where` as a binding of a headers exchange. Floats travel as text (`unimq-types`), so they are matched as text."""
    arguments: dict[str, object] = {"x-match": "all"}
    for name, value in where.items():
        if name.startswith("x-"):
            raise Unsupported(
                f"a filter on the header {name!r}: RabbitMQ leaves out x- headers when it matches all"
            )
        arguments[name] = text(value) if isinstance(value, float) else value
    return arguments


# --------------------------------------------------------------------------------------------------------- places
@dataclass(frozen=True, slots=True)
class Ref:
    """A place. `kind`: source | retry | dead | delay | reply | named | topic. Messages go to `queue`, or where `exchange` is
    set to that with their subject as routing key. `back_to`: the queue (or exchange) a delay place returns to."""

    kind: str
    queue: str
    exchange: str = ""
    back_to: str = ""
    delay_ms: int | None = None


def source_place(source: Source) -> Place:
    queue = queue_of(source)
    return Place(Ref("source", queue), queue, 0.0)


def dead_place(source: Source) -> Place:
    queue = checked(f"{queue_of(source)}.dlq")
    return Place(Ref("dead", queue, back_to=queue_of(source)), queue)


def retry_place(source: Source, delay_s: float) -> Place:
    back_to = queue_of(source)
    ms = milliseconds(delay_s)
    queue = checked(f"{back_to}.retry.{ms}")
    return Place(Ref("retry", queue, back_to=back_to, delay_ms=ms), queue, delay_s)


def delay_place(target: Target, delay_s: float) -> Place:
    """Where a delayed send waits: a queue's is its retry place; a topic's keeps the subject as routing key."""
    if isinstance(target, Queue):
        return retry_place(target, delay_s)
    exchange = exchange_of(target)
    ms = milliseconds(delay_s)
    queue = checked(f"{exchange}.delay.{ms}")
    return Place(Ref("delay", queue, exchange=queue, back_to=exchange, delay_ms=ms), queue, delay_s)


REPLY_PLACE: Final = Place(Ref("reply", DIRECT_REPLY), DIRECT_REPLY)


def ref_of(place: Place) -> Ref:
    """A place's ref; a bare string is a queue's name, verbatim (a `reply_to`)."""
    ref = place.ref
    if isinstance(ref, Ref):
        return ref
    if isinstance(ref, str) and ref:
        return Ref("named", checked(ref))
    if isinstance(ref, Queue | Subscription):  # the user's own dead-letter place
        return Ref("named", queue_of(ref))
    if isinstance(ref, Topic):
        return Ref("topic", "", exchange=exchange_of(ref))
    raise ValueError(f"{place} is not a place of RabbitMQ")


def reply_name(address: Address | str) -> str:
    """`reply_to` as RabbitMQ's own form: the name of a queue."""
    if isinstance(address, str):
        return address
    if isinstance(address, Queue):
        return queue_of(address)
    return str(address)
