"""Proof 7: a user without configure rights, topology="assume", on a real broker: all but declaring works.

The owner has declared; the poor user sends, receives, retries within the places there are, and dead-letters. A place that is
missing is a typed error at once whose text says what to declare.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import unimq
from integration.native import RabbitMQ
from integration.proofs.kit import WORLDS, World, now, within
from unimq import Queue, Retry, Subscription, Topic
from unimq.errors import NotFound, PermissionDenied, UnimqError, Unroutable, Unsupported

LIMIT_S = 60
CALL_TIMEOUT_S = 5.0
POLICY = Retry(immediate=0, delayed_s=[0.2], jitter=0)
OTHER_POLICY = Retry(immediate=0, delayed_s=[0.5], jitter=0)


@pytest.fixture(scope="module")
def poor_url() -> dict[str, str]:
    return {}


@pytest.fixture
def poor(own_rabbitmq: RabbitMQ, poor_url: dict[str, str]) -> str:
    """The URL of a user who may read and write everything and configure nothing."""
    if own_rabbitmq.url not in poor_url:
        poor_url[own_rabbitmq.url] = own_rabbitmq.add_user("poor", "pw")
    return poor_url[own_rabbitmq.url]


async def _declared(world: World, url: str, source: Any) -> None:
    """What the owner does: opening a receiver with the policy makes all its places."""
    mq = await now(world.connect(url))
    receiver = mq.receiver(source, retry=POLICY)
    await now(receiver.ready(CALL_TIMEOUT_S))
    await now(mq.close())


async def _works(world: World, url: str, source: Any) -> list[str]:
    findings: list[str] = []
    target = source if isinstance(source, Queue) else source.topic
    mq = await now(world.connect(url, topology="assume"))
    try:
        report = await now(mq.declare(source))
        if report.created:
            findings.append(f"declare made {report.created}")
        await now(mq.send(target, b"one", timeout_s=CALL_TIMEOUT_S))
        receiver = mq.receiver(source, retry=POLICY)
        for attempt in (1, 2):
            taken = await now(receiver.receive(1, CALL_TIMEOUT_S))
            if [each.body for each in taken] != [b"one"] or taken[0].attempt != attempt:
                return [*findings, f"attempt {attempt}: {taken!r} came"]
            if attempt == 1:
                taken[0].retry(0.2)
            else:
                taken[0].dead_letter("why")
            await now(receiver.flush(CALL_TIMEOUT_S))
        dead = await now(mq.dead_letters(source).browse())
        if [(each.body, each.reason, each.attempts) for each in dead] != [(b"one", "why", 2)]:
            findings.append(f"the dead letters are {dead!r}")
        depth = (await now(mq.stats(source))).depth
        if depth != 0:
            findings.append(f"the source holds {depth}")
        await now(mq.send(target, b"two", timeout_s=CALL_TIMEOUT_S))
        taken = await now(receiver.receive(1, CALL_TIMEOUT_S))
        taken[0].release()
        again = await now(receiver.receive(1, CALL_TIMEOUT_S))
        again[0].ack()
        await now(receiver.flush(CALL_TIMEOUT_S))
    finally:
        await now(mq.close())
    return findings


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("kind", ["queue", "subscription"])
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_all_but_declaring_works(
    world: World,
    kind: str,
    own_rabbitmq: RabbitMQ,
    poor: str,
    unique: Callable[[str], str],
    figure: Callable[[str], None],
) -> None:
    source: Any = Queue(unique("poor"))
    if kind == "subscription":
        source = Subscription(Topic(unique("poor")), "s")
    asyncio.run(_declared(world, own_rabbitmq.url, source))
    findings = within(LIMIT_S, "poor", lambda: asyncio.run(_works(world, poor, source)))
    figure(f"without configure rights, {kind}, {world}: {len(findings)} findings")
    assert findings == []


async def _missing(world: World, url: str, there: Queue, gone: Queue) -> list[str]:
    """Each missing place, with the error that was raised."""
    said: list[str] = []

    async def tried(
        what: str, wanted: tuple[type[UnimqError], ...], word: str, call: Callable[[], Any]
    ) -> None:
        try:
            result = await now(call())
        except Exception as error:  # which one is the question
            if type(error) not in wanted or word not in str(error):
                said.append(f"{what}: {error!r}; wanted {[kind.__name__ for kind in wanted]} with {word!r}")
        else:
            said.append(f"{what}: returned {result!r}")

    mq = await now(world.connect(url, topology="assume"))
    try:
        declare = "declare"
        await tried(
            "send", (NotFound, Unroutable), declare, lambda: mq.send(gone, b"x", timeout_s=CALL_TIMEOUT_S)
        )
        await tried("receive", (NotFound,), declare, lambda: mq.receiver(gone).receive(1, CALL_TIMEOUT_S))
        await tried("a delay place of the policy", (NotFound, Unsupported), declare,
                    lambda: mq.receiver(there, retry=OTHER_POLICY).ready(CALL_TIMEOUT_S))  # fmt: skip
        await tried("a delayed send", (NotFound, Unsupported), declare,
                    lambda: mq.send(there, unimq.Message(b"x", delay_s=30), timeout_s=CALL_TIMEOUT_S))  # fmt: skip
        await tried("stats", (NotFound,), declare, lambda: mq.stats(gone))
    finally:
        await now(mq.close())
    maker = await now(world.connect(url))
    try:
        await tried(
            "declare without the right", (PermissionDenied,), "configure", lambda: maker.declare(gone)
        )
        await tried("a receiver that would create", (PermissionDenied,), "configure",
                    lambda: maker.receiver(gone).ready(CALL_TIMEOUT_S))  # fmt: skip
    finally:
        await now(maker.close())
    return said


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_a_missing_place_says_what_to_declare(
    world: World, own_rabbitmq: RabbitMQ, poor: str, unique: Callable[[str], str]
) -> None:
    there, gone = Queue(unique("there")), Queue(unique("gone"))
    asyncio.run(_declared(world, own_rabbitmq.url, there))
    assert within(LIMIT_S, "missing", lambda: asyncio.run(_missing(world, poor, there, gone))) == []
