"""Sending: what a confirmation means, what a batch answers."""

from __future__ import annotations

import time

import unimq
from unimq import Message

from ...harness import Harness
from .._check import refused, within
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, a_topic, bodies, drain, drain_all, fill, nothing, one


@behaviour(66, needs=("confirmed_send",), hooks=("restart",), limit_s=120)
async def confirm_means_durable(h: Harness) -> None:
    """What the broker confirmed is there after its restart."""
    assert h.restart is not None
    contents = bodies(50)
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, contents)
    await kit.elsewhere(h.restart)
    async with kit.client(h) as mq:
        assert set(await drain_all(h, mq, queue, set(contents))) == set(contents)


@behaviour(67, needs=("confirmed_send",), hooks=("proxy",))
async def lost_confirm_is_unknown_within_timeout(h: Harness) -> None:
    """A message that left and was not confirmed in time is an unknown outcome, said within the time-out."""
    assert h.proxy is not None
    with h.proxy() as line:
        async with kit.client(h, line.url(h.url)) as mq:
            queue = await a_queue(mq, h)
            await fill(mq, queue, [b"warm"])
            line.silence()
            with within(2.0 + 3.0, "a send of 2 s to a silent broker"):
                with refused(unimq.SendOutcomeUnknown) as caught:
                    await mq.send(queue, Message(b"unknown"), timeout_s=2.0)
            assert caught.error.may_have_been_sent and caught.error.retryable
            assert caught.error.message is not None and caught.error.message.message_id, (
                "it can be sent again as it was"
            )
            line.heal()
            line.cut()
        async with kit.client(h) as mq:
            seen = await drain_all(h, mq, queue, {b"warm"})
            assert set(seen) <= {b"warm", b"unknown"}


@behaviour(68, hooks=("proxy",))
async def send_while_down_times_out_not_hangs(h: Harness) -> None:
    """With the broker down a send ends within its time-out, saying that nothing left, and works when it is up again."""
    assert h.proxy is not None
    with h.proxy() as line:
        async with kit.client(h, line.url(h.url)) as mq:
            queue = await a_queue(mq, h)
            await fill(mq, queue, [b"warm"])
            line.refuse()
            line.cut()
            with within(2.0 + 3.0, "a send of 2 s while the broker is down"):
                # the first may meet the connection before it is known to be dead
                with refused(unimq.SendTimeout, unimq.SendOutcomeUnknown):
                    await mq.send(queue, Message(b"first"), timeout_s=2.0)
            with within(1.0 + 3.0, "a send of 1 s while the broker is down"):
                with refused(unimq.SendTimeout) as caught:
                    await mq.send(queue, Message(b"second"), timeout_s=1.0)
            assert not caught.error.may_have_been_sent
            line.heal()
            await mq.send(queue, Message(b"third"), timeout_s=h.patience_s)
            seen = await drain_all(h, mq, queue, {b"warm", b"third"})
            assert b"second" not in seen, "it said that nothing left"


@behaviour(69, needs=("unroutable",))
async def unroutable_reported(h: Harness) -> None:
    """A topic without subscribers is an error where the sender asks for it, and none where it does not."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        await mq.send(topic, Message(b"to nobody"))
        async with mq.sender(topic, unroutable="error") as sender:
            with refused(unimq.Unroutable) as caught:
                await sender.send(Message(b"to nobody"))
            assert not caught.error.may_have_been_sent
            group = h.subscription(topic)
            await mq.declare(group)
            await sender.send(Message(b"to somebody"))
        assert await drain(h, mq, group, 1) == [b"to somebody"]


@behaviour(70)
async def batch_per_item_result(h: Harness) -> None:
    """One bad item of a batch fails by its index; its neighbours are sent once, in order."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        messages = [Message(body) for body in bodies(5)]
        messages[2] = Message(b"bad", headers={"unimq-attempt": "1"})
        report = await mq.send_many(queue, messages)
        assert report.sent == 4 and set(report.errors) == {2}
        assert isinstance(report.errors[2], unimq.InvalidMessage)
        receipts = report.receipts
        assert receipts[2] is None and all(receipts[index] is not None for index in (0, 1, 3, 4))
        with refused(unimq.UnimqError):
            report.raise_for_errors()
        good = [body for index, body in enumerate(bodies(5)) if index != 2]
        assert sorted(await drain(h, mq, queue, 4), key=repr) == good


