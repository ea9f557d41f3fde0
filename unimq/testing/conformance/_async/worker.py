"""What a worker makes of a message that fails: tries in hand, tries later, the dead letters, and the others meanwhile.

Rules
- The worker stands on a client of the case; its handlers are coroutines here, plain functions in the twin.
- Handlers write down what they saw; the case waits for that, with a limit.
"""

from __future__ import annotations

import time

from unimq import Delivery, Message, Retry, RetryLater, Worker
from unimq.retry import DeadLetter as DieNow
from unimq.worker import BadHandler

from ...harness import Harness
from .._check import refused
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, dead, drain, fill, nothing, pass_time, until

NO_DELAYS = Retry(immediate=0, delayed_s=[])


class Boom(Exception):
    """What a handler raises here."""


@behaviour(41, needs=("ack", "dead_letter", "unroutable", "browse"), limit_s=90)
async def dead_letter_failure_leaves_source_unsettled(h: Harness) -> None:
    """A dead letter that cannot be written is not lost: no hot loop, health says so, and it goes on once the place is there."""
    async with kit.client(h) as mq:
        queue, graves = await a_queue(mq, h), await a_queue(mq, h, "graves")
        tries: list[bytes] = []
        worker = Worker(mq)

        @worker.handler(queue, retry=NO_DELAYS, dead_letter=graves)
        async def fail(body: bytes) -> None:
            tries.append(body)
            raise Boom("always")

        async with kit.working(worker):
            await mq.delete(graves)
            await fill(mq, queue, bodies(3))
            await kit.eventually(lambda: len(tries) == 3, h.patience_s, "each was tried")
            await kit.eventually(lambda: not worker.health().ok, h.patience_s, "health is bad")
            await kit.sleep(1.5)  # over the first back-off: the copy is tried again, the handler is not
            assert len(tries) == 3, f"a hot loop: {len(tries)} tries of 3 messages"
            await mq.declare(graves)

            async def rest() -> bool:
                return len(await mq.browse(graves)) == 3

            await kit.eventually(rest, h.patience_s + 15.0, "all rest in the place that is there again")
            await kit.eventually(lambda: worker.health().ok, h.patience_s, "health is good again")
        async with mq.receiver(queue) as receiver:
            await nothing(h, receiver)


@behaviour(43, needs=("ack", "dead_letter"))
async def undecodable_goes_to_dead_letters_not_loop(h: Harness) -> None:
    """A body that the handler's annotation cannot be made of is dead at once, `undecodable`, and the handler never sees it."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        seen: list[dict[str, int]] = []
        worker = Worker(mq)

        @worker.handler(queue, retry=Retry(immediate=5, delayed_s=[h.delay_s]))
        async def work(body: dict[str, int]) -> None:
            seen.append(body)

        async with kit.working(worker):
            await fill(mq, queue, [b"no JSON", b'{"n": 1}'])
            (letter,) = await dead(h, mq, queue)
            await kit.eventually(lambda: seen == [{"n": 1}], h.patience_s, "the good one is handled")
        assert letter.reason == "undecodable" and letter.body == b"no JSON"
        assert seen == [{"n": 1}] and letter.attempts == 1


@behaviour(126, needs=("ack", "retry_delay", "dead_letter"))
async def worker_tries_in_hand_then_later_then_dead(h: Harness) -> None:
    """A worker tries `1 + immediate` times a stage, stages joined by delays, each counted; then it is dead, as it was sent."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        seen: list[int] = []
        worker = Worker(mq)

        @worker.handler(queue, retry=Retry(immediate=1, delayed_s=[h.delay_s, h.delay_s]))
        async def fail(body: bytes, delivery: Delivery) -> None:
            seen.append(delivery.attempt)
            raise Boom("always")

        sent = Message(b"bad", key="k", headers={"tenant": "a"}, message_id=h.unique("id"))
        async with kit.working(worker):
            await mq.send(queue, sent)
            await until(h, lambda: len(seen) == 6, "six tries")
            (letter,) = await dead(h, mq, queue)
        assert seen == [1, 2, 3, 4, 5, 6]
        assert letter.reason == "exhausted" and letter.attempts == 6
        assert letter.error_type is not None and letter.error_type.endswith("Boom")
        assert letter.first_failed_at is not None and letter.died_at is not None
        assert letter.first_failed_at <= letter.died_at
        found = letter.delivery
        assert (found.body, found.key, found.message_id) == (sent.body, "k", sent.message_id)
        assert dict(found.headers) == {"tenant": "a"}


