"""TLS, certificates, passwords, tokens through `unimq.connect`; a real RabbitMQ has the same cases in `integration/rabbitmq`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from integration.rabbitmq.security import Cases
from integration.rabbitmq.sites import ReferenceSite, Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ReferenceSite(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def unique() -> Callable[[str], str]:
    return lambda prefix: f"{prefix}-{uuid4().hex[:12]}"


@pytest.fixture
def figure() -> Callable[[str], None]:
    return lambda text: None


class TestSecurity(Cases):
    pass
