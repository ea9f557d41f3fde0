"""Addresses → Service Bus entities. Pure; one to one, apart from case.

Rules
- Service Bus compares names **without case**: Queue("Orders") and Queue("orders") are the same queue.
- A name the broker accepts is the broker's name. It accepts letters, digits, `.`, `-`, `_` (and `/` in a queue or topic),
  beginning and ending with a letter or digit.
- Everything else is `xu--HH` per byte of its UTF-8; the `x` of that mark, where a name contains it, is escaped too. The mark
  begins with a letter and ends with a digit of ours, so an escaped first or last character is accepted as well.
- In the composed name `<t>.<s>.retry` the dots inside t and s are escaped, so `a.b`+`c` and `a`+`b.c` differ.
- `broker_name=` is taken verbatim.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Final

from unimq.address import Address, Queue, Subscription, Topic
from unimq.driver import Place
from unimq.errors import Unsupported

ENTITY_MAX_CHARS: Final = 260
SUBSCRIPTION_MAX_CHARS: Final = 50
RETRY_SUFFIX: Final = ".retry"
_MARK: Final = re.compile(r"xu--(?=[0-9a-f]{2})", re.I)
_ESCAPED: Final = re.compile(r"xu--([0-9a-f]{2})", re.I)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
# `a/Subscriptions/b` is how the broker writes a subscription, and an empty segment is no segment
_SLASH_REFUSED: Final = re.compile(r"/(?=/)|/(?=subscriptions(?:/|$))", re.I)


@dataclass(frozen=True, slots=True)
class Entity:
    """A place at the broker: what a `Place.ref` is. `sessions`: it is declared and read with sessions."""

    kind: str  # queue | topic | subscription
    name: str  # of the queue or topic
    subscription: str | None = None
    dead: bool = False  # its $DeadLetterQueue
    sessions: bool = False

    @property
    def path(self) -> str:
        path = self.name if self.subscription is None else f"{self.name}/Subscriptions/{self.subscription}"
        return f"{path}/$DeadLetterQueue" if self.dead else path

    @property
    def key(self) -> str:
        """Equal for what the broker takes for the same place."""
        return self.path.casefold()


def escape(name: str, *, also: str = "") -> str:
    """`name` as the broker accepts it; `also` are characters escaped besides (the joint of composed names)."""
    forced = {match.start() for match in _MARK.finditer(name)}
    forced |= {match.start() for match in _SLASH_REFUSED.finditer(name)}
    last = len(name) - 1
    parts = []
    for index, char in enumerate(name):
        edge = index in (0, last) and not (char.isascii() and char.isalnum())
        plain = (char in _PLAIN or char == "/") and char not in also and index not in forced and not edge
        parts.append(char if plain else _bytes(char))
    return "".join(parts)


def _bytes(char: str) -> str:
    return "".join(f"xu--{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


def unescape(text: str) -> str:
    """What `escape` made `text` of."""
    raw = bytearray()
    at = 0
    for match in _ESCAPED.finditer(text):
        raw += text[at : match.start()].encode("utf-8", "surrogatepass")
        raw.append(int(match[1], 16))
        at = match.end()
    raw += text[at:].encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "surrogatepass")


def _within(name: str, limit: int, what: str) -> str:
    if len(name) > limit:
        raise Unsupported(
            f"the {what} name {name[:40]!r}… has {len(name)} characters as Service Bus writes it; it takes {limit}",
            adapter="servicebus",
        )
    return name


def queue_entity(queue: Queue) -> Entity:
    name = queue.broker_name or _within(escape(queue.name), ENTITY_MAX_CHARS, "queue")
    return Entity("queue", name, sessions=queue.ordered)


def topic_entity(topic: Topic) -> Entity:
    return Entity("topic", _within(escape(topic.name), ENTITY_MAX_CHARS, "topic"))


def subscription_entity(source: Subscription) -> Entity:
    if source.name is None and source.broker_name is None:
        raise Unsupported(
            "a subscription without a name is not built yet on Service Bus: give it a name",
            adapter="servicebus",
        )
    name = source.broker_name or _within(
        escape(source.name or "", also="/"), SUBSCRIPTION_MAX_CHARS, "subscription"
    )
    return Entity("subscription", topic_entity(source.topic).name, name, sessions=source.ordered)


def entity_of(address: Address | Place) -> Entity:
    """The entity of an address or of a Place."""
    if isinstance(address, Place):
        ref = address.ref
        if isinstance(ref, Entity):
            return ref
        address = ref  # the core names a dead-letter place of the user's by its address
    if isinstance(address, Queue):
        return queue_entity(address)
    if isinstance(address, Subscription):
        return subscription_entity(address)
    if isinstance(address, Topic):
        return topic_entity(address)
    raise TypeError(f"{address!r} is not an address")


def retry_entity(source: Subscription, *, sessions: bool) -> Entity:
    """The private retry queue of a subscription."""
    subscription = source.broker_name or source.name or ""
    name = f"{escape(source.topic.name, also='.')}.{escape(subscription, also='./')}{RETRY_SUFFIX}"
    return Entity("queue", _within(name, ENTITY_MAX_CHARS, "retry queue"), sessions=sessions)


def dead_of(entity: Entity) -> Entity:
    """Its dead letters: never with sessions, also where the entity has them."""
    return dataclasses.replace(entity, dead=True, sessions=False)


def place(entity: Entity) -> Place:
    """Any delay: a scheduled message carries its own."""
    return Place(entity, entity.path)
