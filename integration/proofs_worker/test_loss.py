"""Proof 1: workers are killed every 2 s and cut off at random; every message is handled or dead, the dead those that had to die.

    make proofs-worker ARGS='-k loss'      # 5,000 messages, 10 seeds, on ours and on RabbitMQ, quorum and classic
    UNIMQ_LOSS_SEEDS=3 UNIMQ_LOSS_MESSAGES=5000 python -m pytest integration/proofs_worker/test_loss.py

One seed: `-k quorum-3`. `UNIMQ_SHORT=1`: 150 messages, one killer, one seed, a quorum queue.
Proof 8, below: with a bug planted in the workers it is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.proofs.kit import SHORT
from integration.proofs_worker import bugs
from integration.proofs_worker.loss import Proof, limit_s

MESSAGES = int(os.environ.get("UNIMQ_LOSS_MESSAGES") or (150 if SHORT else 5_000))
SEEDS = range(int(os.environ.get("UNIMQ_LOSS_SEEDS") or (1 if SHORT else 10)))
KILLERS = 1 if SHORT else 3
KINDS = ("quorum",) if SHORT else ("quorum", "classic")
BUGS = ("ack_before_the_copy", "crashes_not_counted") if SHORT else tuple(bugs.PLANT)
STALL_WITH_A_BUG_S = 8.0
MESSAGES_WITH_A_BUG = 200 if SHORT else 400
TRIES_WITH_A_BUG = 4  # seeds until it must have been found
WAY_WITH_A_BUG_S = 0.01
WORD = {  # what the finding says
    "ack_before_the_copy": "is lost",
    "copy_dropped_on_a_cut": "is lost",
    "crashes_not_counted": "workers died by themselves",
    "suspects_not_alone": "is innocent, and dead as",
}


@pytest.mark.timeout(limit_s(MESSAGES) + 60)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_no_innocent_dies(
    either: str, unique: Callable[[str], str], tmp_path: Path, kind: str, seed: int, figure: Callable[[str], None],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    proof = Proof(either, unique(f"loss-{kind}"), tmp_path, seed=seed, count=MESSAGES, killers=KILLERS)
    try:
        report = proof.run(quorum=kind == "quorum")
    finally:
        proof.clean()
    figure(f"loss, {request.node.name}: {report}")
    assert not report.wrong, str(report)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_the_loss_proof_can_fail(
    ours: str, unique: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, bug: str,
    figure: Callable[[str], None],
) -> None:  # fmt: skip
    found: list[str] = []
    for seed in range(TRIES_WITH_A_BUG):
        folder = tmp_path_factory.mktemp(bug)
        proof = Proof(
            ours, unique("seeded"), folder, seed=seed, count=MESSAGES_WITH_A_BUG, killers=1, bug=bug,
            stall_s=STALL_WITH_A_BUG_S, delay_s=WAY_WITH_A_BUG_S,
        )  # fmt: skip
        try:
            report = proof.run(quorum=True)
        finally:
            proof.clean()
        found = [text for text in report.wrong if WORD[bug] in text]
        if found:
            figure(f"planted {bug}: found with seed {seed} after {report.took_s:.0f} s: {found[0]}")
            return
    pytest.fail(f"{bug} was not found: {report}")
