"""Addresses → topics, groups and places. Pure; stable across versions.

Rules
- A topic name that Kafka accepts is used byte for byte. Every other byte becomes `-0xHH`, and so does the `-` of a `-0x`
  that is there already: the map is one to one. `-` because Kafka refuses names that differ in `.` and `_` only.
- In the name of a place (`<t>.<g>.retry.<ms>`, `<q>.dlq`) the dots inside each part are escaped too, so that the places of
  `Queue("a.b")` and of `Subscription("a", "b")` differ: each group must read its own copies only.
- What would be longer than Kafka takes is cut and ends in a digest.
- Group ids are free text to Kafka: `unimq.<q>` for a queue, the subscription's own name otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from unimq import ladder
from unimq.address import Address, Queue, Source, Subscription, Target, Topic
from unimq.driver import Place
from unimq.errors import Unsupported

TOPIC_MAX_CHARS: Final = 249
DIGEST_CHARS: Final = 40
RETENTION_SLACK_S: Final = 7 * 86_400.0
_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]")
_LEGAL_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_MARK: Final = "-0x"


@dataclass(frozen=True, slots=True)
class TopicRef:
    """What a Place of ours is: a topic, read by one group. `like`: the topic whose partition count it takes."""

    topic: str
    group: str
    like: str
    delay_s: float | None = None
    dead: bool = False


def escape(name: str, *, dots: bool = False) -> str:
    """`name` as a topic name, or as a part of one (`dots`: escape those too)."""
    if (
        _LEGAL_NAME.match(name)
        and _MARK not in name
        and name not in (".", "..")
        and not (dots and "." in name)
    ):
        return name
    parts = []
    for at, char in enumerate(name):
        plain = _LEGAL.match(char) is not None and not (char == "-" and name.startswith(_MARK, at))
        if plain and not (char == "." and (dots or not name.strip("."))):
            parts.append(char)
        else:
            parts += [f"{_MARK}{byte:02x}" for byte in char.encode("utf-8", "surrogatepass")]
    return _fit("".join(parts))


def unescape(topic: str) -> str:
    """The name that `escape` made `topic` of (unless it had to be cut)."""
    raw = re.sub(rb"-0x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), topic.encode())
    return raw.decode("utf-8", "surrogatepass")


def _fit(topic: str) -> str:
    if len(topic) <= TOPIC_MAX_CHARS:
        return topic
    digest = hashlib.sha256(topic.encode()).hexdigest()[:DIGEST_CHARS]
    return f"{topic[: TOPIC_MAX_CHARS - DIGEST_CHARS - len(_MARK) - 1]}{_MARK}z{digest}"


def topic_of(address: Address) -> str:
    if isinstance(address, Queue):
        return address.broker_name or escape(address.name)
    if isinstance(address, Subscription):
        return escape(address.topic.name)
    if isinstance(address, Topic):
        return escape(address.name)
    raise Unsupported(f"{address!r} is not an address that Kafka has")


def group_of(source: Source | Target, group: str | None = None) -> str | None:
    """The consumer group; None for a subscription without a name and for a Topic. `group`: `?group=` of the URL."""
    if isinstance(source, Queue):
        return group or f"unimq.{topic_of(source)}"
    if isinstance(source, Subscription):
        return source.broker_name or source.name
    return None


def place_prefix(source: Source, group: str | None = None) -> str | None:
    """What the names of a group's places begin with."""
    if isinstance(source, Queue):
        own = escape(topic_of(source), dots=True)
        return own if group is None else f"{own}.{escape(group, dots=True)}"
    member = group_of(source)
    return None if member is None else f"{escape(topic_of(source), dots=True)}.{escape(member, dots=True)}"


def retry_place(source: Source, delay_s: float, group: str | None = None) -> Place:
    prefix, member = place_prefix(source, group), group_of(source, group)
    if prefix is None or member is None:
        raise Unsupported(
            f"{source} has no name, so there is no place where a delayed copy could wait for it"
        )
    topic = _fit(f"{prefix}.retry.{ladder.milliseconds(delay_s)}")
    return Place(TopicRef(topic, member, topic_of(source), delay_s=delay_s), topic, delay_s)


def dead_place(source: Source, group: str | None = None) -> Place | None:
    prefix, member = place_prefix(source, group), group_of(source, group)
    if prefix is None or member is None:
        return None
    topic = _fit(f"{prefix}.dlq")
    return Place(TopicRef(topic, f"{member}.dlq", topic_of(source), dead=True), topic)


def retry_places_among(topics: Iterable[str], source: Source, group: str | None = None) -> list[Place]:
    """The retry places of `source` that exist, found by name: also those that no policy of today names."""
    prefix = place_prefix(source, group)
    if prefix is None:
        return []
    pattern = re.compile(rf"{re.escape(prefix)}\.retry\.(\d{{1,12}})\Z")
    found = [
        retry_place(source, int(hit[1]) / 1000, group) for topic in topics if (hit := pattern.match(topic))
    ]
    return sorted(found, key=lambda place: place.delay_s or 0.0)
