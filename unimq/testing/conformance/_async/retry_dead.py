"""Retries and dead letters: a finite number of tries, then a place to rest, with the reason."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import cast

import unimq
from unimq import Message, Retry
from unimq.address import HeaderValue
from unimq.retry import DeadLetter as DieNow

from ...harness import Harness
from .._check import refused
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, dead, drain, drain_all, fill, nothing, one, pass_time, take

NO_DELAYS = Retry(immediate=0, delayed_s=[])


class Boom(Exception):
    """What a handler raises here."""


@behaviour(29, needs=("ack", "retry_delay"))
async def retry_delay_observed(h: Harness) -> None:
    """`retry(delay_s)` brings the message back counted, not before its delay, and others pass meanwhile."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"slow"])
        async with mq.receiver(queue, retry=Retry(immediate=0, delayed_s=[h.delay_s])) as receiver:
            delivery = await one(h, receiver)
            delivery.retry(delay_s=h.delay_s)
            await receiver.flush()
            await fill(mq, queue, [b"quick"])
            quick = await one(h, receiver)
            assert quick.body == b"quick", "a waiting retry blocks the others"
            quick.ack()
            if h.clock is not None:
                await pass_time(h, h.delay_s * 0.8)
                await nothing(h, receiver)
                await pass_time(h, h.delay_s * 0.4)
            again = await one(h, receiver)
            assert again.body == b"slow" and again.attempt == 2
            again.ack()
            await receiver.flush()
            await nothing(h, receiver)


@behaviour(36, needs=("ack", "dead_letter"))
async def immediate_attempts_counted(h: Harness) -> None:
    """An exception inside `with delivery` is tried again at once, counted, and ends dead as exhausted with its error."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"bad"])
        attempts: list[int] = []
        async with mq.receiver(queue, retry=Retry(immediate=2, delayed_s=[])) as receiver:
            for _ in range(3):
                with await one(h, receiver) as delivery:
                    attempts.append(delivery.attempt)
                    raise Boom("broken")
            await receiver.flush()
            await nothing(h, receiver)
        assert attempts == [1, 2, 3]
        (letter,) = await dead(h, mq, queue)
        assert letter.reason == "exhausted" and letter.attempts == 3
        assert letter.error_type is not None and letter.error_type.endswith("Boom")


@behaviour(37, needs=("ack", "retry_delay"))
async def delayed_attempts_counted_across_processes(h: Harness) -> None:
    """The count of tries travels with the message: another client goes on counting."""
    policy = Retry(immediate=0, delayed_s=[h.delay_s, h.delay_s, h.delay_s])
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"again"])
    for attempt in (1, 2, 3):
        async with kit.client(h) as mq:
            async with mq.receiver(queue, retry=policy) as receiver:
                delivery = await one(h, receiver)
                assert delivery.attempt == attempt
                delivery.retry(delay_s=h.delay_s)
                await receiver.flush()
        if h.clock is not None:
            await pass_time(h, h.delay_s * 1.1)
    async with kit.client(h) as mq:
        async with mq.receiver(queue, retry=policy) as receiver:
            delivery = await one(h, receiver)
            assert delivery.attempt == 4
            delivery.ack()


@behaviour(39, needs=("ack", "dead_letter"))
async def exhausted_goes_to_dead_letters_with_reason(h: Harness) -> None:
    """A retry beyond the policy goes to the dead letters as exhausted; it does not come again and is not lost."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"worn out"])
        async with mq.receiver(queue, retry=NO_DELAYS) as receiver:
            (await one(h, receiver)).retry()
            await receiver.flush()
            await nothing(h, receiver)
        (letter,) = await dead(h, mq, queue)
        assert letter.reason == "exhausted"
        assert letter.delivery.body == b"worn out"
        assert letter.attempts == 1


@behaviour(40, needs=("ack", "dead_letter"))
async def dead_letter_keeps_body_headers_key(h: Harness) -> None:
    """A dead letter is the message it was: body, headers, key, subject, content type, ids."""
    sent = Message(
        b"\x00\xff", key="k", subject="a.b", headers={"tenant": "a"}, content_type="application/x-own",
        message_id=h.unique("id"), correlation_id="c",
    )  # fmt: skip
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, sent)
        async with mq.receiver(queue) as receiver:
            (await one(h, receiver)).dead_letter("checked", "and found wanting")
            await receiver.flush()
        (letter,) = await dead(h, mq, queue)
        found = letter.delivery
        assert found.body == sent.body and letter.body == sent.body
        assert found.key == "k" and found.subject == "a.b" and dict(found.headers) == {"tenant": "a"}
        assert found.content_type == sent.content_type
        assert found.message_id == sent.message_id and found.correlation_id == "c"


