"""The whole conformance suite on the in-process broker, with every hook it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import unimq_memory
from unimq.testing.conformance import Harness, Line, conformance_tests

NAME = "conformance"


class MemoryLine:
    """Cut, refuse and silence, as the in-process broker does them: for all its clients."""

    def __init__(self, broker: unimq_memory.MemoryBroker) -> None:
        self._broker = broker

    def url(self, url: str) -> str:
        return url

    def cut(self) -> None:
        self._broker.drop_connections()

    def cut_after(self, *, client_bytes: int | None = None, live: bool = False) -> None:
        """Bytes there are none; in the middle of the next batch is what is meant."""
        self._broker.drop_in_next_batch()

    def silence(self) -> None:
        self._broker.pause()

    def refuse(self) -> None:
        self._broker.refuse()

    def heal(self) -> None:
        self._broker.refuse(False)
        self._broker.resume()


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    broker = unimq_memory.broker(NAME)
    yield from _harness(broker)
    unimq_memory.reset(NAME)


def _harness(broker: unimq_memory.MemoryBroker) -> Iterator[Harness]:

    @contextmanager
    def proxy() -> Iterator[Line]:
        line = MemoryLine(broker)
        try:
            yield line
        finally:
            line.heal()

    yield Harness(
        url=f"memory://{NAME}",
        clock=broker.clock,
        proxy=proxy,
        restart=broker.restart,
        break_link=lambda client, receiver: broker.kill_links("receiver"),
        places=broker.places,
        patience_s=5.0,
        quiet_s=0.05,
    )


test_conformance = conformance_tests()
