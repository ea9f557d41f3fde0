"""A stand-in for the client classes of azure-servicebus, as facts about the library say they behave.

It goes when there is a broker. Rules
- Messages go through the library's own encoder and decoder, and come out as its own ServiceBusReceivedMessage: what the wire
  does to types happens here too. Errors are the library's own, made as it makes them, from AMQP conditions.
- Every link notices two threads in it at once: `StubNamespace.violations` must be empty at the end of a test.
- A closed link keeps its locks until they expire; a session gives its messages back.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusMessageBatch,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
)
from azure.servicebus._common.utils import transform_outbound_messages
from azure.servicebus._pyamqp._decode import decode_payload
from azure.servicebus._transport._pyamqp_transport import PyamqpTransport
from azure.servicebus.amqp import AmqpMessageHeader
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    OperationTimeoutError,
    ServiceBusConnectionError,
    SessionLockLostError,
)

from tests.adapters.servicebus.stub_broker import Entry, StubAdmin, StubQueue, amqp_error, utc

__all__ = ["StubNamespace", "amqp_error"]

FURTHER_PULL_S = 0.2  # receive_messages goes on for so long after the first
BATCH_MAX_BYTES = 256 * 1024


class StubNamespace:
    """The service, and the hooks that make it fail."""

    def __init__(self) -> None:
        self.cond = threading.Condition()
        self.queues: dict[str, StubQueue] = {}
        self.topics: dict[str, list[StubQueue]] = {}
        self.violations: list[str] = []
        self.links: list[StubLink] = []
        self.calls: list[tuple[str, float]] = []
        self.lose_next_confirm = False
        self.refuse_next_sends: list[Exception] = []
        self.slow_s = 0.0
        self.max_message_bytes = BATCH_MAX_BYTES
        self.made_with: list[tuple[Any, dict[str, Any]]] = []

    # -- what the adapter is given
    def __call__(self, fully_qualified_namespace: str, credential: Any, **options: Any) -> StubClient:
        self.made_with.append(((fully_qualified_namespace, credential), options))
        return StubClient(self)

    def from_connection_string(self, conn_str: str, **options: Any) -> StubClient:
        self.made_with.append((conn_str, options))
        return StubClient(self)

    def admin(self, endpoint: Any, options: Any) -> StubAdmin:
        return StubAdmin(self)

    # -- set up, look, break
    def queue(self, name: str, **options: Any) -> StubQueue:
        return self.queues.setdefault(name.casefold(), StubQueue(name, **options))

    def topic(self, name: str, *subscriptions: str, **options: Any) -> None:
        for subscription in subscriptions:
            path = f"{name}/Subscriptions/{subscription}"
            self.topics.setdefault(name.casefold(), []).append(self.queue(path, **options))
        self.topics.setdefault(name.casefold(), [])

    def cut(self) -> None:
        """Every link there is loses its connection."""
        with self.cond:
            for link in self.links:
                link.broken = True
            self.cond.notify_all()

    def lose_locks(self, name: str) -> None:
        with self.cond:
            queue = self.queues[name.casefold()]
            for token in list(queue.locked):
                queue.back(token)
            self.cond.notify_all()

    def lose_session(self, name: str, session: str) -> None:
        with self.cond:
            self.queues[name.casefold()].drop_session(session)
            self.cond.notify_all()


class StubClient:
    def __init__(self, namespace: StubNamespace) -> None:
        self.namespace = namespace

    def get_queue_sender(self, queue_name: str, **_: Any) -> StubSender:
        return StubSender(self.namespace, queue_name)

    def get_topic_sender(self, topic_name: str, **_: Any) -> StubSender:
        return StubSender(self.namespace, topic_name)

    def get_queue_receiver(self, queue_name: str, **options: Any) -> StubReceiver:
        return StubReceiver(self.namespace, queue_name, **options)

    def get_subscription_receiver(
        self, topic_name: str, subscription_name: str, **options: Any
    ) -> StubReceiver:
        return StubReceiver(self.namespace, f"{topic_name}/Subscriptions/{subscription_name}", **options)

    def close(self) -> None:
        pass


class StubLink:
    def __init__(self, namespace: StubNamespace, path: str) -> None:
        self.namespace = namespace
        self.path = path
        self.broken = False
        self.closed = False
        self.opened = False
        self._inside = threading.Lock()
        namespace.links.append(self)

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """One thread at a time, as the library demands; then the namespace's lock."""
        if not self._inside.acquire(blocking=False):
            self.namespace.violations.append(f"{self.path}: {what} while another thread is in the link")
            raise AssertionError(self.namespace.violations[-1])
        try:
            if self.closed:
                raise ValueError(
                    "The handler has already been shutdown. Please use ServiceBusClient to create a new"
                )
            if self.namespace.slow_s:
                threading.Event().wait(self.namespace.slow_s)
            with self.namespace.cond:
                self.namespace.calls.append((what, time.monotonic()))
                self.check()
                yield
        finally:
            self._inside.release()

    def check(self) -> None:
        if self.broken:
            raise ServiceBusConnectionError(message="the connection is gone", condition=b"amqp:socket-error")

    def wait(self, until: float, ready: Callable[[], bool]) -> bool:
        """Under the lock. The service's own clock moves things meanwhile."""
        while True:
            self.check()
            if ready():
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.namespace.cond.wait(min(left, 0.02))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._inside.acquire(blocking=False):
            self.namespace.violations.append(f"{self.path}: close while another thread is in the link")
            raise AssertionError(self.namespace.violations[-1])
        try:
            with self.namespace.cond:
                if not self.closed:
                    self.closed = True
                    self.on_close()
                    self.namespace.cond.notify_all()
        finally:
            self._inside.release()

    def on_close(self) -> None:
        pass


