"""Clients that we did not write, by themselves, on the reference broker. The same scenarios run on a real RabbitMQ in
`integration/foreign`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.broker.foreign.cases import CASES
from unimq import broker


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with broker.run(amqp=0) as running:
        yield running.urls["amqp"]


@pytest.mark.timeout(40)
@pytest.mark.parametrize(("room", "scenario"), CASES)
def test_a_foreign_client(room: Any, scenario: Any, url: str, request: pytest.FixtureRequest) -> None:
    room.run(scenario, url, lambda name: f"{request.node.callspec.id}-{name}")
