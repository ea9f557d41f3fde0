"""Fixtures of the proofs. Each proof prints its figures with `figure`, whatever pytest captures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration.sources import Broker, host_and_port
from unimq.testing.proxy import FaultProxy


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n  proof: {text}", flush=True)

    return show


@pytest.fixture
def proxied(rabbitmq: Broker) -> Iterator[FaultProxy]:
    with FaultProxy(*host_and_port(rabbitmq.url)) as proxy:
        yield proxy
