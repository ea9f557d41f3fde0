"""The Kafka driver at the seam, on a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.sources import Broker

from .rig import Rig


@pytest.fixture
def rig(kafka: Broker) -> Iterator[Rig]:
    with Rig(kafka.url) as made:
        yield made
