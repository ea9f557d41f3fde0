"""Proof 5 on a real broker: 100 cycles of connect, send, receive, close leave no thread, descriptor or task.

`tests/proofs/test_cycles_memory.py` is the same on memory. `UNIMQ_SHORT=1`: 10 cycles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import unimq
from integration.proofs import cycles
from integration.proofs.kit import SHORT, WORLDS, World, within
from integration.sources import Broker
from unimq import Queue

CYCLES = cycles.CYCLES_SHORT if SHORT else cycles.CYCLES
LIMIT_S = 90


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_nothing_is_left(
    world: World, rabbitmq: Broker, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    queue = Queue(unique("cycles"))
    with unimq.connect(rabbitmq.url) as mq:
        mq.declare(queue)
    work = cycles.cycles(world, rabbitmq.url, queue, CYCLES)
    findings, before, after = within(LIMIT_S, f"{world} cycles", lambda: asyncio.run(work))
    figure(f"{CYCLES} {world} cycles on a real broker: before {before}, after {after}")
    assert findings == []
    with unimq.connect(rabbitmq.url) as mq:
        mq.delete(queue)