@behaviour(42, needs=("ack", "dead_letter"))
async def fatal_exception_skips_retries(h: Harness) -> None:
    """A handler that raises `retry.DeadLetter` has its message die at once, whatever the policy still allows."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"fatal"])
        async with mq.receiver(queue, retry=Retry(immediate=5)) as receiver:
            with await one(h, receiver):
                raise DieNow("no such order", "order 7")
            await receiver.flush()
            await nothing(h, receiver)
        (letter,) = await dead(h, mq, queue)
        assert letter.attempts == 1
        assert "no such order" in (letter.reason, letter.description) or "no such order" in str(
            letter.description
        )


@behaviour(44, needs=("ack", "retry_delay"))
async def retry_does_not_block_others(h: Harness) -> None:
    """Messages that wait for their retry neither fill the prefetch nor stand before the others."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(10))
        async with mq.receiver(
            queue, prefetch=5, retry=Retry(immediate=0, delayed_s=[h.delay_s * 3])
        ) as receiver:
            for delivery in await take(h, receiver, 5):
                delivery.retry(delay_s=h.delay_s * 3)
            others = await take(h, receiver, 5)
            assert sorted(delivery.body or b"" for delivery in others) == bodies(5, first=5)
            receiver.ack(others)
            await receiver.flush()
            if h.clock is not None:
                await pass_time(h, h.delay_s * 3.3)
            again = await take(h, receiver, 5)
            assert sorted(delivery.body or b"" for delivery in again) == bodies(5)
            receiver.ack(again)
            await receiver.flush()


@behaviour(46, needs=("ack", "dead_letter"))
async def explicit_dead_letter(h: Harness) -> None:
    """`dead_letter(reason, description)` puts the message to rest with both, and where and when it died."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"rotten", b"sound"])
        async with mq.receiver(queue) as receiver:
            for delivery in await take(h, receiver, 2):
                if delivery.body == b"rotten":
                    delivery.dead_letter("smells", "of fish")
                else:
                    delivery.ack()
            await receiver.flush()
            await nothing(h, receiver)
        (letter,) = await dead(h, mq, queue)
        assert letter.delivery.body == b"rotten"
        assert letter.reason == "smells" and letter.description == "of fish"
        assert letter.died_at is not None and letter.died_at.tzinfo is not None
        assert await mq.dead_letters(queue).count() in (1, None)


@behaviour(50, needs=("ack", "dead_letter", "browse"))
async def dead_letter_browse_non_destructive(h: Harness) -> None:
    """Looking at dead letters takes none: the next look finds them all."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(5))
        async with mq.receiver(queue) as receiver:
            for delivery in await take(h, receiver, 5):
                delivery.dead_letter("why")
            await receiver.flush()
        first = {letter.delivery.body for letter in await dead(h, mq, queue, 5)}
        second = {letter.delivery.body for letter in await dead(h, mq, queue, 5)}
        assert first == second == set(bodies(5))
        assert len(await mq.dead_letters(queue).browse(limit=2)) == 2
        with refused(unimq.UnimqError):
            (await mq.dead_letters(queue).browse(limit=1))[0].delivery.ack()


@behaviour(51, needs=("ttl", "dead_letter"))
async def native_dead_letter_reason_mapped(h: Harness) -> None:
    """What the broker itself dead-letters is read in the same shape, with a reason of ours."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.receiver(queue):
            pass  # a receiver has made the dead-letter place
        await mq.send(queue, Message(b"too late", headers={"tenant": "a"}, ttl_s=h.delay_s))
        await pass_time(h, h.delay_s * 1.5)
        async with mq.receiver(queue) as receiver:
            await nothing(h, receiver)
        (letter,) = await dead(h, mq, queue)
        assert letter.reason == "expired", letter.reason
        assert letter.delivery.body == b"too late" and letter.delivery.headers["tenant"] == "a"


@behaviour(52, needs=("ack",))
async def mutated_headers_do_not_leak_to_next_attempt(h: Harness) -> None:
    """What a handler does to a delivery's headers is gone at the next try."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(b"x", headers={"a": "1"}))
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            try:
                cast("MutableMapping[str, HeaderValue]", delivery.headers)["b"] = "2"
            except TypeError:
                pass  # read-only is as good
        async with mq.receiver(queue) as receiver:
            again = await one(h, receiver)
            assert dict(again.headers) == {"a": "1"}
            again.ack()


