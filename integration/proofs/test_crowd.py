"""Proof 4 on a real broker: 8 threads and 200 tasks on one client, 100,000 messages; looked at with the raw client.

`tests/proofs/test_crowd_memory.py` is the same on memory. `UNIMQ_SHORT=1`: 5,000 messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

import unimq
from integration.proofs import crowd
from integration.proofs.kit import SHORT, within
from integration.proofs.raw import Raw
from integration.sources import Broker
from unimq import Queue

MESSAGES = crowd.MESSAGES_SHORT if SHORT else crowd.MESSAGES
LIMIT_S = 240


@pytest.fixture
def queue(rabbitmq: Broker, unique: Callable[[str], str]) -> Iterator[Queue]:
    queue = Queue(unique("crowd"))
    with unimq.connect(rabbitmq.url) as mq:
        mq.declare(queue)
        yield queue
        mq.delete(queue)


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_all_are_confirmed_once_and_in_order(
    kind: str, rabbitmq: Broker, queue: Queue, figure: Callable[[str], None]
) -> None:
    async def in_tasks() -> crowd.Tally:
        async with unimq.connect_async(rabbitmq.url) as mq:
            return await crowd.tasks(mq, queue, MESSAGES)

    def in_threads() -> crowd.Tally:
        with unimq.connect(rabbitmq.url) as mq:
            return crowd.threads(mq, queue, MESSAGES)

    senders = crowd.THREADS if kind == "threads" else crowd.TASKS
    started = time.monotonic()
    tally = within(LIMIT_S, kind, in_threads if kind == "threads" else lambda: asyncio.run(in_tasks()))
    took_s = time.monotonic() - started
    with Raw(rabbitmq.url) as raw:
        there = raw.drain(queue.name, MESSAGES)
    findings = crowd.judge(tally, senders, MESSAGES, there)
    figure(
        f"crowd on a real broker: {senders} {kind}, {len(tally.confirmed)} confirmed in {took_s:.1f} s, {len(there)} there"
    )
    assert findings == []
