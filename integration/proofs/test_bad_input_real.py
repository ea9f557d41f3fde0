"""Proof 6 on a real broker: bad input, a wrong password, and a marked password that is right, which shows nowhere.

The marked user is made on a broker of the module's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import unimq
from integration.native import RabbitMQ
from integration.proofs import bad_input
from integration.proofs.kit import WORLDS, World, now, run, within
from integration.proofs.secrets import ENCODED, PASSWORD, Watch, leaks_of
from integration.sources import Broker, host_and_port
from unimq import Message, Queue
from unimq.errors import AuthenticationFailed, UnimqError
from unimq.testing.proxy import FaultProxy

LIMIT_S = 60
CALL_TIMEOUT_S = 5.0


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_each_ends_with_its_error_and_nothing_is_lost(
    world: World, rabbitmq: Broker, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    queue, missing = Queue(unique("bad")), Queue(unique("missing"))
    findings, rows = run(
        LIMIT_S, "bad input", lambda: bad_input.broken_messages(world, rabbitmq.url, queue, missing)
    )
    figure(f"bad input on a real broker, {world}: {rows} rows, {len(findings)} findings")
    with unimq.connect(rabbitmq.url) as mq:
        mq.delete(queue)
    assert findings == []


@pytest.mark.timeout(bad_input.CHILD_TIMEOUT_S + 30)
def test_a_client_from_before_a_fork_is_closed_in_the_child(
    rabbitmq: Broker, unique: Callable[[str], str]
) -> None:
    queue = Queue(unique("forked"))
    assert bad_input.forked(rabbitmq.url, queue) == []
    with unimq.connect(rabbitmq.url) as mq:
        mq.delete(queue)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_a_wrong_password_is_refused_at_once_and_hides_itself(world: World, rabbitmq: Broker) -> None:
    host = rabbitmq.url.partition("@")[2]

    async def tried() -> BaseException | None:
        try:
            await now((await now(world.connect(f"amqp://guest:{ENCODED}@{host}"))).close())
        except Exception as error:  # which one is the question
            return error
        return None

    with Watch() as watch:
        started = time.monotonic()
        error = within(LIMIT_S, "connect", lambda: asyncio.run(tried()))
        took_s = time.monotonic() - started
        assert type(error) is AuthenticationFailed
        leaks = leaks_of("wrong password", error)
    assert leaks + watch.leaks == []
    assert took_s < 2.0


async def _life(world: World, url: str, proxy: FaultProxy, queue: Queue, missing: Queue) -> list[Any]:
    """Everything that can fail with a working login; what was raised and made."""
    shown: list[Any] = []

    async def tried(value: Callable[[], Any]) -> Any:
        try:
            return await now(value())
        except UnimqError as error:
            shown.append(error)
            return None

    mq = await now(world.connect(proxy.url(url), connect_timeout_s=2.0))
    receiver, sender = mq.receiver(queue), mq.sender(queue)
    shown += [mq, receiver, sender, mq.capabilities]
    await now(mq.declare(queue))
    await tried(lambda: mq.send(missing, b"x", timeout_s=CALL_TIMEOUT_S))
    await tried(lambda: mq.send(queue, Message(b"x", priority=10)))
    await tried(lambda: mq.declare(queue, max_length=7))
    await now(sender.send(b"one"))
    taken = await now(receiver.receive(1, CALL_TIMEOUT_S))
    shown += taken
    with taken[0]:
        raise ValueError("a handler that fails")  # what a handler says of itself is its own
    await tried(lambda: receiver.flush(CALL_TIMEOUT_S))
    proxy.silence()
    await tried(lambda: mq.send(queue, b"two", timeout_s=0.2))
    proxy.cut()
    proxy.refuse()
    proxy.heal()
    await tried(lambda: receiver.receive(1, 0.2))
    shown.append(mq.health())
    proxy.refuse()
    proxy.cut()
    await tried(lambda: mq.send(queue, b"three", timeout_s=0.3))
    await tried(lambda: receiver.receive(1, 0.3))
    shown += [mq.health(), mq]
    await tried(lambda: mq.close(1.0))
    await tried(lambda: mq.send(queue, b"four"))
    proxy.heal()
    return shown


@pytest.mark.timeout(240)
def test_a_right_password_shows_nowhere(
    own_rabbitmq: RabbitMQ, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    own_rabbitmq.rabbitmqctl("add_user", "marked", PASSWORD)
    own_rabbitmq.rabbitmqctl("set_permissions", "marked", ".*", ".*", ".*")
    host, port = host_and_port(own_rabbitmq.url)
    url = f"amqp://marked:{ENCODED}@{host}:{port}/"
    leaks: list[str] = []
    with Watch() as watch, FaultProxy(host, port) as proxy:
        for world in WORLDS:
            queue, missing = Queue(unique("marked")), Queue(unique("missing"))
            shown = run(LIMIT_S, "life", lambda: _life(world, url, proxy, queue, missing))  # noqa: B023  # run now
            leaks += leaks_of(f"life ({world})", *shown)
            with unimq.connect(url) as mq:
                leaks += leaks_of("dead letters", *mq.browse(queue), *mq.dead_letters(queue).browse())
                leaks += leaks_of("headers", *(repr(each.headers_raw) for each in mq.browse(queue)))
        leaks += leaks_of("explain", unimq.explain(url, Queue("q")), str(unimq.explain(url)))
    errors = sum(isinstance(each, BaseException) for each in shown)
    figure(
        f"secrets on a real broker: {errors} errors a world, {watch.count} log records, {len(leaks + watch.leaks)} leaks"
    )
    assert leaks + watch.leaks == []
    assert errors >= 6
