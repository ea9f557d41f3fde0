"""The conformance suite: what every adapter is held to. A test file for one is

    from unimq.testing.conformance import Harness, conformance_tests

    @pytest.fixture(scope="module")
    def harness() -> Harness:
        return Harness(url="scheme://localhost")

    test_conformance = conformance_tests()

See `docs/testing.md` for the hooks of a Harness and the table of behaviours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec

from ..harness import Harness, Line, through_proxy
from ._table import (
    BEHAVIOURS,
    EMULATION,
    FAILED,
    KINDS,
    KNOWN,
    NOT_RUN,
    PASS,
    PROBES,
    UNSUPPORTED,
    WORLDS,
    Behaviour,
    Case,
    CaseHung,
    Outcome,
    cases,
    load,
)

__all__ = [
    "BEHAVIOURS", "Behaviour", "Case", "CaseHung", "EMULATION", "FAILED", "Harness", "KINDS", "KNOWN", "Line", "NOT_RUN",
    "Outcome", "PASS", "PROBES", "UNSUPPORTED", "WORLDS", "cases", "load", "conformance_tests", "through_proxy",
]  # fmt: skip


def conformance_tests(
    only: Iterable[int] | None = None, worlds: Iterable[str] = WORLDS
) -> Callable[..., None]:
    """A pytest test with one item per behaviour and world; it asks for a fixture `harness`."""
    import pytest

    # where pytest-timeout is there its own limit must not be the shorter one
    limits = find_spec("pytest_timeout") is not None
    items = [
        pytest.param(
            case, id=str(case), marks=[pytest.mark.timeout(case.behaviour.limit_s * 2 + 30)] if limits else []
        )
        for case in cases(only, worlds)
    ]

    @pytest.mark.parametrize("case", items)
    def test_conformance(
        case: Case, harness: Harness, record_property: Callable[[str, object], None]
    ) -> None:
        record_property("unimq-broker", harness.found)
        record_property("unimq-behaviour", case.behaviour.number)
        record_property("unimq-world", case.world)
        outcome = case.run(harness)
        record_property("unimq-outcome", outcome.kind)
        record_property("unimq-reason", outcome.reason)
        if outcome.kind == KNOWN:
            pytest.xfail(outcome.reason)
        if outcome.kind in (UNSUPPORTED, NOT_RUN):
            pytest.skip(f"{outcome.kind}: {outcome.reason}")

    return test_conformance