# -------------------------------------------------------------------------------------- beyond the list of semantics
@behaviour(103, needs=("ack", "dedup", "retry_delay", "dead_letter"))
async def dead_then_replayed_inside_a_duplicate_window(h: Harness) -> None:
    """Retry, dead, replay, retry again, all inside one duplicate window: nothing is taken for a duplicate."""
    policy = Retry(immediate=0, delayed_s=[h.delay_s])
    async with kit.client(h) as mq:
        queue = h.queue()
        await mq.declare(queue, dedup_window_s=600)
        await mq.send(queue, Message(b"stubborn", message_id=h.unique("id")))
        async with mq.receiver(queue, retry=policy) as receiver:
            for life in (1, 2):
                first = await one(h, receiver)
                assert (first.body, first.attempt) == (b"stubborn", 1)
                first.retry(delay_s=h.delay_s)
                await receiver.flush()
                if h.clock is not None:
                    await pass_time(h, h.delay_s * 1.2)
                second = await one(h, receiver)
                assert (second.body, second.attempt) == (b"stubborn", 2), f"life {life}"
                if life == 2:
                    second.ack()
                    await receiver.flush()
                    break
                second.retry(delay_s=h.delay_s)  # beyond the policy
                await receiver.flush()
                (letter,) = await dead(h, mq, queue)
                assert letter.reason == "exhausted"
                assert await mq.dead_letters(queue).replay() == 1
            await nothing(h, receiver)


@behaviour(104, needs=("ack", "dedup", "release"))
async def release_twice_inside_a_duplicate_window(h: Harness) -> None:
    """A message released twice inside one duplicate window comes back twice."""
    async with kit.client(h) as mq:
        queue = h.queue()
        await mq.declare(queue, dedup_window_s=600)
        receipt = await mq.send(queue, Message(b"hot", message_id=h.unique("id")))
        async with mq.receiver(queue) as receiver:
            for _ in range(2):
                delivery = await one(h, receiver)
                assert delivery.message_id == receipt.message_id
                delivery.release()
                await receiver.flush()
            last = await one(h, receiver)
            assert last.body == b"hot" and last.message_id == receipt.message_id
            last.ack()
            await receiver.flush()
            await nothing(h, receiver)


@behaviour(105, needs=("ack", "retry_delay"))
async def policy_changed_while_messages_wait(h: Harness) -> None:
    """Messages that wait for a delay which the policy of today no longer names still come back: none waits unread."""
    yesterday = Retry(immediate=0, delayed_s=[h.delay_s])
    today = Retry(immediate=0, delayed_s=[h.delay_s * 2])
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(3))
        async with mq.receiver(queue, retry=yesterday) as receiver:
            for delivery in await take(h, receiver, 3):
                delivery.retry(delay_s=h.delay_s)
            await receiver.flush()
    async with kit.client(h) as mq:
        if h.clock is not None:
            await pass_time(h, h.delay_s * 1.2)
        async with mq.receiver(queue, retry=today) as receiver:
            again = await take(h, receiver, 3)
            assert sorted(delivery.body or b"" for delivery in again) == bodies(3)
            assert {delivery.attempt for delivery in again} == {2}
            receiver.ack(again)
            await receiver.flush()


@behaviour(117, needs=("ack",))
async def no_policy_no_retry(h: Harness) -> None:
    """With `retry=None` both `retry` and `with` are refused, and the message is still in hand."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(1))
        async with mq.receiver(queue, retry=None) as receiver:
            delivery = await one(h, receiver)
            with refused(unimq.Unsupported):
                delivery.retry()
            with refused(unimq.Unsupported):
                with delivery:
                    pass
            delivery.ack()
            await receiver.flush()
        assert await drain(h, mq, queue, 0) == []


@behaviour(118, needs=("ack",))
async def base_exception_gives_back(h: Harness) -> None:
    """Leaving `with delivery` by something that is no Exception gives the message back and lets it through."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, bodies(1))
        async with mq.receiver(queue) as receiver:
            with refused(GeneratorExit):
                with await one(h, receiver):
                    raise GeneratorExit
        assert set(await drain_all(h, mq, queue, set(bodies(1)))) == set(bodies(1))
