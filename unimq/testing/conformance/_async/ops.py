"""Declaring, looking, counting, and what capabilities promise."""

from __future__ import annotations

from typing import Any

import unimq
from unimq import Message

from ....capabilities import FLAGS
from ...harness import Harness
from .._check import refused, within
from .._table import PROBES, behaviour
from . import _kit as kit
from ._help import a_queue, a_topic, bodies, drain, fill, nothing, one, take


@behaviour(95)
async def declare_idempotent(h: Harness) -> None:
    """Declaring what is there does nothing: messages, positions and options stay."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        topic = await a_topic(mq, h)
        group = h.subscription(topic)
        await mq.declare(group)
        await fill(mq, queue, bodies(2))
        await fill(mq, topic, bodies(2))
        for place in (queue, topic, group):
            report = await mq.declare(place)
            assert report.ok and not report.created, report
        assert sorted(await drain(h, mq, queue, 2), key=repr) == bodies(2)
        assert sorted(await drain(h, mq, group, 2), key=repr) == bodies(2)


@behaviour(96, hooks=("mismatch",))
async def declare_mismatch_reported_with_diff(h: Harness) -> None:
    """Declaring an existing place with other options is a mismatch that names what is there and what was asked for."""
    assert h.mismatch is not None
    there, asked = h.mismatch
    async with kit.client(h) as mq:
        queue = h.queue()
        await mq.declare(queue, **there)
        await mq.declare(queue, **there)
        with refused(unimq.TopologyMismatch) as caught:
            await mq.declare(queue, **asked)
        assert caught.error.differences, "it does not say what differs"
        report = await mq.declare(queue, verify_only=True, **asked)
        assert not report.ok and report.differences
        await fill(mq, queue, [b"unharmed"])
        assert await drain(h, mq, queue, 1) == [b"unharmed"]


@behaviour(97)
async def verify_mode_creates_nothing(h: Harness) -> None:
    """`verify_only` and topology="verify" say what is missing and create nothing."""
    queue = h.queue()
    async with kit.client(h) as mq:
        report = await mq.declare(queue, verify_only=True)
        assert not report.ok and report.missing and not report.created
        report = await mq.declare(queue, verify_only=True)
        assert report.missing, "the first verify created it"
    async with kit.client(h, topology="verify") as mq:
        with refused(unimq.NotFound, unimq.TopologyMismatch):
            async with mq.receiver(queue) as receiver:
                await receiver.ready(h.patience_s)
    async with kit.client(h) as mq:
        assert (await mq.declare(queue, verify_only=True)).missing, "the receiver created it"
        assert (await mq.declare(queue)).created
        assert (await mq.declare(queue, verify_only=True)).ok


@behaviour(98, needs=("stats_depth",))
async def depth_matches_known(h: Harness) -> None:
    """The depth is the number of messages waiting; what the broker does not know is None, never 0."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)

        async def depth_is(count: int) -> bool:
            return (await mq.stats(queue)).depth == count

        await kit.eventually(lambda: depth_is(0), h.patience_s, "depth 0")
        await fill(mq, queue, bodies(7))
        await kit.eventually(lambda: depth_is(7), h.patience_s, "depth 7")
        assert len(await drain(h, mq, queue, 7)) == 7
        await kit.eventually(lambda: depth_is(0), h.patience_s, "depth 0 again")


@behaviour(102)
async def capabilities_are_true(h: Harness) -> None:
    """Every capability that is not there is refused when it is asked for, by name, before a message moves."""
    async with kit.client(h) as mq:
        capabilities = mq.capabilities
    declared = [flag for flag in FLAGS if getattr(capabilities, flag)]
    async with kit.client(h, require=declared):
        pass  # what is there may be required
    wrong: list[str] = []
    for flag in FLAGS:
        if flag in declared:
            continue
        try:
            async with kit.client(h, require=[flag]):
                wrong.append(f"{flag}: connect(require=[{flag!r}]) was not refused")
        except unimq.Unsupported as error:
            if flag not in str(error):
                wrong.append(f"{flag}: the refusal does not name it: {error}")
        prove: Any = PROBES[kit.WORLD].get(flag)
        if prove is not None:
            try:
                await prove(h)
            except AssertionError as error:
                wrong.append(f"{flag}: {error}")
    assert not wrong, "; ".join(wrong)


@behaviour(112, needs=("purge",))
async def purge_empties(h: Harness) -> None:
    """Purging removes what waits, and what is sent after it stays."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(5))
        assert await mq.purge(queue) in (5, None)
        await fill(mq, queue, [b"after"])
        assert await drain(h, mq, queue, 1) == [b"after"]


@behaviour(113, needs=("browse",))
async def browse_takes_nothing(h: Harness) -> None:
    """Browsing shows what waits, takes nothing, and cannot settle what it shows."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(4))
        found = await mq.browse(queue, limit=3)
        assert [delivery.body for delivery in found] == bodies(3)
        with refused(unimq.UnimqError):
            found[0].ack()
        assert [delivery.body for delivery in await mq.browse(queue)] == bodies(4)
        async with mq.receiver(queue) as receiver:
            taken = await take(h, receiver, 4)
            assert [delivery.body for delivery in taken] == bodies(4)
            if mq.capabilities.browse is unimq.Support.NATIVE:  # an emulation holds the messages for a moment
                assert not any(delivery.redelivered for delivery in taken), "browsing counted as a delivery"
            receiver.ack(taken)
            await receiver.flush()


@behaviour(115)
async def emulation_is_refused_where_it_is_not_allowed(h: Harness) -> None:
    """With `allow_emulation=False` requiring what is only emulated is refused at connect."""
    emulated = [flag for flag in FLAGS if getattr(h.capabilities, flag) is unimq.Support.EMULATED]
    native = [flag for flag in FLAGS if getattr(h.capabilities, flag) is unimq.Support.NATIVE]
    async with kit.client(h, require=native, allow_emulation=False):
        pass
    for flag in emulated:
        with refused(unimq.Unsupported):
            async with kit.client(h, require=[flag], allow_emulation=False):
                pass


@behaviour(124)
async def receiver_fixes_its_position(h: Harness) -> None:
    """What is sent after `declare` returned, or after a receiver opened, is received: nothing falls in between."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        declared = h.subscription(topic, "declared")
        opened = h.subscription(topic, "opened")
        await mq.declare(declared)
        async with mq.receiver(opened) as receiver:
            await mq.send(topic, Message(b"at once"))
            delivery = await one(h, receiver)
            assert delivery.body == b"at once"
            delivery.ack()
        assert await drain(h, mq, declared, 1) == [b"at once"]


@behaviour(125)
async def wrong_url_is_one_clear_error(h: Harness) -> None:
    """An unknown option in the URL is refused by name, before anything is connected."""
    with within(5.0, "refusing a URL"):
        with refused(unimq.UnimqError) as caught:
            async with kit.client(h, h.url_with(no_such_option=1)) as mq:
                await nothing(h, mq.receiver(h.queue()))
    assert "no_such_option" in str(caught.error)
