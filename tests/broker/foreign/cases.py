"""Every client with every scenario: the parameters of the tests, on whichever broker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.foreign import with_aio_pika, with_kombu, with_py_amqp

CLIENTS: dict[str, Any] = {"aio-pika": with_aio_pika, "kombu": with_kombu, "py-amqp": with_py_amqp}
CASES = [
    pytest.param(room, scenario, id=f"{client}-{scenario.__name__}")
    for client, room in CLIENTS.items()
    for scenario in room.SCENARIOS
]
