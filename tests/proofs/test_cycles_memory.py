"""Proof 5 on memory: 100 cycles of connect, send, receive, close leave no thread, descriptor or task.

`UNIMQ_SHORT=1`: 10 cycles. The last test shows that the proof can fail: a client that is not closed is found.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import unimq
from integration.proofs import cycles
from integration.proofs.kit import ASYNC, SHORT, SYNC, WORLDS, World, now, within
from unimq import Queue

CYCLES = cycles.CYCLES_SHORT if SHORT else cycles.CYCLES
LIMIT_S = 60
QUEUE = Queue("cycles")


@pytest.fixture
def there(url: str) -> str:
    with unimq.connect(url) as mq:
        mq.declare(QUEUE)
    return url


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_nothing_is_left(world: World, there: str, figure: Callable[[str], None]) -> None:
    work = cycles.cycles(world, there, QUEUE, CYCLES)
    findings, before, after = within(LIMIT_S, f"{world} cycles", lambda: asyncio.run(work))
    figure(f"{CYCLES} {world} cycles on memory: before {before}, after {after}")
    assert findings == []


@pytest.mark.parametrize("world", [SYNC, ASYNC], ids=str)
def test_a_client_that_is_not_closed_is_found(
    world: World, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycles, "SETTLE_S", 0.1)
    kept: list[Any] = []

    async def leaking(world: World, url: str, queue: Queue, number: int) -> Any:
        done = await cycles.cycle(world, url, queue, number)
        kept.append(await now(world.connect(url)))
        return weakref.ref(kept[-1]) if number % 2 else done

    async def work() -> list[str]:
        findings, _, _ = await cycles.cycles(world, there, QUEUE, 6, leaking)
        for mq in kept:
            await now(mq.close())
        return findings

    findings = within(LIMIT_S, "leak", lambda: asyncio.run(work()))
    assert any("still referenced" in text for text in findings), findings
