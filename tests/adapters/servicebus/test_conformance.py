"""The conformance suite through the core, sync and async, on the stub. It goes when there is a broker to run it on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapters.servicebus.stub import StubNamespace
from unimq import registry
from unimq.testing.conformance import Harness, conformance_tests
from unimq_servicebus import ServiceBusAdapter


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    stub = StubNamespace()
    adapter: Any = ServiceBusAdapter(client_factory=stub, admin_factory=stub.admin)
    registry.register(adapter)
    yield Harness(url="sb://root:key@stub.test", patience_s=10.0, quiet_s=0.4, delay_s=0.5, cycles=5)
    registry.unregister(adapter)
    assert stub.violations == []


test_conformance = conformance_tests()
