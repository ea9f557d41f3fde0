"""A fresh broker and a line to it, at the seam."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

import unimq_memory
from unimq.driver import ConnectOptions, Event
from unimq.url import parse
from unimq_memory.connection import MemoryConnection


class Line:
    """A connection with the events it was told."""

    def __init__(self, name: str) -> None:
        self.events: list[Event] = []
        options = ConnectOptions(connect_timeout_s=0.2)
        self.connection: MemoryConnection = unimq_memory.ADAPTER.connect(
            parse(f"memory://{name}"), options, self.events.append
        )


@pytest.fixture
def broker() -> Iterator[unimq_memory.MemoryBroker]:
    name = f"seam-{secrets.token_hex(4)}"
    yield unimq_memory.broker(name)
    unimq_memory.reset(name)


@pytest.fixture
def line(broker: unimq_memory.MemoryBroker) -> Line:
    return Line(broker.name)
