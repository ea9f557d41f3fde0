from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .kit import Lives


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    made = Lives(tmp_path / "data")
    yield made
    made.now.store.close()
