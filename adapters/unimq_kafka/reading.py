"""What a receiver reads, from an address and its options: the topic, the group, where it begins, the places beside it.

Rules
- A queue begins at the earliest; a subscription where its group is, else where `start` says, and that is fixed here.
- Without a group (a private subscription, `browse`) partitions are assigned and nothing is ever committed. Browsing begins
  where the group stands, so it shows what waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from confluent_kafka import KafkaException

from unimq.address import Address, Queue, Source, Subscription, Target
from unimq.broker.engine.matcher import Filter
from unimq.driver import Place, ReceiverOptions
from unimq.errors import NotFound, Unsupported

from . import admin, names, topology
from .errors import ADAPTER_NAME
from .names import TopicRef

DISCOVER_TIMEOUT_S: Final = 1.0  # on a receiver's own thread: it must go on polling
OPEN_TIMEOUT_S: Final = 10.0
REFRESH_S: Final = 30.0
REFRESH_AGAIN_S: Final = 1.0
MISSING_MAX: Final = 3  # looks at a topic that is not there before it is believed
_log = logging.getLogger("unimq.kafka")
# (topic, source, timeout_s) → whether the topic is there, and the retry places of its group that exist
PlacesOf: TypeAlias = Callable[[str, Source, float], tuple[bool, list[Place]]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a receiver reads. `group` None: partitions assigned from `begin`, nothing is committed. `places`: the retry
    places among the topics of the cluster (None = look at nothing else). `latest`: where a group without any commit
    begins, per partition, where that could not be committed before."""

    topic: str
    group: str | None
    place: Place | None = None
    also_read: Sequence[Place] = ()
    begin: dict[int, int] = field(default_factory=dict)
    latest: dict[int, int] = field(default_factory=dict)
    places: Callable[[], tuple[bool, list[Place]]] | None = None
    wanted: Filter | None = None
    incremental: bool = True
    prefetch_bytes: int = 64 * 1024 * 1024


class Watch:
    """Looks for retry places that came or went, and whether the topic is still there. On the receiver's own thread."""

    def __init__(self, reading: Reading) -> None:
        self.places: dict[str, Place | None] = {reading.topic: reading.place}
        self.places |= {place.ref.topic: place for place in reading.also_read}
        self._reading = reading
        self._next = time.monotonic() + REFRESH_S
        self._missing = 0

    def soon(self) -> None:
        """A place was made. Any thread."""
        self._next = 0.0

    def again(self) -> None:
        self._next = min(self._next, time.monotonic() + REFRESH_AGAIN_S)

    def changed(self) -> bool:
        """Whether `places` are others than before. Raises `NotFound` once the topic is believed to be gone."""
        now = time.monotonic()
        reading = self._reading
        if now < self._next:
            return False
        self._next = now + REFRESH_S
        if reading.places is None:
            return False
        try:
            there, found = reading.places()
        except KafkaException as error:
            _log.info("the retry places of %s could not be looked for: %s", reading.topic, error)
            self.again()
            return False
        if not there:
            self._missing += 1
            if self._missing >= MISSING_MAX:
                raise NotFound(
                    f"the topic {reading.topic} is gone: mq.declare(...) makes it", adapter=ADAPTER_NAME
                )
            self.again()
            return False
        self._missing = 0
        places: dict[str, Place | None] = {reading.topic: reading.place}
        places |= {place.ref.topic: place for place in found}
        if places.keys() == self.places.keys():
            return False
        self.places = places
        return True


def plan_reading(
    source: Source | Place,
    options: ReceiverOptions,
    *,
    topic: str,
    partitions: range,
    group_option: str | None,
    admin_client: Any,
    places_of: PlacesOf,
    incremental: bool,
) -> Reading:
    """Asks the broker where to begin. Blocks."""
    ref = source.ref if isinstance(source, Place) else source
    group = ref.group if isinstance(ref, TopicRef) else names.group_of(ref, group_option)
    start = ref.start if isinstance(ref, Subscription) else "earliest"
    wanted = None
    if isinstance(ref, Subscription) and (ref.subjects or ref.where):
        wanted = Filter(tuple(ref.subjects), ref.where)
    begin: dict[int, int] = {}
    latest: dict[int, int] = {}
    if options.mode == "browse" or group is None:
        begin = _where_to_begin(admin_client, topic, partitions, group, start)
        group = None
    else:
        latest = topology.fix_position(admin_client, group, topic, partitions, start)
    also: list[Place] = []
    places = None
    if group is not None and isinstance(ref, Queue | Subscription):
        places = partial(places_of, topic, ref, DISCOVER_TIMEOUT_S)
        also = places_of(topic, ref, OPEN_TIMEOUT_S)[1]
    return Reading(
        topic,
        group,
        also_read=also,
        begin=begin,
        latest=latest,
        places=places,
        wanted=wanted,
        incremental=incremental,
        prefetch_bytes=options.prefetch_bytes,
    )


def _where_to_begin(
    admin_client: Any, topic: str, partitions: range, group: str | None, start: str
) -> dict[int, int]:
    if group is None and start == "latest":
        return admin.ends(admin_client, topic, partitions)
    begin = admin.beginnings(admin_client, topic, partitions)
    if group is not None:
        done = admin.committed(admin_client, group, topic, partitions)
        begin = {number: max(first, done.get(number, 0)) for number, first in begin.items()}
    return begin


def topic_of(place: Source | Target | Place) -> str:
    ref = place.ref if isinstance(place, Place) else place
    if isinstance(ref, TopicRef):
        return ref.topic
    if isinstance(ref, Address):
        return names.topic_of(ref)
    raise Unsupported(f"{place!r} is not a place that Kafka has")
