"""Addresses: values that say where, in the words of the seam.

Rules
- A name the broker accepts is the broker's name, byte for byte; adapters' `names.py` escapes the rest.
- Addresses compare and hash by what they name; `str()` and `Address.parse` are inverses.
- A bare string is refused where an address is wanted, with the hint how to write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, TypeAlias
from urllib.parse import quote, unquote

HeaderValue: TypeAlias = str | int | float | bool | bytes


def _quoted(name: str) -> str:
    return quote(name, safe="!$&'()*+,;=.@ :~-_#")  # everything but '/', '?' and '%' that people put in names


@dataclass(frozen=True, slots=True)
class Address:
    """Base of Queue, Topic and Subscription."""

    kind: ClassVar[str] = "address"

    @staticmethod
    def parse(text: str) -> Address:
        """`queue:orders`, `topic:events` or `subscription:events/billing`. ValueError for anything else."""
        kind, colon, rest = text.partition(":")
        if not colon or not rest:
            raise ValueError(
                f"{text!r} is not an address: write queue:NAME, topic:NAME or subscription:TOPIC/NAME"
            )
        if kind == "queue":
            return Queue(unquote(rest))
        if kind == "topic":
            return Topic(unquote(rest))
        if kind == "subscription":
            topic, slash, name = rest.partition("/")
            if not topic or (slash and not name):
                raise ValueError(f"{text!r} is not a subscription: write subscription:TOPIC/NAME")
            return Subscription(Topic(unquote(topic)), unquote(name) if slash else None)
        raise ValueError(f"{kind!r} is not a kind of address: queue, topic or subscription")


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a {what} needs a name: a string that is not empty, not {name!r}")


@dataclass(frozen=True, slots=True)
class Queue(Address):
    """Point to point: each message goes to one receiver. `ordered` declares order per key, verified at open."""

    name: str
    ordered: bool = field(default=False, kw_only=True)
    broker_name: str | None = field(default=None, kw_only=True)
    kind: ClassVar[str] = "queue"

    def __post_init__(self) -> None:
        _check_name(self.name, "queue")

    def __str__(self) -> str:
        return f"queue:{_quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class Topic(Address):
    """The publishing side of pub/sub."""

    name: str
    kind: ClassVar[str] = "topic"

    def __post_init__(self) -> None:
        _check_name(self.name, "topic")

    def __str__(self) -> str:
        return f"topic:{_quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class Subscription(Address):
    """A durable group on a topic whose members share it; without a name it is private and temporary.

    `subjects` are alternative patterns (`*` one word, `#` any number of words), `where` is header equality and
    all of it must hold. Identity is (topic, name): another filter on an existing one is a `TopologyMismatch`.
    """

    topic: Topic
    name: str | None = None
    subjects: Sequence[str] = field(default=(), kw_only=True)
    where: Mapping[str, HeaderValue] = field(default_factory=dict, kw_only=True, hash=False)
    start: str = field(default="latest", kw_only=True)
    ordered: bool = field(default=False, kw_only=True)
    broker_name: str | None = field(default=None, kw_only=True)
    kind: ClassVar[str] = "subscription"

    def __post_init__(self) -> None:
        topic = Topic(self.topic) if isinstance(self.topic, str) else self.topic
        if not isinstance(topic, Topic):
            raise ValueError(f"a subscription is on a Topic, not on {topic!r}")
        if self.name is not None:
            _check_name(self.name, "subscription")
        if self.start not in ("latest", "earliest"):
            raise ValueError(f'start is "latest" or "earliest", not {self.start!r}')
        if isinstance(self.subjects, str):
            raise ValueError(f"subjects is a list of patterns: [{self.subjects!r}]")
        object.__setattr__(self, "topic", topic)
        object.__setattr__(self, "subjects", tuple(self.subjects))
        object.__setattr__(self, "where", MappingProxyType(dict(self.where)))

    def __str__(self) -> str:
        tail = "" if self.name is None else f"/{_quoted(self.name)}"
        return f"subscription:{_quoted(self.topic.name)}{tail}"

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _subscription,
            (
                self.topic,
                self.name,
                self.subjects,
                dict(self.where),
                self.start,
                self.ordered,
                self.broker_name,
            ),
        )


def _subscription(
    topic: Topic,
    name: str | None,
    subjects: Sequence[str],
    where: dict[str, HeaderValue],
    start: str,
    ordered: bool,
    broker_name: str | None,
) -> Subscription:
    return Subscription(
        topic, name, subjects=subjects, where=where, start=start, ordered=ordered, broker_name=broker_name
    )


Source: TypeAlias = Queue | Subscription
Target: TypeAlias = Queue | Topic
