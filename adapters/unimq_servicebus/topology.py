"""Making and comparing entities through the library's management client.

Rules
- Nothing is changed that exists: what differs is a `TopologyMismatch`, and with `verify_only` a line of the report.
- What is created is created with what the design asks for: dead letters for what expires, 20 deliveries as the broker's
  backstop, sessions where the address is ordered.
- Two makers at once are one: "exists already" is a success.
- An option that Service Bus lacks is `Unsupported` before anything is made.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from unimq.address import Queue, Subscription
from unimq.errors import Unsupported
from unimq.topology import Declaration, TopologyReport

from . import names
from .names import Entity

MAX_DELIVERY_COUNT: Final = 20
LOCK_MAX_S: Final = 300.0
NATIVE: Final = frozenset(
    {
        "auto_delete_on_idle", "enable_batched_operations", "enable_express", "enable_partitioning",
        "forward_dead_lettered_messages_to", "max_delivery_count", "max_message_size_in_kilobytes",
        "max_size_in_megabytes", "user_metadata",
    }
)  # fmt: skip


@dataclass(slots=True)
class Found:
    created: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    differences: dict[str, dict[str, tuple[object, object]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def declare(admin: Any, topology: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
    wanted = [
        (declaration, _options(declaration)) for declaration in topology
    ]  # refuses before anything is made
    found = Found()
    for declaration, options in wanted:
        for entity, asked in _entities(declaration, options):
            _one(admin, entity, asked, found, verify_only)
    report = TopologyReport(found.created, found.existing, found.missing, found.differences, found.facts)
    if not verify_only:
        report.raise_for_differences()
    return report


def _options(declaration: Declaration) -> dict[str, Any]:
    for name in ("partitions", "max_length", "max_priority"):
        if getattr(declaration, name) is not None:
            raise Unsupported(f"{name}: Service Bus has no such option", adapter="servicebus")
    address = declaration.address
    if isinstance(address, Subscription) and (
        address.subjects or address.where or declaration.replace_filters
    ):
        raise Unsupported("filters are not built yet on Service Bus", adapter="servicebus")
    if isinstance(address, Subscription) and address.start == "earliest":
        raise Unsupported('start="earliest": Service Bus keeps no log', adapter="servicebus")
    if unknown := sorted(set(declaration.native) - NATIVE):
        raise Unsupported(
            f"native: Service Bus has no {', '.join(unknown)}; known: {', '.join(sorted(NATIVE))}",
            adapter="servicebus",
        )
    options: dict[str, Any] = {}
    if declaration.lock_s is not None:
        if not 0 < declaration.lock_s <= LOCK_MAX_S:
            raise Unsupported(f"lock_s: more than 0, at most {LOCK_MAX_S:g}", adapter="servicebus")
        options["lock_duration"] = dt.timedelta(seconds=declaration.lock_s)
    if declaration.ttl_s is not None:
        options["default_message_time_to_live"] = dt.timedelta(seconds=declaration.ttl_s)
    if declaration.dedup_window_s is not None:
        options["requires_duplicate_detection"] = True
        options["duplicate_detection_history_time_window"] = dt.timedelta(seconds=declaration.dedup_window_s)
    return {**options, **declaration.native}


_OF_A_TOPIC: Final = frozenset(
    {
        "default_message_time_to_live", "requires_duplicate_detection", "duplicate_detection_history_time_window",
        "auto_delete_on_idle", "enable_batched_operations", "enable_express", "enable_partitioning",
        "max_message_size_in_kilobytes", "max_size_in_megabytes", "user_metadata",
    }
)  # fmt: skip
_NOT_OF_A_SUBSCRIPTION: Final = frozenset(
    {
        "requires_duplicate_detection", "duplicate_detection_history_time_window", "enable_express",
        "enable_partitioning", "max_message_size_in_kilobytes", "max_size_in_megabytes",
    }
)  # fmt: skip


def _entities(declaration: Declaration, options: dict[str, Any]) -> list[tuple[Entity, dict[str, Any]]]:
    address = declaration.address
    entity = names.entity_of(address)
    sessions = {"requires_session": True} if entity.sessions else {}
    if isinstance(address, Queue):
        wanted = [(entity, {**options, **sessions})]
    elif isinstance(address, Subscription):
        of_topic = {name: value for name, value in options.items() if name in _NOT_OF_A_SUBSCRIPTION}
        of_subscription = {
            name: value for name, value in options.items() if name not in _NOT_OF_A_SUBSCRIPTION
        }
        wanted = [
            (names.topic_entity(address.topic), of_topic),
            (entity, {**of_subscription, **sessions}),
        ]
    else:
        if refused := sorted(set(options) - _OF_A_TOPIC):
            raise Unsupported(f"a topic has no {', '.join(refused)}", adapter="servicebus")
        wanted = [(entity, options)]
    for given in declaration.places:
        place = names.entity_of(given)
        if not place.dead and place.key != entity.key:  # those two are there already
            wanted.append((place, {"requires_session": True} if place.sessions else {}))
    return wanted


def _one(admin: Any, entity: Entity, asked: Mapping[str, Any], found: Found, verify_only: bool) -> None:
    there = _get(admin, entity)
    if there is None and verify_only:
        found.missing.append(entity.path)
        return
    if there is None:
        try:
            _create(admin, entity, asked)
            found.created.append(entity.path)
            return
        except ResourceExistsError:
            there = _get(admin, entity)
    found.existing.append(entity.path)
    differences = {
        name: (getattr(there, name, None), value)
        for name, value in asked.items()
        if getattr(there, name, None) != value
    }
    if differences:
        found.differences[entity.path] = differences
    if entity.kind != "topic" and there is not None:
        found.facts.setdefault("requires_session", there.requires_session)
        found.facts.setdefault("max_delivery_count", there.max_delivery_count)


def _get(admin: Any, entity: Entity) -> Any:
    try:
        if entity.kind == "queue":
            return admin.get_queue(entity.name)
        if entity.kind == "topic":
            return admin.get_topic(entity.name)
        return admin.get_subscription(entity.name, entity.subscription)
    except ResourceNotFoundError:
        return None


def _create(admin: Any, entity: Entity, asked: Mapping[str, Any]) -> None:
    if entity.kind == "topic":
        admin.create_topic(entity.name, **asked)
        return
    options = {
        "dead_lettering_on_message_expiration": True,
        "max_delivery_count": MAX_DELIVERY_COUNT,
        **asked,
    }
    if entity.kind == "queue":
        admin.create_queue(entity.name, **options)
    else:
        admin.create_subscription(entity.name, entity.subscription, **options)
