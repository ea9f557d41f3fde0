"""What the engine's tests share: a queue on a clock that the test moves, and messages by number."""

from __future__ import annotations

from typing import Any

from unimq.broker.engine import Engine, Entry, ManualClock, QueueCore, QueueOptions, Stored, make_stored


def engine(max_bytes: int = 10_000_000) -> tuple[Engine, ManualClock]:
    clock = ManualClock()
    return Engine(clock, seed=1, max_bytes=max_bytes), clock


def queue(**options: Any) -> tuple[QueueCore, ManualClock]:
    made, clock = engine()
    return declared(made, "q", **options), clock


def declared(on: Engine, name: str, **options: Any) -> QueueCore:
    made = on.declare_queue(name, QueueOptions(**options))
    assert isinstance(made, QueueCore)
    return made


def message(number: int | str = 0, **fields: Any) -> Stored:
    return make_stored(str(number).encode(), **fields)


def put(into: QueueCore, *numbers: int | str, **fields: Any) -> list[Entry]:
    made = [into.put(message(number, **fields)) for number in numbers]
    assert all(isinstance(entry, Entry) for entry in made)
    return made  # type: ignore[return-value]


def bodies(entries: list[Entry]) -> str:
    return " ".join((entry.stored.body or b"").decode() for entry in entries)