@behaviour(71)
async def batch_split_at_limits(h: Harness) -> None:
    """A batch larger than any limit of the broker or the window is split, and all of it arrives."""
    contents = bodies(2_500)
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, contents)
        large = [bytes([number]) * 100_000 for number in range(40)]
        await fill(mq, queue, large)
        seen = await drain(h, mq, queue, len(contents) + len(large))
        assert sorted(seen, key=repr) == sorted([*contents, *large], key=repr)
        assert not (await mq.send_many(queue, [])).errors


@behaviour(72)
async def receive_batch_does_not_wait_to_fill(h: Harness) -> None:
    """A receive of many returns with what is there; it does not wait until it is full."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.receiver(queue) as receiver:
            await receiver.ready(h.patience_s)
            waiting = kit.spawn(lambda: receiver.receive(max_messages=100, timeout_s=h.patience_s))
            await fill(mq, queue, [b"only"])
            began = time.monotonic()
            (delivery,) = await waiting.result(h.patience_s)
            assert delivery.body == b"only" and time.monotonic() - began < h.patience_s / 2
            delivery.ack()


@behaviour(73, needs=("dedup",))
async def dedup_same_id_once(h: Harness) -> None:
    """Two sends with one id inside the duplicate window are one message; other ids are not touched."""
    async with kit.client(h) as mq:
        queue = h.queue()
        await mq.declare(queue, dedup_window_s=600)
        name = h.unique("id")
        await mq.send(queue, Message(b"once", message_id=name))
        await mq.send(queue, Message(b"once", message_id=name))
        await mq.send(queue, Message(b"other", message_id=name + "-2"))
        assert await drain(h, mq, queue, 2) == [b"once", b"other"]


@behaviour(76)
async def close_flushes_pending_sends(h: Harness) -> None:
    """Closing a sender, or the client, first completes what was submitted."""
    contents = bodies(200)
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.sender(queue) as sender:
            pending = [await sender.submit(Message(body)) for body in contents[:100]]
        assert all(each.done() for each in pending), "the sender closed over open sends"
        sender = mq.sender(queue)
        pending = [await sender.submit(Message(body)) for body in contents[100:]]
    assert all(each.done() for each in pending), "the client closed over open sends"
    async with kit.client(h) as mq:
        assert sorted(await drain(h, mq, queue, 200), key=repr) == contents


@behaviour(121)
async def three_ways_to_send(h: Harness) -> None:
    """`send` waits, `submit` answers later, `send_nowait` never waits and counts what it drops; `flush` ends them all."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.sender(queue) as sender:
            receipt = await sender.send(Message(b"m0"))
            pending = await sender.submit(Message(b"m1"))
            sender.send_nowait(Message(b"m2"))
            await sender.flush()
            assert pending.done() and receipt.message_id
            assert (await kit.confirmed(pending)).message_id
            assert (await kit.awaited(await sender.submit(Message(b"m3")))).message_id
            assert sender.dropped == 0
            with refused(unimq.InvalidMessage):
                sender.send_nowait(Message(b"bad", headers={"unimq-x": "1"}))
        assert await drain(h, mq, queue, 4) == [b"m0", b"m1", b"m2", b"m3"]


@behaviour(122)
async def bad_input_is_refused_before_anything_moves(h: Harness) -> None:
    """A bare string as address, an object without encoding, a naive time: one clear error each, and nothing was sent."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        with refused(unimq.UnimqError, TypeError, ValueError) as caught:
            await mq.send(queue.name, Message(b"x"))  # type: ignore[arg-type]
        assert "queue:" in str(caught.error) or "Queue(" in str(caught.error), f"no hint: {caught.error}"
        for bad in (Message(object()), Message(b"x", priority=11), Message(b"x", key=b"k")):  # type: ignore[arg-type]
            with refused(unimq.InvalidMessage):
                await mq.send(queue, bad)
        async with mq.receiver(queue) as receiver:
            await nothing(h, receiver)
            await mq.send(queue, {"n": 1})
            delivery = await one(h, receiver)
            with refused(unimq.DecodeError):
                delivery.decode(list[int])
            assert delivery.decode(dict[str, int]) == {"n": 1}
            delivery.ack()
