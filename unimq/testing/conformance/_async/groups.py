"""Queues and groups: who gets what."""

from __future__ import annotations

import time

import unimq
from unimq import Message, Subscription

from ...harness import Harness
from .._check import refused
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, a_topic, bodies, drain, fill, nothing, one, take


@behaviour(15)
async def competing_consumers_each_once(h: Harness) -> None:
    """Two receivers of one queue share its messages: each message goes to one of them, once, and none is left."""
    contents = bodies(100)
    async with kit.client(h) as mq, kit.client(h) as other:
        queue = await a_queue(mq, h)
        async with mq.receiver(queue, prefetch=5) as first, other.receiver(queue, prefetch=5) as second:
            await fill(mq, queue, contents)
            seen: list[bytes | None] = []

            async def work(receiver: unimq.AsyncReceiver) -> None:
                deadline = time.monotonic() + h.patience_s
                while len(seen) < len(contents) and time.monotonic() < deadline:
                    for delivery in await receiver.receive(max_messages=5, timeout_s=0.2):
                        seen.append(delivery.body)
                        delivery.ack()
                await receiver.flush()

            await kit.gather(lambda: work(first), lambda: work(second))
            assert sorted(seen, key=repr) == contents
            await nothing(h, first)
            await nothing(h, second)


@behaviour(16)
async def two_groups_each_get_all(h: Harness) -> None:
    """Each group of a topic gets every message."""
    contents = bodies(20)
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        groups = [h.subscription(topic, "one"), h.subscription(topic, "two")]
        for group in groups:
            await mq.declare(group)
        await fill(mq, topic, contents)
        for group in groups:
            assert sorted(await drain(h, mq, group, 20), key=repr) == contents


@behaviour(17)
async def same_group_shares(h: Harness) -> None:
    """Two members of one group share: each message goes to one of them."""
    contents = bodies(40)
    async with kit.client(h) as mq, kit.client(h) as other:
        topic = await a_topic(mq, h)
        group = h.subscription(topic)
        await mq.declare(group)
        async with mq.receiver(group, prefetch=5) as first, other.receiver(group, prefetch=5) as second:
            await fill(mq, topic, contents)
            seen: list[bytes | None] = []

            async def work(receiver: unimq.AsyncReceiver) -> None:
                deadline = time.monotonic() + h.patience_s
                while len(seen) < len(contents) and time.monotonic() < deadline:
                    for delivery in await receiver.receive(max_messages=5, timeout_s=0.2):
                        seen.append(delivery.body)
                        assert delivery.group == group.name
                        delivery.ack()
                await receiver.flush()

            await kit.gather(lambda: work(first), lambda: work(second))
            assert sorted(seen, key=repr) == contents
            await nothing(h, first)
            await nothing(h, second)


@behaviour(18, needs=("log",))
async def new_group_start_earliest_and_latest(h: Harness) -> None:
    """A new group from the earliest gets what was sent before it; one from the latest does not."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        await fill(mq, topic, [b"before"])
        late, early = h.subscription(topic), h.subscription(topic, start="earliest")
        await mq.declare(late)
        await fill(mq, topic, [b"after"])
        assert sorted(await drain(h, mq, early, 2), key=repr) == [b"after", b"before"]
        assert await drain(h, mq, late, 1) == [b"after"]


@behaviour(19)
async def offline_group_keeps_messages(h: Harness) -> None:
    """A declared group that nobody reads keeps what is sent, also over its members' comings and goings."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        group = h.subscription(topic)
        await mq.declare(group)
        await fill(mq, topic, bodies(3))
        assert sorted(await drain(h, mq, group, 3), key=repr) == bodies(3)
        await fill(mq, topic, bodies(3, first=3))
    async with kit.client(h) as mq:
        assert sorted(await drain(h, mq, group, 3), key=repr) == bodies(3, first=3)


@behaviour(20)
async def anonymous_group_is_cleaned(h: Harness) -> None:
    """Subscriptions without a name are private, get all that is sent while they are open, and leave nothing behind."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        before = h.places() if h.places is not None else set()
        async with mq.receiver(Subscription(topic)) as first, mq.receiver(Subscription(topic)) as second:
            await first.ready(h.patience_s)
            await second.ready(h.patience_s)
            await fill(mq, topic, [b"for both"])
            for receiver in (first, second):
                delivery = await one(h, receiver)
                assert delivery.body == b"for both"
                delivery.ack()
        await fill(mq, topic, [b"for nobody"])
        async with mq.receiver(Subscription(topic)) as third:
            await third.ready(h.patience_s)
            await nothing(h, third)
        places = h.places
        if places is not None:
            await kit.eventually(lambda: places() <= before, h.patience_s, "the private places are gone")


@behaviour(81, needs=("filters",))
async def filter_semantics(h: Harness) -> None:
    """`subjects` are alternatives (`*` one word, `#` any number), all of `where` must hold, and both must match."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        one_word = h.subscription(topic, "star", subjects=["orders.*.eu", "refunds"])
        any_words = h.subscription(topic, "hash", subjects=["orders.#"])
        where = h.subscription(topic, "where", where={"tenant": "a", "kind": "x"})
        both = h.subscription(topic, "both", subjects=["orders.#"], where={"tenant": "a"})
        for group in (one_word, any_words, where, both):
            await mq.declare(group)
        sent = {
            b"1": ("orders.new.eu", {"tenant": "a", "kind": "x"}),
            b"2": ("orders.new.big.eu", {"tenant": "b", "kind": "x"}),
            b"3": ("orders", {"tenant": "a"}),
            b"4": ("refunds", {"tenant": "a", "kind": "x"}),
            b"5": ("other", {}),
        }
        for body, (subject, headers) in sent.items():
            await mq.send(topic, Message(body, subject=subject, headers=dict(headers)))
        assert sorted(await drain(h, mq, one_word, 2), key=repr) == [b"1", b"4"]
        assert sorted(await drain(h, mq, any_words, 3), key=repr) == [b"1", b"2", b"3"]
        assert sorted(await drain(h, mq, where, 2), key=repr) == [b"1", b"4"]
        assert sorted(await drain(h, mq, both, 2), key=repr) == [b"1", b"3"]


@behaviour(114, needs=("filters", "filters_verified"))
async def another_filter_on_a_group_is_noticed(h: Harness) -> None:
    """A subscription has one filter: opening it with another is a mismatch, and declaring can replace it."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        group = h.subscription(topic, subjects=["a"])
        other = Subscription(topic, group.name, subjects=["b"])
        await mq.declare(group)
        with refused(unimq.TopologyMismatch):
            async with mq.receiver(other) as receiver:
                await receiver.ready(h.patience_s)
        await mq.declare(other, replace_filters=True)
        await mq.send(topic, Message(b"a", subject="a"))
        await mq.send(topic, Message(b"b", subject="b"))
        async with mq.receiver(other) as receiver:
            taken = await take(h, receiver, 1)
            assert [delivery.body for delivery in taken] == [b"b"]
            taken[0].ack()
            await nothing(h, receiver)
