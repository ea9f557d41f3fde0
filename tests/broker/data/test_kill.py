"""The broker is killed under load and loses nothing that it confirmed; a broker with a bug does.

`UNIMQ_SHORT=1`: 3 kills with pika's clients, 2 with unimq's and one of the bugs; `make proofs`: 25, 25 and all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .killing import Process, killed_under_load
from .loads import PikaLoad, UnimqLoad
from .victim import BUGS

SHORT = os.environ.get("UNIMQ_SHORT", "") not in ("", "0")
LIMIT_S = 300
BUG_QUIET_S = 1.0


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(
    ("load", "rounds"), [(PikaLoad, 3 if SHORT else 25), (UnimqLoad, 2 if SHORT else 25)]
)
def test_nothing_that_was_confirmed_is_lost(
    load: type[PikaLoad] | type[UnimqLoad], rounds: int, tmp_path: Path
) -> None:
    outcome = killed_under_load(Process(tmp_path), load(), rounds=rounds, seed=rounds)
    print(f"{load.__name__}: {outcome}")
    assert not outcome.missing, outcome
    assert not outcome.strangers, outcome
    assert outcome.rounds == rounds


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("bug", ["late-commit"] if SHORT else BUGS)
def test_a_bug_is_found(bug: str, tmp_path: Path) -> None:
    outcome = killed_under_load(Process(tmp_path, bug), PikaLoad(), rounds=3, seed=7, quiet_s=BUG_QUIET_S)
    print(f"{bug}: {outcome}")
    assert outcome.missing, f"{bug} was not found: {outcome}"
