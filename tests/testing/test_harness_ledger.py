"""The ledger: what it counts, what it prints, when it fails."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

from unimq.testing.conformance import EMULATION, FAILED, KNOWN, NOT_RUN, PASS, UNSUPPORTED
from unimq.testing.ledger import Cell, differing, table


def cell(number: int, outcome: str, world: str = "sync", reason: str = "") -> Cell:
    return Cell("Test 1.0", world, number, f"behaviour_{number}", outcome, reason, 0.1)


def test_the_table() -> None:
    out = io.StringIO()
    kinds = (PASS, EMULATION, UNSUPPORTED, KNOWN, NOT_RUN, FAILED)
    table([cell(number, kind, reason=f"why {number}") for number, kind in enumerate(kinds, 1)], out)
    text = out.getvalue()
    for number, sign in enumerate("+e-k.F", 1):
        assert any(
            line.startswith(f"  {number} behaviour_{number}") and line.endswith(sign)
            for line in text.splitlines()
        ), text
    assert "known difference: Test 1.0, sync, 4 behaviour_4: why 4" in text
    assert "failed: Test 1.0, sync, 6 behaviour_6: why 6" in text
    assert (
        "Test 1.0, sync: 1 pass, 1 emulated, 1 unsupported, 1 known difference, 1 not run, 1 failed" in text
    )


BROKEN = """
import pytest
from unimq.testing.conformance import Harness, conformance_tests

@pytest.fixture
def harness():
    return Harness(url="memory://ledger-test", known={3: "a made-up one"}, patience_s=2.0)

test_conformance = conformance_tests([1, 3, 10], ["sync"])
"""


def test_the_ledger_of_a_test_file(tmp_path: Path) -> None:
    """Behaviour 3 holds though it is said to differ: that is a failure, and the exit says so."""
    file, written = tmp_path / "test_own.py", tmp_path / "ledger.json"
    file.write_text(BROKEN)
    command = [sys.executable, "-m", "unimq.testing.ledger", "--json", str(written), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {each["number"]: each["outcome"] for each in json.loads(written.read_text())["cells"]}
    assert found == {1: PASS, 3: FAILED, 10: NOT_RUN}
    assert "3 cells, 1 failed" in done.stdout


def test_the_ledger_of_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("def test_nothing():\n    pass\n")
    command = [sys.executable, "-m", "unimq.testing.ledger", str(tmp_path / "test_none.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert "0 cells" in done.stdout


def test_the_cells_that_differ_are_named() -> None:
    columns = [("A", "sync"), ("B", "sync")]
    mine, other = cell(1, PASS), cell(2, PASS)
    cells = [
        dataclasses.replace(each, broker=broker, outcome=outcome)
        for each, broker, outcome in (
            (mine, "A", PASS), (mine, "B", UNSUPPORTED), (other, "A", PASS), (other, "B", PASS)
        )
    ]  # fmt: skip
    assert differing(cells, columns) == ["differs: 1 behaviour_1: pass [1], unsupported [2]"]


def test_a_broker_that_is_not_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "test_absent.py"
    file.write_text(
        BROKEN + '\n\n@pytest.fixture(autouse=True)\ndef absent():\n    pytest.skip("no such broker here")\n'
    )
    command = [sys.executable, "-m", "unimq.testing.ledger", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "left out: test_absent.py: no such broker here (3 cases)" in done.stdout, done.stdout
