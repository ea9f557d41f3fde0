"""Workers killed every 2 s: every message is handled or dead, the dead are exactly those that had to die.

The short form, 500 messages. `UNIMQ_LOSS_MESSAGES` and `UNIMQ_LOSS_SEEDS` make it longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.proofs_worker.loss import LIMIT_S, Proof
from integration.proofs_worker.victim import PREFETCH
from integration.sources import Broker

MESSAGES = int(os.environ.get("UNIMQ_LOSS_MESSAGES", "500"))
SEEDS = range(int(os.environ.get("UNIMQ_LOSS_SEEDS", "1")))


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_nothing_is_lost_and_no_innocent_dies(
    rabbitmq: Broker, unique: Callable[[str], str], tmp_path: Path, kind: str, seed: int
) -> None:
    queue = unique(f"loss-{kind}")
    proof = Proof(rabbitmq.url, queue, tmp_path, seed=seed, count=MESSAGES, prefetch=PREFETCH)
    try:
        report = proof.run(quorum=kind == "quorum")
    finally:
        proof.clean()
    print(report)
    assert not report.wrong, str(report)