class StubSender(StubLink):
    def __enter__(self) -> StubSender:
        with self.alone("open"):
            self.targets()
            self.opened = True
        return self

    def targets(self) -> list[StubQueue]:
        key = self.path.casefold()
        if key in self.namespace.topics:
            return self.namespace.topics[key]
        if key in self.namespace.queues:
            return [self.namespace.queues[key]]
        raise amqp_error("amqp:not-found", f"the messaging entity {self.path} could not be found")

    def create_message_batch(self) -> ServiceBusMessageBatch:
        return ServiceBusMessageBatch(max_size_in_bytes=BATCH_MAX_BYTES)

    def send_messages(self, message: Any, *, timeout: float | None = None) -> None:
        with self.alone("send"):
            namespace = self.namespace
            if isinstance(message, ServiceBusMessageBatch):
                payloads = [bytes(part) for part in message._message[5]]
            else:
                payloads = [encode(part) for part in (message if isinstance(message, list) else [message])]
            if namespace.refuse_next_sends:
                raise namespace.refuse_next_sends.pop(0)
            if any(len(payload) > namespace.max_message_bytes for payload in payloads):
                raise amqp_error("amqp:link:message-size-exceeded", "the message is too large")
            self.store(payloads)
            if namespace.lose_next_confirm:
                namespace.lose_next_confirm = False
                self.wait(time.monotonic() + (timeout or 60.0), lambda: False)
                raise OperationTimeoutError(message="Send operation timed out")

    def schedule_messages(
        self, messages: Any, when: dt.datetime, *, timeout: float | None = None
    ) -> list[int]:
        with self.alone("schedule"):
            every = messages if isinstance(messages, list) else [messages]
            for message in every:
                message.scheduled_enqueue_time_utc = when
            return self.store([encode(message) for message in every])

    def cancel_scheduled_messages(self, numbers: int | list[int], *, timeout: float | None = None) -> None:
        with self.alone("cancel"):
            for number in [numbers] if isinstance(numbers, int) else numbers:
                if not any(queue.scheduled.pop(number, None) for queue in self.targets()):
                    raise amqp_error("com.microsoft:message-not-found", "no such message")

    def store(self, payloads: list[bytes]) -> list[int]:
        now = time.time()
        numbers = [max([queue.put(payload, now) for queue in self.targets()] or [0]) for payload in payloads]
        self.namespace.cond.notify_all()
        return numbers


def encode(message: Any) -> bytes:
    made = transform_outbound_messages(message, ServiceBusMessage, PyamqpTransport.to_outgoing_amqp_message)
    return bytes(PyamqpTransport.encode_message(made))


