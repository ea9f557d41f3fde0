"""Fixtures of the proofs that need no broker but the one in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from unimq.testing import reset


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n  proof: {text}", flush=True)

    return show


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A name that no other test has."""
    return lambda prefix: f"{prefix}-{uuid4().hex[:12]}"


@pytest.fixture
def url(unique: Callable[[str], str]) -> Iterator[str]:
    """A broker in memory of the test's own, which ends with it (its clock would live as long as the process)."""
    url = f"memory://{unique('proof')}"
    yield url
    reset(url)
