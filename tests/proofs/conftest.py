"""Fixtures of the proofs that need no broker but the one in memory."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest


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
def url(unique: Callable[[str], str]) -> str:
    return f"memory://{unique('proof')}"