class StubSession:
    def __init__(self, receiver: StubReceiver, session_id: str) -> None:
        self._receiver = receiver
        self.session_id = session_id
        self.locked_until_utc: dt.datetime | None = None

    def renew_lock(self, *, timeout: float | None = None) -> dt.datetime:
        with self._receiver.alone("renew session"):
            self._receiver.check_session()
            return self.extend()

    def extend(self) -> dt.datetime:
        until = time.time() + self._receiver.queue.lock_s
        self._receiver.queue.sessions[self.session_id] = (self._receiver, until)
        for entry in self._receiver.queue.locked.values():
            if entry.session == self.session_id:
                entry.until = until
        self.locked_until_utc = utc(until)
        return self.locked_until_utc

    def get_state(self, *, timeout: float | None = None) -> bytes | None:
        with self._receiver.alone("get state"):
            self._receiver.check_session()
            return self._receiver.queue.states.get(self.session_id)

    def set_state(self, state: bytes | None, *, timeout: float | None = None) -> None:
        with self._receiver.alone("set state"):
            self._receiver.check_session()
            self._receiver.queue.states[self.session_id] = state


class StubReceiver(StubLink):
    def __init__(
        self,
        namespace: StubNamespace,
        path: str,
        *,
        session_id: Any = None,
        sub_queue: Any = None,
        receive_mode: Any = ServiceBusReceiveMode.PEEK_LOCK,
        max_wait_time: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(namespace, path)
        assert not (session_id and sub_queue), "the library refuses both"
        self.wanted, self.in_dead, self.mode, self.max_wait = (
            session_id,
            sub_queue is not None,
            receive_mode,
            max_wait_time,
        )
        self.session: StubSession | None = None
        self.queue: StubQueue

    def __enter__(self) -> StubReceiver:
        with self.alone("open"):
            if self.path.casefold() not in self.namespace.queues:
                raise amqp_error("amqp:not-found", f"the messaging entity {self.path} could not be found")
            self.queue = self.namespace.queues[self.path.casefold()]
            if not self.in_dead and self.queue.requires_session != (self.wanted is not None):
                raise amqp_error(
                    "amqp:not-allowed", "sessions are wanted where there are none, or the other way"
                )
            if self.wanted is not None:
                self.accept()
            self.opened = True
        return self

    def accept(self) -> None:
        queue = self.queue
        if self.wanted is NEXT_AVAILABLE_SESSION:
            until = time.monotonic() + (self.max_wait or 65.0)
            found: list[str] = []

            def free() -> bool:
                queue.tick(time.time())
                found[:] = [s for s in [queue.free_session()] if s is not None]
                return bool(found)

            if not self.wait(until, free):
                raise OperationTimeoutError(message="no session", condition=b"com.microsoft:timeout")
            session = found[0]
        else:
            queue.tick(time.time())
            session = self.wanted
            if session in queue.sessions:
                raise amqp_error("com.microsoft:session-cannot-be-locked", "somebody has it")
        self.session = StubSession(self, session)
        self.session.extend()

    def check_session(self) -> None:
        if self.session is None:
            return
        self.queue.tick(time.time())
        holder = self.queue.sessions.get(self.session.session_id)
        if holder is None or holder[0] is not self:
            raise SessionLockLostError()

    @property
    def source(self) -> list[Entry]:
        return self.queue.dead if self.in_dead else self.queue.ready

    def mine(self) -> list[Entry]:
        self.check_session()
        self.queue.tick(time.time())
        if self.session is None:
            return self.source
        return [entry for entry in self.source if entry.session == self.session.session_id]

    def receive_messages(
        self, max_message_count: int | None = 1, max_wait_time: float | None = None
    ) -> list[ServiceBusReceivedMessage]:
        assert max_message_count, "with prefetch 0 the library returns [] at once, without looking"
        with self.alone("receive"):
            end = time.monotonic() + (max_wait_time or 60.0)
            if not self.wait(end, lambda: bool(self.mine())):
                return []
            self.wait(
                min(time.monotonic() + FURTHER_PULL_S, end), lambda: len(self.mine()) >= max_message_count
            )
            return [self.hand_out(entry) for entry in self.mine()[:max_message_count]]

    def hand_out(self, entry: Entry, *, take: bool = True) -> ServiceBusReceivedMessage:
        peek_lock = self.mode == ServiceBusReceiveMode.PEEK_LOCK
        if take:
            self.source.remove(entry)
            if peek_lock:
                entry.token, entry.holder = uuid.uuid4(), self
                entry.until = time.time() + self.queue.lock_s
                self.queue.locked[entry.token] = entry
        received = ServiceBusReceivedMessage(
            decode_payload(memoryview(entry.payload)),
            receive_mode=self.mode,
            lock_token=entry.token,
            receiver=self,
        )
        raw = received.raw_amqp_message
        raw.header = raw.header or AmqpMessageHeader()
        raw.header.delivery_count = entry.count
        raw.annotations = raw.annotations or {}
        raw.annotations[b"x-opt-sequence-number"] = entry.number
        raw.annotations[b"x-opt-enqueued-time"] = int(entry.enqueued * 1000)
        if take and peek_lock:
            raw.annotations[b"x-opt-locked-until"] = int(entry.until * 1000)
        if entry.reason is not None:
            raw.application_properties = raw.application_properties or {}
            raw.application_properties[b"DeadLetterReason"] = entry.reason.encode()
            raw.application_properties[b"DeadLetterErrorDescription"] = (entry.description or "").encode()
        return received

    def peek_messages(
        self, max_message_count: int = 1, *, sequence_number: int = 0, timeout: float | None = None
    ) -> list[ServiceBusReceivedMessage]:
        with self.alone("peek"):
            self.queue.tick(time.time())
            there = [*self.source, *([] if self.in_dead else self.queue.locked.values())]
            there = sorted((e for e in there if e.number >= sequence_number), key=lambda e: e.number)
            return [self.hand_out(entry, take=False) for entry in there[:max_message_count]]

    def receive_deferred_messages(self, sequence_numbers: Any, *, timeout: float | None = None) -> list[Any]:
        with self.alone("receive deferred"):
            if any(number not in self.queue.deferred for number in sequence_numbers):
                raise amqp_error("com.microsoft:message-not-found", "no such deferred message")
            entries = [self.queue.deferred.pop(number) for number in sequence_numbers]
            self.queue.ready.extend(entries)
            return [self.hand_out(entry) for entry in entries]

    # -- settling
    @contextmanager
    def settling(self, message: ServiceBusReceivedMessage, what: str) -> Iterator[Entry]:
        with self.alone(what):
            if message._settled:
                raise MessageAlreadySettled(action=what)
            self.check_session()
            if self.session is None and message._lock_expired:
                raise MessageLockLostError()
            self.queue.tick(time.time())
            entry = self.queue.locked.pop(message.lock_token, None)
            if entry is None:
                raise amqp_error("com.microsoft:message-lock-lost", "the lock is lost")
            yield entry
            message._settled = True
            self.namespace.cond.notify_all()

    def complete_message(self, message: ServiceBusReceivedMessage) -> None:
        with self.settling(message, "complete"):
            pass

    def abandon_message(self, message: ServiceBusReceivedMessage) -> None:
        with self.settling(message, "abandon") as entry:
            self.queue.locked[entry.token] = entry
            self.queue.back(entry.token)

    def dead_letter_message(
        self, message: Any, reason: str | None = None, error_description: str | None = None
    ) -> None:
        with self.settling(message, "dead-letter") as entry:
            self.queue.bury(entry, reason, error_description)

    def defer_message(self, message: ServiceBusReceivedMessage) -> None:
        with self.settling(message, "defer") as entry:
            self.queue.deferred[entry.number] = entry

    def renew_message_lock(
        self, message: ServiceBusReceivedMessage, *, timeout: float | None = None
    ) -> dt.datetime:
        with self.alone("renew"):
            self.queue.tick(time.time())
            entry = self.queue.locked.get(message.lock_token)
            if entry is None:
                raise amqp_error("com.microsoft:message-lock-lost", "the lock is lost")
            entry.until = time.time() + self.queue.lock_s
            message._expiry = utc(entry.until)
            return message._expiry

    def on_close(self) -> None:
        if self.session is not None:
            holder = self.queue.sessions.get(self.session.session_id)
            if holder is not None and holder[0] is self:
                self.queue.drop_session(self.session.session_id)
