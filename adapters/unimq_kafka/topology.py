"""Making and comparing topics, and where a group begins.

Rules
- An option that a topic has not is refused. Partitions and replicas are the broker's defaults where nothing is said.
- Places take the partition count of their source. A dead place keeps its messages for ever (`retention.ms=-1`), a retry place
  for its delay and a week; an existing one that does not is a difference.
- A difference raises `TopologyMismatch`; with `verify_only` it is reported.
- What was made is waited for until its partitions have leaders: a send right after `declare` must work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # theirs to export
    ConfigResource,
    NewTopic,
    ResourceType,
)

from unimq.address import Address, Subscription
from unimq.driver import Place
from unimq.errors import ResourceExhausted, Unsupported
from unimq.topology import Declaration, TopologyReport

from . import admin as offsets
from . import names
from .admin import ADMIN_TIMEOUT_S
from .errors import ADAPTER_NAME, code_of, kafka_error
from .names import TopicRef

READY_TIMEOUT_S: Final = 10.0
READY_LOOK_S: Final = 0.05
BROKER_DEFAULT: Final = -1
KEEP_FOR_EVER: Final = "-1"
NOT_ON_A_TOPIC: Final = ("ttl_s", "max_length", "max_priority", "dedup_window_s", "lock_s")
_log = logging.getLogger("unimq.kafka")

# topic → its partition count, None where it does not exist
Count = Callable[[str], int | None]


@dataclass(slots=True)
class Wanted:
    topic: str
    partitions: int | None
    config: dict[str, str] = field(default_factory=dict)
    # option → whether what is there will do, and how to say what was asked for
    must: Mapping[str, tuple[Callable[[str], bool], str]] = field(default_factory=dict)


def declare(
    admin: Any, count: Count, topology: Sequence[Declaration], group_option: str | None, *, verify_only: bool
) -> TopologyReport:
    report = _Report()
    for declaration in topology:
        refuse_options(declaration)
        address = declaration.address
        source = Wanted(
            names.topic_of(address),
            declaration.partitions,
            {k: str(v) for k, v in declaration.native.items()},
        )
        source.must = {name: (partial(_same, value), value) for name, value in source.config.items()}
        _one(admin, count, source, report, verify_only)
        partitions = count(source.topic)
        report.facts["partitions"] = partitions
        for place in declaration.places:
            ref = place.ref if isinstance(place, Place) else place
            if isinstance(ref, Address):
                _one(admin, count, Wanted(names.topic_of(ref), None), report, verify_only)
            else:
                _one(admin, count, _wanted_place(ref, count(ref.like) or partitions), report, verify_only)
        if isinstance(address, Subscription) and partitions is not None and not verify_only:
            group = names.group_of(address, group_option)
            if group is not None:
                fix_position(admin, group, source.topic, range(partitions), address.start)
    made = TopologyReport(
        tuple(report.created), tuple(report.existing), tuple(report.missing), report.differences, report.facts
    )
    if not verify_only:
        made.raise_for_differences()
    return made


def _same(asked: str, there: str) -> bool:
    return there == asked


class _Report:
    def __init__(self) -> None:
        self.created: list[str] = []
        self.existing: list[str] = []
        self.missing: list[str] = []
        self.differences: dict[str, dict[str, tuple[object, object]]] = {}
        self.facts: dict[str, Any] = {}


def refuse_options(declaration: Declaration) -> None:
    for name in NOT_ON_A_TOPIC:
        if getattr(declaration, name) is not None:
            raise Unsupported(
                f"{declaration.address}: a Kafka topic has no {name}; topic settings go by native={{...}}"
            )


def _wanted_place(ref: TopicRef, partitions: int | None) -> Wanted:
    if ref.dead:
        config = {"retention.ms": KEEP_FOR_EVER, "cleanup.policy": "delete"}
        must = {name: (partial(_same, value), value) for name, value in config.items()}
        return Wanted(ref.topic, partitions, config, must)
    keep_ms = round(((ref.delay_s or 0.0) + names.RETENTION_SLACK_S) * 1000)

    def long_enough(there: str) -> bool:
        return there == KEEP_FOR_EVER or int(there) >= keep_ms

    return Wanted(
        ref.topic,
        partitions,
        {"retention.ms": str(keep_ms), "cleanup.policy": "delete"},
        {"retention.ms": (long_enough, f"at least {keep_ms}")},
    )


def _one(admin: Any, count: Count, wanted: Wanted, report: _Report, verify_only: bool) -> None:
    there = count(wanted.topic)
    if there is None:
        if verify_only:
            report.missing.append(wanted.topic)
            return
        if _create(admin, wanted):
            wait_until_ready(count, wanted.topic)
            report.created.append(wanted.topic)
            return
        there = wait_until_ready(count, wanted.topic)
    report.existing.append(wanted.topic)
    differences: dict[str, tuple[object, object]] = {}
    if wanted.partitions is not None and there < wanted.partitions:
        differences["partitions"] = (there, wanted.partitions)
    if wanted.must:
        found = _config(admin, wanted.topic)
        for option, (will_do, said) in wanted.must.items():
            value = found.get(option)
            if value is None or not will_do(value):
                differences[option] = (value, said)
    if differences:
        report.differences[wanted.topic] = differences
        _log.warning("%s differs from what it should be: %s", wanted.topic, differences)


def _create(admin: Any, wanted: Wanted) -> bool:
    """False where somebody else made it meanwhile."""
    new = NewTopic(
        wanted.topic,
        num_partitions=wanted.partitions if wanted.partitions is not None else BROKER_DEFAULT,
        replication_factor=BROKER_DEFAULT,
        config=wanted.config,
    )
    future = admin.create_topics([new], request_timeout=ADMIN_TIMEOUT_S)[wanted.topic]
    try:
        future.result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        inner = kafka_error(error)
        if inner is not None and code_of(inner) == "TOPIC_ALREADY_EXISTS":
            return False
        raise
    return True


def wait_until_ready(count: Count, topic: str) -> int:
    """Metadata of a new topic reaches the brokers a moment later; there is nothing to wait on but looking."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    pause = threading.Event()
    while (found := count(topic)) is None:
        if time.monotonic() > deadline:
            raise ResourceExhausted(
                f"the topic {topic} was made, but has no leaders after {READY_TIMEOUT_S:g} s",
                adapter=ADAPTER_NAME,
            )
        pause.wait(READY_LOOK_S)
    return found


def _config(admin: Any, topic: str) -> dict[str, str]:
    (future,) = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, topic)], request_timeout=ADMIN_TIMEOUT_S
    ).values()
    return {name: entry.value for name, entry in future.result(ADMIN_TIMEOUT_S).items()}


def fix_position(admin: Any, group: str, topic: str, partitions: range, start: str) -> dict[int, int]:
    """A group without any commit begins where the end is now: commit that. Where it cannot be committed from outside (the
    group has receivers, or the right is missing) the answer is what to begin at: the assignment commits it."""
    if start == "earliest":
        return {}
    # before anything else: what is sent from here on is received
    now = offsets.ends(admin, topic, partitions)
    if offsets.committed(admin, group, topic, partitions):
        return {}
    try:
        offsets.move(admin, group, topic, now)
    except KafkaException as error:
        _log.info("group %s: its beginning is committed at the assignment: %s", group, error)
        return now
    return {}
