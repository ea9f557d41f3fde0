"""What a type checker says of the public API, in both worlds. `make check` is the test: mypy reads these functions; pytest
only sees that they can be imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, assert_type

import unimq
from unimq import Delivery, Message, Queue, Receipt, Retry, SendReport, Stats, Subscription, Topic

QUEUE = Queue("orders")


def sync_world(mq: unimq.Client) -> None:
    assert_type(unimq.connect("memory://typed"), unimq.Client)
    assert_type(mq.send(QUEUE, b"body"), Receipt)
    assert_type(mq.send(Topic("news"), Message({"a": 1})), Receipt)
    assert_type(mq.send_many(QUEUE, [b"1", b"2"]), SendReport)
    with mq.sender(QUEUE) as sender:
        assert_type(sender, unimq.Sender)
        assert_type(sender.submit(b"body"), unimq.Pending)
        assert_type(sender.submit(b"body").result(), Receipt)
        assert_type(sender.send_nowait(b"body"), bool)
    with mq.receiver(Subscription(Topic("news"), "audit"), retry=Retry()) as receiver:
        assert_type(receiver, unimq.Receiver)
        deliveries = receiver.receive(10, timeout_s=1.0)
        _are_deliveries(deliveries)
        for delivery in receiver:
            assert_type(delivery, Delivery)
            with delivery:
                assert_type(delivery.body, bytes | None)
    assert_type(mq.stats(QUEUE), Stats)
    assert_type(mq.dead_letters(QUEUE), unimq.DeadLetters)


async def async_world(mq: unimq.AsyncClient) -> None:
    assert_type(await unimq.connect_async("memory://typed"), unimq.AsyncClient)
    assert_type(await mq.send(QUEUE, b"body"), Receipt)
    assert_type(await mq.send_many(QUEUE, [b"1", b"2"]), SendReport)
    async with mq.sender(QUEUE) as sender:
        assert_type(sender, unimq.AsyncSender)
        assert_type(await sender.submit(b"body"), unimq.AsyncPending)
        assert_type(await (await sender.submit(b"body")), Receipt)
    async with mq.receiver(QUEUE) as receiver:
        assert_type(receiver, unimq.AsyncReceiver)
        _are_deliveries(await receiver.receive(10))
        async for delivery in receiver:
            assert_type(delivery, Delivery)
    assert_type(await mq.stats(QUEUE), Stats)


def handlers_stay_what_they_are(worker: unimq.Worker) -> None:
    @worker.handler(QUEUE)
    def handle(body: dict[str, Any]) -> None: ...

    assert_type(handle({"a": 1}), None)


def _are_deliveries(deliveries: Sequence[Delivery]) -> Iterable[Delivery]:
    return deliveries


def test_they_are_read_by_the_type_checker() -> None:
    assert callable(sync_world) and callable(handlers_stay_what_they_are)
