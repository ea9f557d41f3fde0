"""Figures are printed with `figure`, whatever pytest captures. `real_site` is one RabbitMQ for all that is about logins."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration.native import RabbitMQ
from integration.rabbitmq.sites import RealSite
from integration.sources import Broker, host_and_port


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="", flush=True)

    return show


@pytest.fixture(scope="session")
def real_site(
    rabbitmq: Broker, tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]
) -> Iterator[RealSite]:
    if reason := RabbitMQ.available():
        missing("rabbitmq", reason)
    with RealSite(tmp_path_factory.mktemp("site"), host_and_port(rabbitmq.url)[1]) as real:
        yield real
