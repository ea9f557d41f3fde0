"""Proof 1 again, on the reference broker in a process of its own: the same exchanges, cut at as many places."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from integration.proofs.test_byte_sweep import (  # noqa: F401 - its fixtures and its test, with another broker
    queue,
    quiet,
    raw,
    test_a_connection_cut_at_any_byte_loses_nothing,
)
from integration.sources import Broker, probe

START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """What stands where the real one stands in `test_byte_sweep`."""
    ready = tmp_path_factory.mktemp("broker") / "ready.json"
    command = [sys.executable, "-m", "unimq", "broker", "--amqp", "0", "--ready-file", str(ready)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            url = _url(process, ready)
            yield Broker("reference broker", url, probe(url), "own process", None, process.terminate)
        finally:
            process.terminate()
            assert process.wait(STOP_LIMIT_S) == 0


def _url(process: subprocess.Popen[bytes], ready: Path) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while not ready.exists():
        assert process.poll() is None, "the broker ended"
        assert time.monotonic() < deadline, f"the broker did not start within {START_LIMIT_S:g} s"
        Event().wait(0.02)
    return str(json.loads(ready.read_text())["amqp"])
