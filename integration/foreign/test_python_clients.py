"""The scenarios of `tests/broker/foreign` on a real RabbitMQ: what they assert is what RabbitMQ does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from integration.sources import Broker
from tests.broker.foreign.cases import CASES


@pytest.mark.parametrize(("room", "scenario"), CASES)
def test_a_foreign_client(room: Any, scenario: Any, rabbitmq: Broker, unique: Callable[[str], str]) -> None:
    prefix = unique("foreign")
    room.run(scenario, rabbitmq.url, lambda name: f"{prefix}-{name}")
