"""Addresses → broker names. Pure.

Rules
- A name the broker accepts is the broker's, byte for byte. Escaped (`%XX`, and `%` itself, so that the map is one to
  one) is only what means something else to it: Classic `,` `?` `*` `>`, Artemis `*` `#` `::`, on both control characters
  and a blank at either end.
- In composed names the dots inside a part are escaped too, so that `a.b`+`c` and `a`+`b.c` differ; Classic's
  `Consumer.*.` takes one word only, so a group's dots are escaped there as well.
- A `Ref` says what a place is and fits both brokers; `native` says how one of them spells it. Artemis gets bare names and
  the routing type on every frame: what `/queue/…` means there depends on the acceptor's prefixes, and without any a
  SEND to it is confirmed and lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from unimq.address import Address, Queue, Subscription, Topic

CLASSIC: Final = "classic"
ARTEMIS: Final = "artemis"

_CONTROL = r"[%\x00-\x1f\x7f]|^ | $"
_REFUSED = {
    CLASSIC: re.compile(_CONTROL + r"|[,?*>]"),
    ARTEMIS: re.compile(_CONTROL + r"|[*#]|::"),
}
_WORD = {
    CLASSIC: re.compile(_CONTROL + r"|[,?*>.]"),
    ARTEMIS: re.compile(_CONTROL + r"|[*#.]|::"),
}


@dataclass(frozen=True, slots=True)
class Ref:
    """A place: a `queue`, a `topic`, the queue of a `group` (`name` is its topic's) or a `private` subscription.

    `dead`: copies to it never expire. `origin`: only the messages that died there are meant (a dead-letter queue that all
    queues share). `exact`: `name` (of a group: `group`) is the broker's own, not to be escaped.
    """

    kind: str
    name: str
    group: str | None = None
    dead: bool = False
    origin: Ref | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Native:
    """How one broker spells a place: the `destination` header and the routing type (None on Classic)."""

    destination: str
    routing: str | None
    queue: str  # the broker's name of the queue (of a topic: the address), for reports


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def escape(name: str, flavour: str) -> str:
    return _REFUSED[flavour].sub(_percent, name)


def word(name: str, flavour: str) -> str:
    """`name` as one part of a composed name."""
    return _WORD[flavour].sub(_percent, name)


def unescape(name: str) -> str:
    return unquote(name)


def ref_of(address: Address) -> Ref:
    if isinstance(address, Queue):
        return Ref("queue", address.broker_name or address.name, exact=address.broker_name is not None)
    if isinstance(address, Topic):
        return Ref("topic", address.name)
    if isinstance(address, Subscription):
        if address.broker_name is not None:
            return Ref("group", address.topic.name, address.broker_name, exact=True)
        if address.name is None:
            return Ref("private", address.topic.name)
        return Ref("group", address.topic.name, address.name)
    raise TypeError(f"a {type(address).__name__} is no address")


def dead_ref(ref: Ref, flavour: str) -> Ref | None:
    """Where the dead of `ref` lie; None for what has no name of its own."""
    if ref.kind == "queue":
        return Ref("queue", ref.name + ".dlq", dead=True, exact=ref.exact)
    if ref.kind != "group" or ref.group is None:
        return None
    if ref.exact:
        return Ref("queue", ref.group + ".dlq", dead=True, exact=True)
    return Ref("queue", f"{word(ref.name, flavour)}.{word(ref.group, flavour)}.dlq", dead=True, exact=True)


def brokers_dead(ref: Ref, flavour: str) -> tuple[Ref, ...]:
    """Where the broker itself puts the dead of `ref` as it is shipped: Classic's common and individual queues, Artemis'
    dead-letter and expiry addresses (broker.xml may say others; then they are not found)."""
    if flavour == CLASSIC:
        own = native(ref, flavour).queue
        return (
            Ref("queue", "ActiveMQ.DLQ", dead=True, origin=ref, exact=True),
            Ref("queue", "DLQ." + own, dead=True, exact=True),
        )
    return tuple(Ref("queue", name, dead=True, origin=ref, exact=True) for name in ("DLQ", "ExpiryQueue"))


def native(ref: Ref, flavour: str) -> Native:
    name = ref.name if ref.exact and ref.kind != "group" else escape(ref.name, flavour)
    if flavour == CLASSIC:
        if ref.kind == "queue":
            return Native("/queue/" + name, None, name)
        if ref.kind != "group" or ref.group is None:
            return Native("/topic/VirtualTopic." + name, None, "VirtualTopic." + name)
        queue = ref.group if ref.exact else f"Consumer.{word(ref.group, flavour)}.VirtualTopic.{name}"
        return Native("/queue/" + queue, None, queue)
    if ref.kind == "queue":
        return Native(name, "ANYCAST", name)
    if ref.kind != "group" or ref.group is None:
        return Native(name, "MULTICAST", name)
    queue = ref.group if ref.exact else f"{word(ref.name, flavour)}.{word(ref.group, flavour)}"
    return Native(f"{name}::{queue}", "MULTICAST", queue)
