"""The suite on the broker at a URL: what `python -m unimq.testing.ledger --url URL` runs.

The harness has no hooks but what the adapter itself offers by `Adapter.harness(url)`; an adapter's own test file has more.
"""

from __future__ import annotations

from typing import Any

from ... import registry
from ...url import scheme_of
from ..harness import Harness
from . import conformance_tests

test_conformance = conformance_tests()


def harness_of(url: str) -> Harness:
    """The adapter's own harness for `url` where it has one, else a plain one."""
    make: Any = getattr(registry.find(scheme_of(url)), "harness", None)
    if callable(make):
        made = make(url)
        assert isinstance(made, Harness)
        return made
    return Harness(url=url)


def pytest_generate_tests(metafunc: Any) -> None:
    """One set of items per URL."""
    if "harness" in metafunc.fixturenames:
        urls = metafunc.config.getoption("--unimq-conformance-url")
        metafunc.parametrize(
            "harness", [harness_of(url) for url in urls], ids=[f"broker{n}" for n in range(len(urls))]
        )
