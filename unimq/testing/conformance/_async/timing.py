"""Time: delays and expiry, by the broker's clock."""

from __future__ import annotations

import datetime as dt
import time

import unimq
from unimq import Message

from ...harness import Harness
from .._check import refused
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, dead, drain, nothing, one, pass_time, take


@behaviour(53, needs=("send_delay",))
async def delay_not_early(h: Harness) -> None:
    """A delayed message comes, and not before its time; the receipt says which delay was taken."""
    delay_s = h.delay_s * 2
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.receiver(queue) as receiver:
            began = time.monotonic()
            receipt = await mq.send(queue, Message(b"later", delay_s=delay_s))
            assert receipt.delay_s is not None and receipt.delay_s >= delay_s
            if h.clock is None:
                delivery = await one(h, receiver)
                assert time.monotonic() - began >= delay_s * 0.95, "it came early"
            else:
                await pass_time(h, delay_s * 0.9)
                await nothing(h, receiver)
                await pass_time(h, delay_s * 0.2)
                delivery = await one(h, receiver)
            assert delivery.body == b"later" and delivery.attempt == 1
            delivery.ack()


@behaviour(54, needs=("send_delay",))
async def short_delay_not_behind_long_delay(h: Harness) -> None:
    """A short delay that was asked for after a long one comes first, and what has none comes before both."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(b"long", delay_s=h.delay_s * 4))
        await mq.send(queue, Message(b"short", delay_s=h.delay_s))
        await mq.send(queue, Message(b"now"))
        async with mq.receiver(queue) as receiver:
            seen = [(await one(h, receiver)).body]
            if h.clock is not None:
                await pass_time(h, h.delay_s * 1.5)
            seen.append((await one(h, receiver)).body)
            if h.clock is not None:
                await pass_time(h, h.delay_s * 4)
            seen.append((await one(h, receiver)).body)
            assert seen == [b"now", b"short", b"long"]


@behaviour(55, needs=("send_delay",))
async def delay_beyond_max_rejected(h: Harness) -> None:
    """A delay longer than the longest is refused before the message moves; an absolute time is a delay too."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        limit_s = mq.capabilities.max_delay_s
        if limit_s is not None:
            with refused(unimq.Unsupported, unimq.InvalidMessage) as caught:
                await mq.send(queue, Message(b"x", delay_s=limit_s * 2 + 1))
            assert not caught.error.may_have_been_sent
        with refused(unimq.InvalidMessage):
            await mq.send(queue, Message(b"x", delay_s=-1))
        past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        await mq.send(queue, Message(b"due already", deliver_at=past))
        assert await drain(h, mq, queue, 1) == [b"due already"]


@behaviour(56, needs=("send_delay",))
async def cancel_scheduled(h: Harness) -> None:
    """A scheduled message can be cancelled and then never comes; where it cannot be, asking is refused."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        receipt = await mq.send(queue, Message(b"cancelled", delay_s=h.delay_s))
        try:
            cancelled = await mq.cancel(receipt)
        except unimq.Unsupported:
            cancelled = False
        await pass_time(h, h.delay_s * 2)
        async with mq.receiver(queue) as receiver:
            if cancelled:
                await nothing(h, receiver)
                assert not await mq.cancel(receipt), "the second cancel says that there was nothing"
            else:
                (await one(h, receiver)).ack()


@behaviour(57, needs=("ttl",))
async def ttl_expires_unread(h: Harness) -> None:
    """A message whose time to live is over is not handed out; its neighbours are."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(b"brief", ttl_s=h.delay_s))
        await mq.send(queue, Message(b"lasting", ttl_s=3600))
        await mq.send(queue, Message(b"eternal"))
        await pass_time(h, h.delay_s * 1.5)
        async with mq.receiver(queue) as receiver:
            taken = await take(h, receiver, 2)
            assert [delivery.body for delivery in taken] == [b"lasting", b"eternal"]
            assert taken[1].expires_at is None
            receiver.ack(taken)
            await receiver.flush()
            await nothing(h, receiver)


@behaviour(58, needs=("ttl", "dead_letter"))
async def ttl_expired_to_dead_letters(h: Harness) -> None:
    """What expires in a queue that has a dead-letter place rests there, and is not lost."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.receiver(queue):
            pass  # a receiver has made the dead-letter place
        await mq.send(queue, Message(b"one", ttl_s=h.delay_s))
        await mq.send(queue, Message(b"two", ttl_s=h.delay_s))
        await pass_time(h, h.delay_s * 1.5)
        async with mq.receiver(queue) as receiver:
            await nothing(h, receiver)
        letters = await dead(h, mq, queue, 2)
        assert {letter.delivery.body for letter in letters} == {b"one", b"two"}
        # a dead letter does not expire a second time
        await pass_time(h, h.delay_s * 2)
        assert len(await dead(h, mq, queue, 2)) == 2


@behaviour(59, needs=("ttl",))
async def message_ttl_overrides_destination_ttl(h: Harness) -> None:
    """The shorter of the message's and the place's time to live counts."""
    async with kit.client(h) as mq:
        queue = h.queue()
        try:
            await mq.declare(queue, ttl_s=h.delay_s * 3)
        except unimq.Unsupported:
            return  # a place of this broker has none: the message's own is all there is
        await mq.send(queue, Message(b"by the message", ttl_s=h.delay_s))
        await mq.send(queue, Message(b"by the place", ttl_s=3600))
        await pass_time(h, h.delay_s * 1.5)
        async with mq.receiver(queue) as receiver:
            found = await one(h, receiver)
            assert found.body == b"by the place"
        await pass_time(h, h.delay_s * 3)
        async with mq.receiver(queue) as receiver:
            await nothing(h, receiver)
