"""Through the core, sync and async, with the stub made to fail: what the conformance suite needs a proxy for elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import unimq
from tests.adapters.servicebus.harness import until
from tests.adapters.servicebus.stub import StubNamespace
from unimq import Message, Queue, Retry, SendOutcomeUnknown, SettlementLost, Subscription, Topic, registry
from unimq_servicebus import ServiceBusAdapter

URL = "sb://root:key@stub.test"
Q = Queue("orders")
S = Queue("ordered", ordered=True)
PATIENCE_S = 15.0


@pytest.fixture
def stub() -> Iterator[StubNamespace]:
    made = StubNamespace()
    adapter: Any = ServiceBusAdapter(client_factory=made, admin_factory=made.admin)
    registry.register(adapter)
    yield made
    registry.unregister(adapter)
    assert made.violations == []


def one(receiver: unimq.Receiver) -> unimq.Delivery:
    (delivery,) = receiver.receive(1, PATIENCE_S)
    return delivery


async def a_one(receiver: unimq.AsyncReceiver) -> unimq.Delivery:
    (delivery,) = await receiver.receive(1, PATIENCE_S)
    return delivery


# -- 67: a lost confirm
def test_lost_confirm(stub: StubNamespace) -> None:
    with unimq.connect(URL) as mq:
        mq.declare(Q)
        mq.send(Q, b"warm")
        stub.lose_next_confirm = True
        started = time.monotonic()
        with pytest.raises(SendOutcomeUnknown) as caught:
            mq.send(Q, b"x", timeout_s=0.5)
        assert time.monotonic() - started < 2.0
        assert caught.value.may_have_been_sent
        assert caught.value.message is not None
        mq.send(Q, b"after")


def test_lost_confirm_async(stub: StubNamespace) -> None:
    async def main() -> None:
        async with unimq.connect_async(URL) as mq:
            await mq.declare(Q)
            await mq.send(Q, b"warm")
            stub.lose_next_confirm = True
            with pytest.raises(SendOutcomeUnknown) as caught:
                await mq.send(Q, b"x", timeout_s=0.5)
            assert caught.value.message is not None
            await mq.send(Q, b"after")

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


# -- a lost lock
def test_lost_lock(stub: StubNamespace) -> None:
    with unimq.connect(URL) as mq:
        mq.declare(Q, lock_s=0.5)
        mq.send(Q, b"x")
        with mq.receiver(Q, native={"lock_renewal_max_s": 0}) as receiver:
            delivery = one(receiver)
            until(lambda: delivery.lock_lost)
            with pytest.raises(unimq.LockLost):
                delivery.ack()
            again = one(receiver)
            assert again.redelivered
            again.ack()


def test_lock_lost_at_the_broker_is_a_lost_settlement_async(stub: StubNamespace) -> None:
    async def main() -> None:
        async with unimq.connect_async(URL) as mq:
            await mq.declare(Q)
            await mq.send(Q, b"x")
            async with mq.receiver(Q) as receiver:
                delivery = await a_one(receiver)
                stub.lose_locks("orders")
                delivery.ack()
                with pytest.raises(SettlementLost) as caught:
                    await receiver.flush()
                assert caught.value.deliveries == [delivery]
                (await a_one(receiver)).ack()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


# -- a lost session, a lost connection: the supervisor brings the link back
def test_lost_session(stub: StubNamespace) -> None:
    with unimq.connect(URL) as mq:
        mq.declare(S)
        mq.send(S, Message(b"x", key="k"))
        with mq.receiver(S, session="k") as receiver:
            delivery = one(receiver)
            stub.lose_session("ordered", "k")
            until(lambda: delivery.lock_lost)
            again = one(receiver)
            assert again.body == b"x"
            again.ack()
            receiver.flush()


def test_cut_connection_async(stub: StubNamespace) -> None:
    async def main() -> None:
        async with unimq.connect_async(URL) as mq:
            await mq.declare(Q)
            async with mq.receiver(Q) as receiver:
                await mq.send(Q, b"1")
                (await a_one(receiver)).ack()
                await receiver.flush()
                stub.cut()
                for _ in range(2):  # the first may have been on its way when the line went
                    try:
                        await mq.send(Q, b"2", timeout_s=PATIENCE_S)
                        break
                    except SendOutcomeUnknown:
                        continue
                delivery = await a_one(receiver)
                assert delivery.body == b"2"
                delivery.ack()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))


# -- 90 and 87
def test_cancelled_receive_loses_nothing(stub: StubNamespace) -> None:
    async def main() -> None:
        async with unimq.connect_async(URL) as mq:
            await mq.declare(Q)
            async with mq.receiver(Q) as receiver:
                for number in range(20):
                    waiting = asyncio.create_task(receiver.receive(1, PATIENCE_S))
                    sending = asyncio.create_task(mq.send(Q, b"%d" % number))
                    await asyncio.sleep(0.005 * number)
                    waiting.cancel()
                    await sending
                    try:
                        (delivery,) = await waiting
                    except asyncio.CancelledError:
                        delivery = await a_one(receiver)
                    assert delivery.body == b"%d" % number
                    delivery.ack()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))


# -- a subscription: its own retry queue, both heads of dead letters
def test_subscription_retry_and_dead_letters(stub: StubNamespace) -> None:
    source = Subscription(Topic("events"), "billing")
    other = Subscription(Topic("events"), "other")
    with unimq.connect(URL) as mq:
        mq.declare(source)
        mq.declare(other)
        mq.send(Topic("events"), Message(b"x", headers={"n": 2**40}))
        with mq.receiver(source, retry=Retry(immediate=0, delayed_s=[0.3])) as receiver:
            first = one(receiver)
            with first:
                raise RuntimeError("first try")
            second = one(receiver)
            assert second.attempt == 2
            assert second.headers == {"n": 2**40}
            assert second.message_id == first.message_id
            with second:
                raise RuntimeError("second try")
            receiver.flush()
        (letter,) = mq.dead_letters(source).browse()
        assert letter.reason == "exhausted"
        assert letter.attempts == 2
        assert letter.error_type == "builtins.RuntimeError"
        assert letter.place == "events.billing.retry/$DeadLetterQueue"
        assert len(letter.history) >= 1
        with mq.receiver(other) as receiver:
            one(receiver).ack()
            assert receiver.receive(1, 0.4) == []


def test_stats_and_what_is_refused(stub: StubNamespace) -> None:
    with unimq.connect(URL) as mq:
        mq.declare(Q)
        mq.send(Q, b"x")
        assert mq.stats(Q).depth == 1
        assert mq.capabilities.dead_letter
        with pytest.raises(unimq.Unsupported):
            mq.send(Q, Message(b"x", priority=3))