@behaviour(127, needs=("ack", "dead_letter"))
async def worker_classes_and_signals_decide(h: Harness) -> None:
    """`fatal=` and what is not in `retry_on=` die at their first try, `retry.DeadLetter` with its own reason."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        seen: list[str] = []
        worker = Worker(mq)
        raised = {
            "fatal": ConnectionRefusedError("for good"),
            "listed": ConnectionError("passes"),
            "unlisted": ValueError("not in the list"),
            "signal": DieNow("no such order", "order 7"),
        }

        @worker.handler(
            queue,
            retry=Retry(immediate=1, delayed_s=[]),
            fatal=ConnectionRefusedError,
            retry_on=ConnectionError,
        )
        async def work(kind: str) -> None:
            seen.append(kind)
            if kind in raised:
                raise raised[kind]

        async with kit.working(worker):
            for kind in (*raised, "good"):
                await mq.send(queue, Message(kind))
            letters = await dead(h, mq, queue, 4)
            await kit.eventually(lambda: "good" in seen, h.patience_s, "the good one is handled")
        assert {letter.delivery.decode(str): (letter.reason, letter.attempts) for letter in letters} == {
            "fatal": ("fatal", 1),
            "listed": ("exhausted", 2),
            "unlisted": ("fatal", 1),
            "signal": ("no such order", 1),
        }
        assert sorted(seen) == ["fatal", "good", "listed", "listed", "signal", "unlisted"]


@behaviour(128, needs=("ack", "retry_delay"))
async def worker_retry_does_not_block_others(h: Harness) -> None:
    """While more messages than the prefetch wait for their retry, all others are handled; then those come again."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        seen: list[tuple[bytes, int]] = []
        worker = Worker(mq)
        bad, good = bodies(10), bodies(30, first=10)

        @worker.handler(queue, concurrency=2, prefetch=5, retry=Retry(immediate=0, delayed_s=[h.delay_s * 3]))
        async def work(body: bytes, delivery: Delivery) -> None:
            seen.append((body, delivery.attempt))
            if body in bad and delivery.attempt == 1:
                raise Boom("not yet")

        async with kit.working(worker):
            await fill(mq, queue, bad + good)
            await kit.eventually(lambda: len(seen) == 40, h.patience_s, "all are seen, time standing still")
            assert {attempt for _, attempt in seen} == {1}, "the others waited for a retry"
            await until(h, lambda: len(seen) == 50, "the bad ones again")
        assert sorted(seen) == sorted([(body, 1) for body in bad + good] + [(body, 2) for body in bad])


@behaviour(129, needs=("ack", "retry_delay"))
async def worker_policy_changed_while_messages_wait(h: Harness) -> None:
    """Messages that wait under yesterday's policy are handled by the worker of today, counted on."""
    contents = bodies(20)
    seen: list[tuple[bytes, int]] = []
    failed: list[bytes] = []
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, contents)
        before = Worker(mq)

        @before.handler(queue, concurrency=4, retry=Retry(immediate=0, delayed_s=[h.delay_s]))
        async def fail(body: bytes) -> None:
            failed.append(body)
            raise Boom("not yet")

        async with kit.working(before):
            await kit.eventually(lambda: len(failed) >= 20, h.patience_s, "all failed once")
    async with kit.client(h) as mq:
        after = Worker(mq)

        @after.handler(
            queue, concurrency=4, retry=Retry(immediate=2, delayed_s=[h.delay_s * 3, h.delay_s * 9])
        )
        async def work(body: bytes, delivery: Delivery) -> None:
            seen.append((body, delivery.attempt))

        async with kit.working(after):
            await until(h, lambda: len(seen) >= 20, "all are handled")
    assert sorted(body for body, _ in seen) == contents
    assert all(attempt >= 2 for _, attempt in seen), "the count of tries was lost"


@behaviour(130, needs=("ack", "retry_delay"))
async def worker_short_delay_not_behind_long(h: Harness) -> None:
    """`RetryLater` takes its own delay: none comes early, and a short one does not stand behind a long one."""
    long_s, short_s = h.delay_s * 4, h.delay_s
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        again: list[tuple[str, float]] = []
        failed: list[str] = []
        worker = Worker(mq)

        @worker.handler(queue, retry=Retry(immediate=0, delayed_s=[short_s, long_s]))
        async def work(kind: str, delivery: Delivery) -> None:
            if delivery.attempt > 1:
                again.append((kind, time.monotonic()))
                return
            failed.append(kind)
            raise RetryLater(long_s if kind == "long" else short_s)

        async with kit.working(worker):
            for kind in ("long", "short"):
                await mq.send(queue, Message(kind))
            await kit.eventually(lambda: len(failed) == 2, h.patience_s, "both failed")
            failed_at = time.monotonic()
            if h.clock is not None:
                await pass_time(h, short_s * 0.8)
                await kit.sleep(h.quiet_s)
                assert not again, "it came early"
            await until(h, lambda: len(again) == 2, "both again")
        assert [kind for kind, _ in again] == ["short", "long"]
        if h.clock is None:
            assert again[0][1] - failed_at >= short_s * 0.9, "it came early"
            assert again[1][1] - failed_at >= long_s * 0.9, "it came early"


