"""The behaviours that the experimental adapter holds so far, on a real Kafka."""

from __future__ import annotations

import pytest

from integration.conformance._hooks import EXPERIMENTAL, paused_line
from integration.sources import Broker
from unimq.testing.conformance import Harness, conformance_tests


@pytest.fixture(scope="module")
def harness(kafka: Broker) -> Harness:
    native = kafka.native
    return Harness(
        url=kafka.url,
        proxy=None if native is None else (lambda: paused_line(native)),
        patience_s=30.0,
        quiet_s=1.0,
        mismatch=({"partitions": 1}, {"partitions": 2}),
    )


test_conformance = conformance_tests(EXPERIMENTAL)
