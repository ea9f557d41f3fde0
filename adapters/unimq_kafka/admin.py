"""Offsets, numbers and removal, through an AdminClient. Every function blocks, at most `ADMIN_TIMEOUT_S` a request.

Rules
- Futures' dictionaries are never changed before they are complete (then they never would be).
- A group without a commit begins at the earliest, so all that the log holds waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # theirs to export

from .errors import code_of, kafka_error
from .journal import CLEAN

ADMIN_TIMEOUT_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.05
_NO_GROUP: Final = ("GROUP_ID_NOT_FOUND", "_UNKNOWN_GROUP")
_NO_LEADER: Final = (
    "NOT_LEADER_FOR_PARTITION",
    "LEADER_NOT_AVAILABLE",
    "UNKNOWN_TOPIC_OR_PART",
    "UNKNOWN_LEADER_EPOCH",
)


def ends(admin: Any, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    return _offsets(admin, topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def beginnings(admin: Any, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    return _offsets(admin, topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def _offsets(admin: Any, topic: str, partitions: Iterable[int], spec: Any) -> dict[int, int]:
    """Asked again while a partition has no leader that knows it: right after it was made, or while leaders change."""
    numbers = list(partitions)
    if not numbers:
        return {}
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    pause = threading.Event()
    while True:
        asked = {TopicPartition(topic, number): spec for number in numbers}
        answers = admin.list_offsets(asked, request_timeout=ADMIN_TIMEOUT_S)
        try:
            return {one.partition: future.result(ADMIN_TIMEOUT_S).offset for one, future in answers.items()}
        except KafkaException as error:
            inner = kafka_error(error)
            if inner is None or code_of(inner) not in _NO_LEADER or time.monotonic() > deadline:
                raise
        pause.wait(LOOK_AGAIN_S)


def committed(admin: Any, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The commits there are; partitions without one are left out."""
    asked = ConsumerGroupTopicPartitions(
        group, [TopicPartition(topic, partition) for partition in partitions]
    )
    (future,) = admin.list_consumer_group_offsets([asked], request_timeout=ADMIN_TIMEOUT_S).values()
    try:
        found = future.result(ADMIN_TIMEOUT_S).topic_partitions
    except KafkaException as error:
        inner = kafka_error(error)
        if inner is not None and code_of(inner) in _NO_GROUP:
            return {}
        raise
    return {one.partition: one.offset for one in found if one.error is None and one.offset >= 0}


def move(admin: Any, group: str, topic: str, offsets: Mapping[int, int]) -> None:
    """Commit for a group that has no receivers; raises where it has. Nobody died before it."""
    wanted = [TopicPartition(topic, partition, offset, CLEAN) for partition, offset in offsets.items()]
    asked = ConsumerGroupTopicPartitions(group, wanted)
    (future,) = admin.alter_consumer_group_offsets([asked], request_timeout=ADMIN_TIMEOUT_S).values()
    for one in future.result(ADMIN_TIMEOUT_S).topic_partitions:
        if one.error is not None:
            raise KafkaException(one.error)


def lag(admin: Any, topic: str, partitions: Iterable[int], group: str | None) -> int:
    """Messages before the end that the group has not committed (no group: all there are)."""
    numbers = list(partitions)
    last, first = ends(admin, topic, numbers), beginnings(admin, topic, numbers)
    done = committed(admin, group, topic, numbers) if group is not None else {}
    return sum(max(last[number] - max(done.get(number, 0), first[number]), 0) for number in numbers)


def members(admin: Any, group: str) -> int | None:
    """How many receivers the group has; None where nobody says."""
    (future,) = admin.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_S).values()
    try:
        return len(future.result(ADMIN_TIMEOUT_S).members)
    except KafkaException as error:
        inner = kafka_error(error)
        return 0 if inner is not None and code_of(inner) in _NO_GROUP else None


def delete_topic(admin: Any, topic: str) -> None:
    admin.delete_topics([topic], request_timeout=ADMIN_TIMEOUT_S)[topic].result(ADMIN_TIMEOUT_S)


def delete_group(admin: Any, group: str) -> None:
    admin.delete_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_S)[group].result(ADMIN_TIMEOUT_S)
