"""Fixtures of the worker's proofs: the broker under the proof, ours or a real RabbitMQ, and how figures are shown."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.proofs.conftest import figure as figure
from integration.proofs.kit import SHORT
from integration.sources import Broker
from integration.worker.kit import until

BROKERS = ("ours", "rabbitmq")
STOP_S = 10.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers fail by the thousand here; each written down with its stack would cost more than what is measured."""
    caplog.set_level(logging.ERROR, "unimq.worker")


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a reference broker in a process of its own."""
    ready = tmp_path_factory.mktemp("ours") / "ready.json"
    command = [sys.executable, "-m", "unimq", "broker", "--amqp", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: ready.exists() or process.poll() is not None, "the reference broker is there")
        yield json.loads(Path(ready).read_text("utf-8"))["amqp"]
    finally:
        process.terminate()
        process.wait(STOP_S)


@pytest.fixture(params=BROKERS)
def either(request: pytest.FixtureRequest, real_broker: Callable[[str], Broker]) -> str:
    """The URL of the broker under the proof, in the short form too."""
    return str(request.getfixturevalue("ours")) if request.param == "ours" else real_broker(request.param).url


@pytest.fixture(params=["rabbitmq"] if SHORT else BROKERS)
def url(request: pytest.FixtureRequest, real_broker: Callable[[str], Broker]) -> str:
    """The same; in the short form the real one only."""
    return str(request.getfixturevalue("ours")) if request.param == "ours" else real_broker(request.param).url
