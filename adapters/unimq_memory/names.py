"""Addresses → names of the engine's queues (§5.1). Pure.

Rules
- Every name of 1 to 1,024 characters is accepted as it is: `Queue(q)` is the queue q, `Topic(t)` the topic t.
- A subscription's queue is `<t>.<s>`. In these parts the joint `.` and the mark `%` are escaped, and so is a part that is
  `dlq` alone, so that no subscription is somebody's dead-letter place: the map is one to one.
- The dead-letter place of a queue is `<queue>.dlq`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from unimq.address import Address, Queue, Source, Subscription, Topic
from unimq.broker.engine.limits import MAX_NAME_CHARS
from unimq.driver import Place
from unimq.errors import Unsupported

DEAD_SUFFIX: Final = ".dlq"
PRIVATE_PREFIX: Final = "unimq.private."
_ESCAPED: Final = re.compile(r"%(25|2E|64)")


@dataclass(frozen=True, slots=True)
class QueueRef:
    """A place's `ref`: a queue of the engine. `dead_of`: the queue whose dead letters lie here."""

    name: str
    dead_of: str | None = None


class NameTooLong(Unsupported, ValueError):
    """The engine's names have a limit."""


def checked(name: str) -> str:
    if len(name) > MAX_NAME_CHARS:
        raise NameTooLong(
            f"the name {name[:40]!r}… has {len(name)} characters, at most {MAX_NAME_CHARS} are taken"
        )
    return name


def part(name: str) -> str:
    """A user's name as a part of a composed one."""
    if name == "dlq":
        return "%64lq"
    return name.replace("%", "%25").replace(".", "%2E")


def unpart(text: str) -> str:
    """The inverse of `part`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def queue_of(source: Source) -> str:
    """The queue that a Queue or a named Subscription is."""
    if source.broker_name is not None:
        return checked(source.broker_name)
    if isinstance(source, Queue):
        return checked(source.name)
    if source.name is None:
        raise ValueError("a subscription without a name has no queue until it is opened")
    return checked(f"{part(source.topic.name)}.{part(source.name)}")


def topic_of(topic: Topic) -> str:
    return checked(topic.name)


def dead_of(queue: str) -> str:
    return checked(queue + DEAD_SUFFIX)


def is_private(source: Address) -> bool:
    return isinstance(source, Subscription) and source.name is None and source.broker_name is None


def source_place(source: Source) -> Place:
    queue = queue_of(source)
    return Place(QueueRef(queue), queue)


def dead_place(source: Source) -> Place:
    queue = queue_of(source)
    dead = dead_of(queue)
    return Place(QueueRef(dead, dead_of=queue), dead)


def queue_of_place(place: Place) -> str:
    """The queue behind a place: our own ref, a user's address (`dead_letter=Queue(...)`), or a name, verbatim."""
    ref = place.ref
    if isinstance(ref, QueueRef):
        return ref.name
    if isinstance(ref, Queue | Subscription):
        return queue_of(ref)
    if isinstance(ref, str) and ref:
        return checked(ref)
    raise ValueError(f"{place} is not a place of the memory broker")
