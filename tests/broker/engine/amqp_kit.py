"""What the tests of a virtual host share: one on a clock that the test moves, and a consumer that writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from unimq.broker.engine import Engine, Entry, ManualClock
from unimq.broker.engine.amqpqueue import AmqpQueue
from unimq.broker.engine.dialect import DIALECT_3, Dialect
from unimq.broker.engine.errors import AmqpError
from unimq.broker.engine.publication import prepared, publication
from unimq.broker.engine.vhost import Routed, VHost
from unimq.wire.amqp091.properties import make_properties


def vhost(dialect: Dialect = DIALECT_3, max_bytes: int = 10_000_000) -> tuple[VHost, ManualClock]:
    clock = ManualClock()
    return VHost(Engine(clock, seed=1, max_bytes=max_bytes), dialect=dialect), clock


def send(to: VHost, key: str, body: str | bytes = b"m", exchange: str = "", **properties: Any) -> Routed:
    sent = publication(exchange, key, make_properties(**properties).raw)
    raw = body.encode() if isinstance(body, str) else body
    return to.publish(exchange, key, prepared(sent, raw, "guest"))


def queue(
    on: VHost, name: str = "q", arguments: Mapping[str, Any] | None = None, **options: Any
) -> AmqpQueue:
    return on.declare_queue(name, arguments=arguments or {}, **options)


def quorum(on: VHost, name: str = "q", **arguments: Any) -> AmqpQueue:
    """Underscores in names are dashes, and x- is added."""
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return on.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum", **named})


def drained(on: VHost, name: str = "q") -> list[str]:
    """Bodies of all that is ready, taken out."""
    found = []
    while (got := on.get(name, "drain", no_ack=True)) is not None:
        found.append((got[1].stored.body or b"").decode())
    return found


def taken(on: VHost, name: str = "q", owner: object = "owner") -> Entry:
    got = on.get(name, owner)
    assert got is not None, f"{name} is empty"
    return got[1]


def headers(entry: Entry) -> Mapping[str, Any]:
    return entry.stored.meta.properties.headers  # type: ignore[no-any-return]


class Reader:
    """A consumer. `room_for` is what it still takes; acknowledging is the test's."""

    def __init__(
        self, tag: str = "c", room_for: int = 1_000, *, no_ack: bool = False, exclusive: bool = False
    ) -> None:
        self.tag = tag
        self.owner = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.room_for = room_for
        self.entries: list[Entry] = []
        self.settled = 0
        self.was_cancelled = False

    @property
    def unacked(self) -> int:
        return 0 if self.no_ack else len(self.entries) - self.settled

    def room(self) -> int:
        return self.room_for

    def deliver(self, queue: AmqpQueue, entries: Sequence[Entry]) -> None:
        assert len(entries) <= self.room_for
        if not self.no_ack:
            self.room_for -= len(entries)
        self.entries += entries

    def cancelled(self) -> None:
        self.was_cancelled = True

    @property
    def bodies(self) -> str:
        return " ".join((entry.stored.body or b"").decode() for entry in self.entries)


class Refused:
    """`with refused(406, "...")`: this error, word for word."""

    def __init__(self, code: int, text: str) -> None:
        self._code, self._text = code, text

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, _trace: Any) -> bool:
        if kind is None:
            pytest.fail(f"not refused with {self._code}")
        if not isinstance(error, AmqpError):
            return False
        assert (error.code, error.text) == (self._code, self._text)
        return True


refused = Refused
