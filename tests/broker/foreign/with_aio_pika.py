"""What aio-pika (on aiormq) does with a broker, by itself.

Rules
- A scenario is a coroutine over an open channel and a maker of names; it asserts what RabbitMQ does, whichever broker it is on.
- Queues are exclusive: they end with the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError

from tests.broker.foreign.parts import Name

WAIT_MAX_S: Final = 10.0

Scenario: TypeAlias = Callable[[AbstractChannel, Name], Awaitable[None]]


async def _queue(channel: AbstractChannel, name: str, **arguments: Any) -> AbstractQueue:
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return await channel.declare_queue(name, exclusive=True, arguments=named)


async def _send(channel: AbstractChannel, queue: AbstractQueue, *bodies: bytes, **properties: Any) -> None:
    for body in bodies:
        await channel.default_exchange.publish(Message(body, **properties), queue.name)


async def _next(queue: AbstractQueue) -> Any:
    async with queue.iterator() as messages:
        return await asyncio.wait_for(anext(messages), WAIT_MAX_S)


async def _bodies(queue: AbstractQueue) -> list[bytes]:
    found = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        found.append(message.body)
    return found


async def confirmed_consumed_acknowledged(channel: AbstractChannel, name: Name) -> None:
    queue = await _queue(channel, name("q"))
    await channel.set_qos(2)
    sent = [b"%d" % n for n in range(5)]
    await _send(channel, queue, *sent, headers={"n": 7, "text": "ü"}, delivery_mode=DeliveryMode.PERSISTENT)
    seen = []
    async with queue.iterator() as messages:
        async for message in messages:
            seen.append(message.body)
            assert message.headers == {"n": 7, "text": "ü"}
            assert not message.redelivered
            await message.ack()
            if len(seen) == len(sent):
                break
    assert seen == sent
    assert (await queue.declare()).message_count == 0


async def rejected_into_the_dead_letter_queue(channel: AbstractChannel, name: Name) -> None:
    dead = await _queue(channel, name("dead"))
    queue = await _queue(channel, name("q"), dead_letter_exchange="", dead_letter_routing_key=dead.name)
    await _send(channel, queue, b"bad")
    await (await _next(queue)).reject(requeue=False)
    died = await _next(dead)
    assert died.body == b"bad"
    (death,) = died.headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == (queue.name, "rejected", 1)
    assert died.headers["x-first-death-queue"] == queue.name
    await died.ack()


async def released_and_redelivered(channel: AbstractChannel, name: Name) -> None:
    queue = await _queue(channel, name("q"))
    await _send(channel, queue, b"again")
    await (await _next(queue)).nack(requeue=True)
    message = await _next(queue)
    assert message.redelivered
    await message.ack()


async def a_time_to_live_ends(channel: AbstractChannel, name: Name) -> None:
    dead = await _queue(channel, name("dead"))
    to_dead = {"dead_letter_exchange": "", "dead_letter_routing_key": dead.name}
    by_queue = await _queue(channel, name("by-queue"), message_ttl=20, **to_dead)
    by_message = await _queue(channel, name("by-message"), **to_dead)
    await _send(channel, by_queue, b"of the queue")
    await _send(channel, by_message, b"of the message", expiration=0.02)
    died = [await _next(dead), await _next(dead)]
    assert {message.body for message in died} == {b"of the queue", b"of the message"}
    assert {message.headers["x-death"][0]["reason"] for message in died} == {"expired"}
    assert all(message.expiration is None for message in died)


async def topics_are_routed(channel: AbstractChannel, name: Name) -> None:
    exchange = await channel.declare_exchange(name("x"), ExchangeType.TOPIC, auto_delete=True)
    queues = {}
    for number, pattern in enumerate(("order.*.eu", "order.#", "#.eu")):
        queues[pattern] = await _queue(channel, name(f"q{number}"))
        await queues[pattern].bind(exchange, pattern)
    for key in ("order.new.eu", "order", "order.new.us.eu"):
        await exchange.publish(Message(key.encode()), key)
    assert await _bodies(queues["order.*.eu"]) == [b"order.new.eu"]
    assert await _bodies(queues["order.#"]) == [b"order.new.eu", b"order", b"order.new.us.eu"]
    assert await _bodies(queues["#.eu"]) == [b"order.new.eu", b"order.new.us.eu"]


async def headers_are_routed(channel: AbstractChannel, name: Name) -> None:
    exchange = await channel.declare_exchange(name("x"), ExchangeType.HEADERS, auto_delete=True)
    every, some = await _queue(channel, name("all")), await _queue(channel, name("any"))
    await every.bind(exchange, "", arguments={"x-match": "all", "a": 1, "b": "two"})
    await some.bind(exchange, "", arguments={"x-match": "any", "a": 1, "b": "two"})
    for body, headers in ((b"both", {"a": 1, "b": "two"}), (b"one", {"a": 1, "b": "three"})):
        await exchange.publish(Message(body, headers=headers), "ignored")
    assert await _bodies(every) == [b"both"]
    assert await _bodies(some) == [b"both", b"one"]


async def a_transaction(channel: AbstractChannel, name: Name) -> None:
    queue = await _queue(channel, name("q"))
    transaction = channel.transaction()
    await transaction.select()
    await _send(channel, queue, b"taken back")
    await transaction.rollback()
    await _send(channel, queue, b"kept")
    assert (await queue.declare()).message_count == 0
    await transaction.commit()
    assert await _bodies(queue) == [b"kept"]


async def the_unroutable_is_returned(channel: AbstractChannel, name: Name) -> None:
    try:
        await channel.default_exchange.publish(Message(b"nowhere"), name("nobody"), mandatory=True)
    except DeliveryError as error:
        assert error.message.delivery.reply_code == 312  # type: ignore[union-attr]
        assert error.message.body == b"nowhere"  # type: ignore[union-attr]
    else:
        raise AssertionError("the message was not returned")


async def a_consumer_is_told_that_its_queue_is_gone(channel: AbstractChannel, name: Name) -> None:
    """The client forgets the consumer when it is told."""
    queue = await _queue(channel, name("q"))
    arrived = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        await message.ack()
        arrived.set()

    tag = await queue.consume(take)
    await _send(channel, queue, b"first")
    await asyncio.wait_for(arrived.wait(), WAIT_MAX_S)
    consumers = (await channel.get_underlay_channel()).consumers
    assert tag in consumers
    await channel.queue_delete(queue.name)
    async with asyncio.timeout(WAIT_MAX_S):
        while tag in consumers:
            await asyncio.sleep(0)


WITH_CONFIRMS: Final[tuple[Scenario, ...]] = (
    confirmed_consumed_acknowledged,
    rejected_into_the_dead_letter_queue,
    released_and_redelivered,
    a_time_to_live_ends,
    topics_are_routed,
    headers_are_routed,
    the_unroutable_is_returned,
    a_consumer_is_told_that_its_queue_is_gone,
)
SCENARIOS: Final = (*WITH_CONFIRMS, a_transaction)


def run(scenario: Scenario, url: str, name: Name) -> None:
    async def work() -> None:
        async with await aio_pika.connect(url, timeout=WAIT_MAX_S) as connection:
            confirms = scenario in WITH_CONFIRMS
            channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await scenario(channel, name)

    asyncio.run(asyncio.wait_for(work(), 3 * WAIT_MAX_S))
