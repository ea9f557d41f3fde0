"""The engine stays pure: what it may import, and how long a room may be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import unimq.broker.engine

ROOMS = sorted(Path(unimq.broker.engine.__file__).parent.glob("**/*.py"))
IMPURE = {
    "asyncio",
    "concurrent",
    "datetime",
    "io",
    "os",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.stem)
def test_engine_imports_nothing_that_does_io_or_knows_the_time(room: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(room.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, f"{room.name} reaches out of the engine"
    assert not imported & IMPURE


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.stem)
def test_engine_rooms_stay_small(room: Path) -> None:
    assert len(room.read_text().splitlines()) < 400
