"""A driver's connection with its links, and completions that a test can wait for, each within a limit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from unimq.driver import (
    ALL_SETTLED,
    Ack,
    Batch,
    BatchResult,
    ConnectOptions,
    Copy,
    Event,
    Lost,
    Outcome,
    ReceiverOptions,
    SenderOptions,
    SettleResult,
)
from unimq.message import Message
from unimq.url import parse
from unimq_activemq import ADAPTER

LIMIT_S = 15.0
R = TypeVar("R")


class Rig:
    def __init__(self, url: str, **options: Any) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.url = url
        self.connection = ADAPTER.connect(parse(url), ConnectOptions(**options), self.events.put)
        self._ids = 0

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close(5.0)

    @property
    def flavour(self) -> str:
        return self.connection.facts.flavour

    def sender(self, target: Any) -> Any:
        return self.connection.sender(target, SenderOptions())

    def receiver(self, source: Any, **options: Any) -> Any:
        return self.connection.receiver(source, ReceiverOptions(**options))

    def batch(self, *messages: Message, timeout_s: float = LIMIT_S) -> Batch:
        first, self._ids = self._ids, self._ids + len(messages)
        ids = [message.message_id or f"{id(self):x}-{first + n}" for n, message in enumerate(messages)]
        return Batch(
            messages, [message.body for message in messages], None, ids, time.monotonic() + timeout_s
        )

    def send(self, target: Any, *messages: Message | bytes, link: Any = None) -> BatchResult:
        made = [message if isinstance(message, Message) else Message(message) for message in messages]
        link = link or self.sender(target)
        done: Waiter[BatchResult] = Waiter()
        assert link.submit(self.batch(*made), done) == len(made)
        return done.wait()

    def forward(self, place: Any, *copies: Copy) -> BatchResult:
        done: Waiter[BatchResult] = Waiter()
        self.sender(place).forward(copies, done)
        return done.wait()

    def lost(self) -> BaseException:
        deadline = time.monotonic() + LIMIT_S
        while True:
            event = self.events.get(timeout=max(deadline - time.monotonic(), 0.01))
            if isinstance(event, Lost):
                assert event.link is None
                return event.error


class Waiter(Generic[R]):
    """A `Done`: called once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._result: list[R] = []

    def __call__(self, result: R) -> None:
        self._result.append(result)
        self._event.set()

    def wait(self, timeout_s: float = LIMIT_S) -> R:
        assert self._event.wait(timeout_s), "no completion"
        assert len(self._result) == 1, "completed twice"
        return self._result[0]

    @property
    def done(self) -> bool:
        return self._event.is_set()


def take(link: Any, count: int, timeout_s: float = LIMIT_S) -> list[Any]:
    """Exactly `count` deliveries."""
    deadline = time.monotonic() + timeout_s
    got: list[Any] = []
    while len(got) < count and (left := deadline - time.monotonic()) > 0:
        got += link.receive(count - len(got), left)
    assert len(got) == count, f"{len(got)} of {count} came"
    return got


def settle(link: Any, deliveries: Sequence[Any], outcome: Outcome | None = None) -> SettleResult:
    done: Waiter[SettleResult] = Waiter()
    link.settle(deliveries, outcome or Ack(), done)
    return done.wait()


def ack(link: Any, deliveries: Sequence[Any]) -> None:
    assert settle(link, deliveries) is ALL_SETTLED


def bodies(deliveries: Sequence[Any]) -> list[bytes | None]:
    return [delivery.body for delivery in deliveries]


def copy_of(delivery: Any, number: int, **headers: Any) -> Copy:
    origin = delivery.metadata.message_id or str(delivery.position)
    delay_s = headers.pop("delay_s", None)
    named = {"unimq-" + name.replace("_", "-"): value for name, value in headers.items()}
    return Copy(
        delivery,
        f"{origin}#{number}",
        {"unimq-message-id": origin, "unimq-copies": number, **named},
        delay_s=delay_s,
    )
