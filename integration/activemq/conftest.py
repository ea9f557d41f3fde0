"""The ActiveMQ driver at the seam, on a real Artemis and a real Classic."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration import sources

from .rig import Rig


@pytest.fixture(params=["artemis", "classic"])
def broker(request: pytest.FixtureRequest, real_broker: Callable[[str], sources.Broker]) -> str:
    return real_broker(request.param).url


@pytest.fixture
def rig(broker: str) -> Iterator[Rig]:
    with Rig(broker) as made:
        yield made
