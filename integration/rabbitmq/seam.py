"""The driver at its seam, for tests: waiting callbacks, batches, links. Every wait has a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from unimq import Message
from unimq.address import Source
from unimq.delivery import Delivery
from unimq.driver import Ack, Batch, Connection, ConnectOptions, Event, Outcome
from unimq.topology import Declaration
from unimq.url import parse
from unimq_rabbitmq import ADAPTER

PATIENCE_S = 20.0


class Result:
    """A `Done` that can be waited for."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.calls = 0
        self.value: Any = None

    def __call__(self, value: Any) -> None:
        self.calls += 1
        self.value = value
        self._event.set()

    def get(self, timeout_s: float = PATIENCE_S) -> Any:
        assert self._event.wait(timeout_s), "it was never done"
        assert self.calls == 1, "done more than once"
        return self.value

    @property
    def done(self) -> bool:
        return self._event.is_set()


class Events(list[Event]):
    """A sink."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.append(event)
            self._changed.notify_all()

    def wait(self, kind: type[Any], timeout_s: float = PATIENCE_S) -> Any:
        def found() -> Any:
            return next((event for event in self if isinstance(event, kind)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, timeout_s), (
                f"no {kind.__name__}: {list(self)}"
            )
            return found()


def connect(url: str, events: Callable[[Event], None] | None = None, **options: Any) -> Connection:
    return ADAPTER.connect(parse(url), ConnectOptions(**options), events if events is not None else Events())


def declare(connection: Connection, address: Any, **options: Any) -> Any:
    return connection.declare([Declaration(address, **options)], verify_only=False)


def batch(
    bodies: Sequence[bytes], *, ids: bool = True, deadline_s: float = PATIENCE_S, **fields: Any
) -> Batch:
    messages = [Message(body, **fields) for body in bodies]
    names = [f"id-{time.monotonic_ns()}-{i}" for i in range(len(bodies))] if ids else None
    return Batch(messages, list(bodies), None, names, time.monotonic() + deadline_s)


def send(link: Any, bodies: Sequence[bytes], **options: Any) -> Any:
    """Submit all, wait, return the BatchResult."""
    result = Result()
    assert link.submit(batch(bodies, **options), result) == len(bodies)
    return result.get()


def take(link: Any, count: int, timeout_s: float = PATIENCE_S) -> list[Delivery]:
    """Exactly `count`."""
    deadline = time.monotonic() + timeout_s
    taken: list[Delivery] = []
    while len(taken) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(taken)} of {count} came"
        taken.extend(link.receive(count - len(taken), left))
    return taken


def settle(link: Any, deliveries: Sequence[Delivery], outcome: Outcome | None = None) -> Any:
    result = Result()
    link.settle(deliveries, outcome or Ack(), result)
    return result.get()


def depth(connection: Any, source: Source, wanted: int, timeout_s: float = PATIENCE_S) -> int:
    """The depth, waiting until it is `wanted`: requeueing is the broker's own business."""
    deadline = time.monotonic() + timeout_s
    while (found := connection.stats(source).depth) != wanted and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    return int(found)
