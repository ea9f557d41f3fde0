"""The stand-in's service side: queues with locks, sessions, schedules and dead letters; its management client. See `stub.py`."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._transport._pyamqp_transport import PyamqpTransport

if TYPE_CHECKING:
    from tests.adapters.servicebus.stub import StubNamespace

_log = logging.getLogger("stub")


def amqp_error(condition: str, text: str = "refused") -> Exception:
    return PyamqpTransport._handle_amqp_exception_with_condition(_log, condition.encode(), description=text)


def utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


@dataclass
class Entry:
    payload: bytes
    number: int
    enqueued: float
    expires: float | None
    session: str | None
    count: int = 0
    reason: str | None = None
    description: str | None = None
    token: uuid.UUID | None = None
    until: float = 0.0
    holder: Any = None


@dataclass
class StubQueue:
    """A queue, or a subscription. Every method under the namespace's lock."""

    path: str
    lock_s: float = 30.0
    max_delivery: int = 20
    requires_session: bool = False
    ready: list[Entry] = field(default_factory=list)
    locked: dict[uuid.UUID, Entry] = field(default_factory=dict)
    scheduled: dict[int, tuple[float, Entry]] = field(default_factory=dict)
    deferred: dict[int, Entry] = field(default_factory=dict)
    dead: list[Entry] = field(default_factory=list)
    sessions: dict[str, tuple[Any, float]] = field(default_factory=dict)  # id → receiver, until
    states: dict[str, bytes | None] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    options: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def put(self, payload: bytes, now: float) -> int:
        message = ServiceBusReceivedMessage.from_bytes(payload)
        if self.requires_session and message.session_id is None:
            raise amqp_error("amqp:not-allowed", "the entity requires a session id")
        if self.is_duplicate(message.message_id, now):
            return 0
        ttl, default = message.time_to_live, self.options.get("default_message_time_to_live")
        ttl = min((t for t in (ttl, default) if t), default=None)
        entry = Entry(
            payload, next(self.numbers), now, now + ttl.total_seconds() if ttl else None, message.session_id
        )
        due = message.scheduled_enqueue_time_utc
        if due is not None and due.timestamp() > now:
            self.scheduled[entry.number] = (due.timestamp(), entry)
        else:
            self.ready.append(entry)
        return entry.number

    def is_duplicate(self, message_id: str | None, now: float) -> bool:
        window = self.options.get("duplicate_detection_history_time_window")
        if window is None or message_id is None:
            return False
        seen = self.seen.get(message_id, -1e9)
        self.seen[message_id] = now
        return now - seen < window.total_seconds()

    def tick(self, now: float) -> None:
        for number, (due, entry) in list(self.scheduled.items()):
            if due <= now:
                del self.scheduled[number]
                entry.enqueued = now
                self.ready.append(entry)
        for token, entry in list(self.locked.items()):
            if entry.until <= now:
                self.back(token)
        for entry in [e for e in self.ready if e.expires is not None and e.expires <= now]:
            self.ready.remove(entry)
            self.bury(entry, "TTLExpiredException", "it expired")
        for session, (_, until) in list(self.sessions.items()):
            if until <= now:
                self.drop_session(session)

    def back(self, token: uuid.UUID, *, count: bool = True) -> None:
        entry = self.locked.pop(token)
        entry.token = entry.holder = None
        entry.count += count
        if entry.count >= self.max_delivery:
            self.bury(entry, "MaxDeliveryCountExceeded", "too often")
        else:
            self.ready.append(entry)
            self.ready.sort(key=lambda e: e.number)

    def bury(self, entry: Entry, reason: str | None, description: str | None) -> None:
        entry.reason, entry.description = reason, description
        self.dead.append(entry)

    def drop_session(self, session: str) -> None:
        self.sessions.pop(session, None)
        for token in [token for token, entry in self.locked.items() if entry.session == session]:
            self.back(token)

    def free_session(self) -> str | None:
        return next((e.session for e in self.ready if e.session and e.session not in self.sessions), None)


class StubAdmin:
    """Of the management client, what the adapter calls."""

    def __init__(self, namespace: StubNamespace) -> None:
        self.namespace = namespace

    def _find(self, path: str) -> Any:
        queue = self.namespace.queues.get(path.casefold())
        if queue is None:
            raise ResourceNotFoundError(f"{path} is not there")
        return Properties(queue)

    def _make(self, path: str, options: dict[str, Any]) -> StubQueue:
        if path.casefold() in self.namespace.queues:
            raise ResourceExistsError(f"{path} is there")
        lock = options.get("lock_duration", dt.timedelta(seconds=30))
        made = self.namespace.queue(
            path,
            lock_s=lock.total_seconds(),
            max_delivery=options["max_delivery_count"],
            requires_session=options.get("requires_session", False),
        )
        made.options = options
        return made

    def get_queue(self, name: str) -> Any:
        return self._find(name)

    def create_queue(self, name: str, **options: Any) -> None:
        self._make(name, options)

    def delete_queue(self, name: str) -> None:
        self._find(name)
        del self.namespace.queues[name.casefold()]

    def get_topic(self, name: str) -> Any:
        if name.casefold() not in self.namespace.topics:
            raise ResourceNotFoundError(f"{name} is not there")
        return object()

    def create_topic(self, name: str, **options: Any) -> None:
        self.namespace.topic(name)

    def get_subscription(self, topic: str, name: str) -> Any:
        return self._find(f"{topic}/Subscriptions/{name}")

    def create_subscription(self, topic: str, name: str, **options: Any) -> None:
        self.namespace.topics[topic.casefold()].append(self._make(f"{topic}/Subscriptions/{name}", options))

    def get_queue_runtime_properties(self, name: str) -> Any:
        return self._find(name)

    def get_subscription_runtime_properties(self, topic: str, name: str) -> Any:
        return self._find(f"{topic}/Subscriptions/{name}")

    def close(self) -> None:
        pass


class Properties:
    def __init__(self, queue: StubQueue) -> None:
        queue.tick(time.time())
        self.requires_session = queue.requires_session
        self.max_delivery_count = queue.max_delivery
        self.lock_duration = dt.timedelta(seconds=queue.lock_s)
        self.default_message_time_to_live = queue.options.get("default_message_time_to_live")
        self.requires_duplicate_detection = queue.options.get("requires_duplicate_detection", False)
        self.duplicate_detection_history_time_window = queue.options.get(
            "duplicate_detection_history_time_window"
        )
        self.active_message_count = len(queue.ready) + len(queue.locked)
        self.scheduled_message_count = len(queue.scheduled)
        self.dead_letter_message_count = len(queue.dead)
