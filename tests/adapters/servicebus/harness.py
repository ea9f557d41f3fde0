"""A connection on the stub, and the callbacks of the seam as something a test can wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.adapters.servicebus.stub import StubNamespace
from unimq.driver import (
    Batch,
    BatchResult,
    ConnectOptions,
    Copy,
    Delivery,
    Outcome,
    ReceiverOptions,
    SenderOptions,
    SettleResult,
)
from unimq.message import Message
from unimq.url import parse
from unimq_servicebus.adapter import ServiceBusAdapter

WAIT_S = 10.0
KEY = "c2VjcmV0LW1hcmtlZC1rZXk="
URL = f"Endpoint=sb://unit.test;SharedAccessKeyName=root;SharedAccessKey={KEY}"


class Answer:
    """A `Done` to wait for; called twice fails the test."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.result: Any = None
        self.calls = 0
        self.at = 0.0

    def __call__(self, result: Any) -> None:
        self.calls += 1
        self.result = result
        self.at = time.monotonic()
        self._event.set()

    def wait(self, timeout_s: float = WAIT_S) -> Any:
        assert self._event.wait(timeout_s), "no completion"
        assert self.calls == 1
        return self.result


class World:
    def __init__(self) -> None:
        self.stub = StubNamespace()
        self.adapter = ServiceBusAdapter(client_factory=self.stub, admin_factory=self.stub.admin)
        self.events: list[Any] = []
        self._changed = threading.Condition()
        self.connection = self.connect()

    def connect(self) -> Any:
        return self.adapter.connect(parse(URL), ConnectOptions(), self._sink)

    def _sink(self, event: Any) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def event(self, kind: type, timeout_s: float = WAIT_S) -> Any:
        with self._changed:
            found = self._changed.wait_for(
                lambda: next((e for e in self.events if isinstance(e, kind)), None), timeout_s
            )
        assert found, f"no {kind.__name__} in {self.events}"
        return found

    def sender(self, target: Any, **options: Any) -> Any:
        return self.connection.sender(target, SenderOptions(**options))

    def receiver(self, source: Any, **options: Any) -> Any:
        return self.connection.receiver(source, ReceiverOptions(**options))


@contextmanager
def world() -> Iterator[World]:
    made = World()
    yield made
    made.connection.close(WAIT_S)
    assert made.stub.violations == []
    assert [t.name for t in threading.enumerate() if t.name.startswith("unimq-sb")] == []


def batch(messages: Sequence[Message | bytes], *, timeout_s: float = 5.0, prefix: str = "id") -> Batch:
    every = [m if isinstance(m, Message) else Message(m) for m in messages]
    return Batch(
        every,
        [m.body for m in every],
        None,
        [m.message_id or f"{prefix}-{n}" for n, m in enumerate(every)],
        time.monotonic() + timeout_s,
    )


def send(link: Any, *messages: Message | bytes, timeout_s: float = 5.0, prefix: str = "id") -> BatchResult:
    done = Answer()
    assert link.submit(batch(messages, timeout_s=timeout_s, prefix=prefix), done) == len(messages)
    result: BatchResult = done.wait()
    return result


def sent(link: Any, *messages: Message | bytes, prefix: str = "id") -> None:
    assert send(link, *messages, prefix=prefix).failures is None


def take(link: Any, count: int, *, timeout_s: float = WAIT_S) -> list[Delivery]:
    """`count` deliveries, in as many receives as it needs."""
    end = time.monotonic() + timeout_s
    found: list[Delivery] = []
    while len(found) < count:
        left = end - time.monotonic()
        assert left > 0, f"{len(found)} of {count}"
        found += link.receive(count - len(found), left)
    return found


def settle(link: Any, deliveries: Sequence[Delivery], outcome: Outcome) -> SettleResult:
    done = Answer()
    link.settle(deliveries, outcome, done)
    result: SettleResult = done.wait()
    return result


def settled(link: Any, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
    assert list(settle(link, deliveries, outcome).lost) == []


def flush(link: Any) -> SettleResult:
    done = Answer()
    link.flush(done)
    result: SettleResult = done.wait()
    return result


def forward(link: Any, *copies: Copy) -> BatchResult:
    done = Answer()
    link.forward(copies, done)
    result: BatchResult = done.wait()
    return result


def until(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """For what has no event: what the stub's service holds."""
    end = time.monotonic() + timeout_s
    gate = threading.Event()
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, "it did not come true"
        gate.wait(0.01)
