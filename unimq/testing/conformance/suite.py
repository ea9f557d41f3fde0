"""The suite on the broker at a URL: what `python -m unimq.testing.ledger --url URL` runs.

The harness has no hooks but the clock of an in-process broker; an adapter's own test file has more.
"""

from __future__ import annotations

from typing import Any

from ... import registry
from ...url import scheme_of
from ..harness import Harness
from . import conformance_tests

test_conformance = conformance_tests()


def harness_of(url: str) -> Harness:
    """With the clock, where the adapter's brokers are in this process (`Adapter.broker(url)`); else a plain one."""
    inside: Any = getattr(registry.find(scheme_of(url)), "broker", None)
    if callable(inside):
        broker = inside(url)
        return Harness(url=url, clock=broker.clock, places=broker.places, quiet_s=0.05)
    return Harness(url=url)


def pytest_generate_tests(metafunc: Any) -> None:
    """One set of items per URL."""
    if "harness" in metafunc.fixturenames:
        urls = metafunc.config.getoption("--unimq-conformance-url")
        metafunc.parametrize(
            "harness", [harness_of(url) for url in urls], ids=[f"broker{n}" for n in range(len(urls))]
        )
