"""Proof 2: a peer that accepts and goes silent. Each call's time is measured, printed, and held against its named bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

import unimq
from integration.proofs import half_open
from integration.proofs.kit import WORLDS, World, gone, within
from integration.sources import Broker
from unimq import Queue
from unimq.testing.proxy import FaultProxy

LIMIT_S = 90
SETTLE_S = 20.0  # an opening that was given up ends by the driver's own bound


@pytest.fixture
def queues(rabbitmq: Broker, unique: Callable[[str], str]) -> Iterator[tuple[Queue, Queue]]:
    pair = Queue(unique("half-open")), Queue(unique("half-open"))
    with unimq.connect(rabbitmq.url) as mq:
        for queue in pair:
            mq.declare(queue)
    yield pair
    with unimq.connect(rabbitmq.url) as mq:
        for queue in pair:
            mq.delete(queue)


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_every_call_ends_within_its_bound(
    world: World,
    rabbitmq: Broker,
    proxied: FaultProxy,
    queues: tuple[Queue, Queue],
    figure: Callable[[str], None],
) -> None:
    def work() -> list[half_open.Measured]:
        found = asyncio.run(half_open.connecting(world, proxied, rabbitmq.url))
        return found + asyncio.run(half_open.working(world, proxied, rabbitmq.url, *queues))

    measured = within(LIMIT_S, f"{world} half open", work)
    figure("half open\n    " + "\n    ".join(map(str, measured)))
    assert [str(each) for each in measured if not each.held] == []
    assert gone(SETTLE_S) == []
