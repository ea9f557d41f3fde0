"""A driver's connection with its links, and completions that a test can wait for, each within a limit."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar
from uuid import uuid4

from unimq.address import Queue, Source, Target
from unimq.delivery import Delivery
from unimq.driver import (
    Ack,
    Batch,
    BatchResult,
    ConnectOptions,
    Copy,
    Event,
    Facts,
    Outcome,
    Place,
    Plan,
    ReceiverOptions,
    SenderOptions,
    SettleResult,
)
from unimq.message import Message
from unimq.retry import Retry
from unimq.topology import Declaration, TopologyReport
from unimq.url import parse
from unimq_kafka import ADAPTER

LIMIT_S = 20.0
LOOK_S = 0.02
E = TypeVar("E")
R = TypeVar("R")


class Rig:
    def __init__(self, url: str, **options: Any) -> None:
        self._events: list[Event] = []
        self._arrived = threading.Condition()
        self.url = url
        self.connection = ADAPTER.connect(parse(url), ConnectOptions(**options), self._sink)
        self._ids = itertools.count()
        self._prefix = uuid4().hex[:8]
        self.on_event: Callable[[Event], None] = lambda event: None

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close(5.0)

    # -- events
    def _sink(self, event: Event) -> None:
        self.on_event(event)
        with self._arrived:
            self._events.append(event)
            self._arrived.notify_all()

    def event(self, kind: type[E], link: object = None, timeout_s: float = LIMIT_S) -> E:
        """The next event of a kind, driving meanwhile."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._arrived:
                for event in self._events:
                    if isinstance(event, kind) and (link is None or getattr(event, "link", None) is link):
                        self._events.remove(event)
                        return event
            self.connection.drive(LOOK_S)
        raise AssertionError(f"no {kind.__name__} within {timeout_s} s; there were {self._events}")

    def has(self, kind: type[object]) -> bool:
        with self._arrived:
            return any(isinstance(event, kind) for event in self._events)

    # -- topology
    def queue(self, unique: Callable[[str], str], word: str = "q", partitions: int = 1) -> Queue:
        queue = Queue(unique(word))
        self.declare(queue, partitions=partitions)
        return queue

    def declare(
        self, address: Source | Target, *, places: Sequence[Place] = (), partitions: int | None = None
    ) -> TopologyReport:
        return self.connection.declare(
            [Declaration(address, partitions=partitions, places=places)], verify_only=False
        )

    def plan(self, source: Source, *delays_s: float) -> Plan:
        return ADAPTER.plan(source, Retry(delayed_s=delays_s or [1.0]), Facts())

    # -- sending
    def sender(self, target: Any) -> Any:
        return self.connection.sender(target, SenderOptions())

    def batch(self, *messages: Message, timeout_s: float = LIMIT_S) -> Batch:
        ids = [message.message_id or f"{self._prefix}-{next(self._ids)}" for message in messages]
        return Batch(
            messages, [message.body for message in messages], None, ids, time.monotonic() + timeout_s
        )

    def send(self, target: Any, *messages: Message | bytes, link: Any = None) -> BatchResult:
        made = [message if isinstance(message, Message) else Message(message) for message in messages]
        done = self.waiter()
        assert (link or self.sender(target)).submit(self.batch(*made), done) == len(made)
        result = done.wait()
        assert result.failures is None, result.failures
        return result

    def forward(self, place: Place, *copies: Copy) -> BatchResult:
        done = self.waiter()
        self.sender(place).forward(copies, done)
        result = done.wait()
        assert result.failures is None, result.failures
        return result

    # -- receiving
    def receiver(self, source: Any, **options: Any) -> Any:
        return self.connection.receiver(source, ReceiverOptions(**options))

    def take(self, link: Any, count: int, timeout_s: float = LIMIT_S) -> list[Delivery]:
        deadline = time.monotonic() + timeout_s
        taken: list[Delivery] = []
        while len(taken) < count:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{len(taken)} of {count} within {timeout_s} s: {[one.body for one in taken]}"
            taken += link.receive(count - len(taken), left_s)
        return taken

    def settle(
        self, link: Any, deliveries: Sequence[Delivery], outcome: Outcome | None = None
    ) -> SettleResult:
        done = self.waiter()
        link.settle(deliveries, outcome or Ack(), done)
        return done.wait()

    def flush(self, link: Any) -> SettleResult:
        done = self.waiter()
        link.flush(done)
        return done.wait()

    def waiter(self) -> Waiter[Any]:
        return Waiter(self.connection.drive)


class Waiter(Generic[R]):
    """A `Done`: called once. Waiting drives the connection."""

    def __init__(self, drive: Callable[[float], None]) -> None:
        self._drive = drive
        self._results: list[R] = []

    def __call__(self, result: R) -> None:
        self._results.append(result)

    @property
    def over(self) -> bool:
        return bool(self._results)

    def wait(self, timeout_s: float = LIMIT_S) -> R:
        deadline = time.monotonic() + timeout_s
        while not self._results:
            assert time.monotonic() < deadline, "no completion"
            self._drive(LOOK_S)
        assert len(self._results) == 1, "completed twice"
        return self._results[0]
