"""Proof 4 on memory: 8 threads and 200 tasks on one client; all confirmed once, there once, each sender's in order.

100,000 messages each; `UNIMQ_SHORT=1`: 5,000. The second half shows that the proof can fail: a link that loses, doubles or
overtakes is found.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

import unimq
from integration.proofs import crowd
from integration.proofs.kit import SHORT, within
from unimq import Queue
from unimq.driver import ALL_WELL
from unimq_memory.sender import MemorySender

MESSAGES = crowd.MESSAGES_SHORT if SHORT else crowd.MESSAGES
SEEDED_MESSAGES = 4_000
LIMIT_S = 120
RECEIVE_TIMEOUT_S = 0.3


def drained(mq: Any, queue: Queue) -> list[bytes]:
    bodies: list[bytes] = []
    with mq.receiver(queue, prefetch=2_000) as receiver:
        while taken := receiver.receive(2_000, RECEIVE_TIMEOUT_S):
            bodies += [delivery.body for delivery in taken]
            receiver.ack(taken)
    return bodies


def proof(kind: str, url: str, messages: int) -> tuple[list[str], int, float]:
    """Findings, how many were confirmed, how long it took."""
    queue = Queue("crowd")
    started = time.monotonic()
    with unimq.connect(url) as mq:
        mq.declare(queue)
        if kind == "threads":
            tally, senders = within(LIMIT_S, kind, lambda: crowd.threads(mq, queue, messages)), crowd.THREADS
        else:

            async def work() -> crowd.Tally:
                async with unimq.connect_async(url) as there:
                    return await crowd.tasks(there, queue, messages)

            tally, senders = within(LIMIT_S, kind, lambda: asyncio.run(work())), crowd.TASKS
        took_s = time.monotonic() - started
        return crowd.judge(tally, senders, messages, drained(mq, queue)), len(tally.confirmed), took_s


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_all_are_confirmed_once_and_in_order(kind: str, url: str, figure: Callable[[str], None]) -> None:
    findings, confirmed, took_s = proof(kind, url, MESSAGES)
    figure(f"crowd on memory: {kind}, {confirmed} confirmed in {took_s:.1f} s")
    assert findings == []


# ------------------------------------------------------------------------------------------------- it can fail
def _loses(submit: Any) -> Any:
    count = itertools.count(1)

    def bad(self: Any, batch: Any, done: Any) -> int:
        if next(count) % 20 == 0:
            done(ALL_WELL)  # confirmed and never stored
            return len(batch)
        return int(submit(self, batch, done))

    return bad


def _doubles(submit: Any) -> Any:
    count = itertools.count(1)

    def bad(self: Any, batch: Any, done: Any) -> int:
        if next(count) % 20 == 0:
            submit(self, batch, lambda result: None)
        return int(submit(self, batch, done))

    return bad


def _overtakes(submit: Any) -> Any:
    """Every tenth batch leaves after the next one."""
    count = itertools.count(1)
    held: list[tuple[Any, Any, Any]] = []

    def bad(self: Any, batch: Any, done: Any) -> int:
        if next(count) % 10 == 0 and not held:
            held.append((self, batch, done))
            done(ALL_WELL)
            return len(batch)
        accepted = int(submit(self, batch, done))
        while held:
            link, late, _ = held.pop()
            submit(link, late, lambda result: None)
        return accepted

    return bad


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize(
    ("seeded", "word"),
    [(_loses, "are not there"), (_doubles, "more than once"), (_overtakes, "came after")],
    ids=["a confirmed batch is not stored", "a batch is stored twice", "a batch is overtaken"],
)
def test_a_seeded_bug_is_found(
    kind: str, seeded: Callable[[Any], Any], word: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemorySender, "submit", seeded(MemorySender.submit))
    findings, _, _ = proof(kind, url, SEEDED_MESSAGES)
    assert any(word in text for text in findings), findings
