"""Replay: dead letters back into life, to their own group, begun anew, none lost."""

from __future__ import annotations

import unimq
from unimq import DeadLetter, Queue, Retry, Subscription

from ...harness import Harness
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, a_topic, bodies, dead, drain, drain_all, fill, nothing, one, take

NO_DELAYS = Retry(immediate=0, delayed_s=[])
BATCH = 100  # a replay's: what may come twice when one is broken off


async def die(h: Harness, mq: unimq.AsyncClient, source: Queue | Subscription, count: int) -> None:
    """The next `count` messages of `source` are dead."""
    async with mq.receiver(source) as receiver:
        for delivery in await take(h, receiver, count):
            delivery.dead_letter("why")
        await receiver.flush()


@behaviour(47, needs=("ack", "dead_letter"))
async def replay_returns_to_source_group_only(h: Harness) -> None:
    """A replayed message comes to the group that it failed in; the topic's other groups do not see it again."""
    async with kit.client(h) as mq:
        topic = await a_topic(mq, h)
        failed, other = h.subscription(topic), h.subscription(topic)
        for group in (failed, other):
            async with mq.receiver(group) as receiver:  # its position is fixed
                await receiver.ready(h.patience_s)
        await fill(mq, topic, [b"x"])
        await die(h, mq, failed, 1)
        assert await drain(h, mq, other, 1) == [b"x"]
        await dead(h, mq, failed, 1)
        assert await mq.dead_letters(failed).replay() == 1
        assert await drain(h, mq, failed, 1) == [b"x"]
        async with mq.receiver(other) as receiver:
            await nothing(h, receiver)
        assert not await mq.dead_letters(failed).browse() and not await mq.dead_letters(other).browse()


@behaviour(48, needs=("ack", "dead_letter"))
async def replay_resets_attempt_keeps_history(h: Harness) -> None:
    """A replayed message begins anew at its first try, and its history has what it died of before."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"twice"])
        attempts: list[int] = []
        async with mq.receiver(queue, retry=Retry(immediate=1, delayed_s=[])) as receiver:
            for tries in (2, 1):
                for _ in range(tries):
                    with await one(h, receiver) as delivery:
                        attempts.append(delivery.attempt)
                        if tries == 1:
                            delivery.dead_letter("rejected", "the second life")
                            continue
                        raise ValueError("the first life")
                await receiver.flush()
                (letter,) = await dead(h, mq, queue)
                if tries == 2:
                    assert letter.reason == "exhausted" and letter.attempts == 2
                    assert await mq.dead_letters(queue).replay() == 1
        assert attempts == [1, 2, 1]
        assert letter.reason == "rejected" and letter.attempts == 1
        history = " | ".join(letter.history)
        assert len(letter.history) == 3, history
        assert "exhausted" in letter.history[0] and "replayed" in letter.history[1], history


@behaviour(49, needs=("ack", "dead_letter"), hooks=("proxy",), limit_s=120)
async def replay_crash_midway_duplicates_never_loses(h: Harness) -> None:
    """A replay whose line dies half way leaves duplicates at most: run again, everything is back."""
    assert h.proxy is not None
    contents = bodies(200)
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, contents)
        for _ in range(2):
            await die(h, mq, queue, 100)
    with h.proxy() as line:
        cuts: list[int] = []

        def cut_half_way(letter: DeadLetter) -> bool:
            if letter.body == contents[100] and not cuts:
                cuts.append(1)
                line.cut()
            return True

        async with kit.client(h, line.url(h.url)) as mq:
            try:
                await mq.dead_letters(queue).replay(where=cut_half_way)
            except unimq.UnimqError as error:
                if not error.retryable:
                    raise
            assert cuts, "the line was never cut"
    async with kit.client(h) as mq:
        letters = mq.dead_letters(queue)

        async def none_left() -> bool:
            await letters.replay()
            return not await letters.browse(limit=1)

        await kit.eventually(none_left, h.patience_s * 2, "the rest is replayed")
        seen = await drain_all(h, mq, queue, set(contents))
        assert set(seen) == set(contents), f"{len(set(contents) - set(seen))} are lost"
        assert len(seen) <= len(contents) + BATCH, f"{len(seen) - len(contents)} came twice"
