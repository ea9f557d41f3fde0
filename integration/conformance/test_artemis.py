"""The behaviours that the experimental adapter holds so far, on a real ActiveMQ Artemis."""

from __future__ import annotations

import pytest

from integration.conformance._hooks import EXPERIMENTAL
from integration.sources import Broker, host_and_port
from unimq.testing.conformance import Harness, conformance_tests, through_proxy


@pytest.fixture(scope="module")
def harness(artemis: Broker) -> Harness:
    return Harness(
        url=artemis.url,
        proxy=through_proxy(artemis.url, host_and_port(artemis.url)[1]),
        patience_s=30.0,
        quiet_s=1.0,
    )


test_conformance = conformance_tests(EXPERIMENTAL)