@behaviour(131, needs=("ack", "dead_letter"))
async def worker_nobody_matches_is_rejected(h: Harness) -> None:
    """Handlers of one source share it by `match=`; what none of them takes is dead, `rejected`."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        seen: list[tuple[str, str]] = []
        worker = Worker(mq)

        @worker.handler(queue, match={"kind": "a"})
        async def on_a(body: str) -> None:
            seen.append(("a", body))

        @worker.handler(queue, match=lambda delivery: delivery.headers.get("kind") == "b")
        async def on_b(body: str) -> None:
            seen.append(("b", body))

        async with kit.working(worker):
            for kind in "abc":
                await mq.send(queue, Message(f"for {kind}", headers={"kind": kind}))
            (letter,) = await dead(h, mq, queue)
            await kit.eventually(lambda: len(seen) == 2, h.patience_s, "two are handled")
        assert sorted(seen) == [("a", "for a"), ("b", "for b")]
        assert letter.reason == "rejected" and letter.delivery.decode(str) == "for c"


@behaviour(132, needs=("ack", "dead_letter"))
async def worker_result_is_sent_before_the_ack(h: Harness) -> None:
    """What a handler returns is in `to=` when its message is settled; a result that cannot be sent is a failed try."""
    async with kit.client(h) as mq:
        queue, results = await a_queue(mq, h), await a_queue(mq, h, "results")
        worker = Worker(mq)

        @worker.handler(queue, to=results, retry=Retry(immediate=1, delayed_s=[]))
        async def work(n: int) -> object:
            return {"n": n} if n else object()

        async with kit.working(worker):
            await fill(mq, queue, [b"0", b"1", b"2"])
            (letter,) = await dead(h, mq, queue)
            assert sorted(await drain(h, mq, results, 2), key=repr) == [b'{"n":1}', b'{"n":2}']
        assert letter.body == b"0" and letter.attempts == 2
        async with mq.receiver(queue) as receiver:
            await nothing(h, receiver)


@behaviour(133, needs=("ack", "dead_letter"))
async def worker_batch_that_fails_is_tried_one_by_one(h: Harness) -> None:
    """A failing batch costs its good messages nothing: each is tried alone, and only the bad one dies."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"%d" % n for n in range(20)])
        handled: list[int] = []
        worker = Worker(mq)

        @worker.handler(queue, batch=10, prefetch=40, retry=Retry(immediate=1, delayed_s=[]))
        async def work(numbers: list[int]) -> None:
            if 7 in numbers:
                raise Boom("a seven")
            handled.extend(numbers)

        async with kit.working(worker):
            (letter,) = await dead(h, mq, queue)
            await kit.eventually(lambda: len(handled) == 19, h.patience_s, "the others are handled")
        assert letter.body == b"7" and letter.reason == "exhausted"
        assert sorted(handled) == [n for n in range(20) if n != 7]


@behaviour(134, needs=("ack",))
async def worker_that_cannot_work_says_so_at_start(h: Harness) -> None:
    """Bad handlers fail at start with one sentence, and no message has moved."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await fill(mq, queue, [b"one"])

        async def no_annotation(body) -> None:  # type: ignore[no-untyped-def]
            raise AssertionError("it was called")

        async def good(body: bytes) -> None:
            raise AssertionError("it was called")

        twice, unread, topic = Worker(mq), Worker(mq), Worker(mq)
        twice.handler(queue)(good)
        twice.handler(queue)(good)
        unread.handler(queue)(no_annotation)
        topic.handler(h.topic())(good)  # type: ignore[arg-type]
        for worker, says in (
            (twice, "give one of them match="),
            (unread, "annotate"),
            (topic, "only sent to"),
        ):
            with refused(BadHandler) as caught:
                async with kit.working(worker):
                    raise AssertionError("it started")
            assert says in str(caught.error), caught.error
        assert await drain(h, mq, queue, 1) == [b"one"]
