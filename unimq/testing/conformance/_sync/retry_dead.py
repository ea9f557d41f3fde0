# Generated from unimq/testing/conformance/_async/retry_dead.py by tools/unasync.py; do not edit.
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
def retry_delay_observed(h: Harness) -> None:
    """`retry(delay_s)` brings the message back counted, not before its delay, and others pass meanwhile."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"slow"])
        with mq.receiver(queue, retry=Retry(immediate=0, delayed_s=[h.delay_s])) as receiver:
            delivery = one(h, receiver)
            delivery.retry(delay_s=h.delay_s)
            receiver.flush()
            fill(mq, queue, [b"quick"])
            quick = one(h, receiver)
            assert quick.body == b"quick", "a waiting retry blocks the others"
            quick.ack()
            if h.clock is not None:
                pass_time(h, h.delay_s * 0.8)
                nothing(h, receiver)
                pass_time(h, h.delay_s * 0.4)
            again = one(h, receiver)
            assert again.body == b"slow" and again.attempt == 2
            again.ack()
            receiver.flush()
            nothing(h, receiver)


@behaviour(36, needs=("ack", "dead_letter"))
def immediate_attempts_counted(h: Harness) -> None:
    """An exception inside `with delivery` is tried again at once, counted, and ends dead as exhausted with its error."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"bad"])
        attempts: list[int] = []
        with mq.receiver(queue, retry=Retry(immediate=2, delayed_s=[])) as receiver:
            for _ in range(3):
                with one(h, receiver) as delivery:
                    attempts.append(delivery.attempt)
                    raise Boom("broken")
            receiver.flush()
            nothing(h, receiver)
        assert attempts == [1, 2, 3]
        (letter,) = dead(h, mq, queue)
        assert letter.reason == "exhausted" and letter.attempts == 3
        assert letter.error_type is not None and letter.error_type.endswith("Boom")


@behaviour(37, needs=("ack", "retry_delay"))
def delayed_attempts_counted_across_processes(h: Harness) -> None:
    """The count of tries travels with the message: another client goes on counting."""
    policy = Retry(immediate=0, delayed_s=[h.delay_s, h.delay_s, h.delay_s])
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"again"])
    for attempt in (1, 2, 3):
        with kit.client(h) as mq:
            with mq.receiver(queue, retry=policy) as receiver:
                delivery = one(h, receiver)
                assert delivery.attempt == attempt
                delivery.retry(delay_s=h.delay_s)
                receiver.flush()
        if h.clock is not None:
            pass_time(h, h.delay_s * 1.1)
    with kit.client(h) as mq:
        with mq.receiver(queue, retry=policy) as receiver:
            delivery = one(h, receiver)
            assert delivery.attempt == 4
            delivery.ack()


@behaviour(39, needs=("ack", "dead_letter"))
def exhausted_goes_to_dead_letters_with_reason(h: Harness) -> None:
    """A retry beyond the policy goes to the dead letters as exhausted; it does not come again and is not lost."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"worn out"])
        with mq.receiver(queue, retry=NO_DELAYS) as receiver:
            (one(h, receiver)).retry()
            receiver.flush()
            nothing(h, receiver)
        (letter,) = dead(h, mq, queue)
        assert letter.reason == "exhausted"
        assert letter.delivery.body == b"worn out"
        assert letter.attempts == 1


@behaviour(40, needs=("ack", "dead_letter"))
def dead_letter_keeps_body_headers_key(h: Harness) -> None:
    """A dead letter is the message it was: body, headers, key, subject, content type, ids."""
    sent = Message(
        b"\x00\xff", key="k", subject="a.b", headers={"tenant": "a"}, content_type="application/x-own",
        message_id=h.unique("id"), correlation_id="c",
    )  # fmt: skip
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        mq.send(queue, sent)
        with mq.receiver(queue) as receiver:
            (one(h, receiver)).dead_letter("checked", "and found wanting")
            receiver.flush()
        (letter,) = dead(h, mq, queue)
        found = letter.delivery
        assert found.body == sent.body and letter.body == sent.body
        assert found.key == "k" and found.subject == "a.b" and dict(found.headers) == {"tenant": "a"}
        assert found.content_type == sent.content_type
        assert found.message_id == sent.message_id and found.correlation_id == "c"


@behaviour(42, needs=("ack", "dead_letter"))
def fatal_exception_skips_retries(h: Harness) -> None:
    """A handler that raises `retry.DeadLetter` has its message die at once, whatever the policy still allows."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"fatal"])
        with mq.receiver(queue, retry=Retry(immediate=5)) as receiver:
            with one(h, receiver):
                raise DieNow("no such order", "order 7")
            receiver.flush()
            nothing(h, receiver)
        (letter,) = dead(h, mq, queue)
        assert letter.attempts == 1
        assert "no such order" in (letter.reason, letter.description) or "no such order" in str(
            letter.description
        )


@behaviour(44, needs=("ack", "retry_delay"))
def retry_does_not_block_others(h: Harness) -> None:
    """Messages that wait for their retry neither fill the prefetch nor stand before the others."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(10))
        with mq.receiver(queue, prefetch=5, retry=Retry(immediate=0, delayed_s=[h.delay_s * 3])) as receiver:
            for delivery in take(h, receiver, 5):
                delivery.retry(delay_s=h.delay_s * 3)
            others = take(h, receiver, 5)
            assert sorted(delivery.body or b"" for delivery in others) == bodies(5, first=5)
            receiver.ack(others)
            receiver.flush()
            if h.clock is not None:
                pass_time(h, h.delay_s * 3.3)
            again = take(h, receiver, 5)
            assert sorted(delivery.body or b"" for delivery in again) == bodies(5)
            receiver.ack(again)
            receiver.flush()


@behaviour(46, needs=("ack", "dead_letter"))
def explicit_dead_letter(h: Harness) -> None:
    """`dead_letter(reason, description)` puts the message to rest with both, and where and when it died."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"rotten", b"sound"])
        with mq.receiver(queue) as receiver:
            for delivery in take(h, receiver, 2):
                if delivery.body == b"rotten":
                    delivery.dead_letter("smells", "of fish")
                else:
                    delivery.ack()
            receiver.flush()
            nothing(h, receiver)
        (letter,) = dead(h, mq, queue)
        assert letter.delivery.body == b"rotten"
        assert letter.reason == "smells" and letter.description == "of fish"
        assert letter.died_at is not None and letter.died_at.tzinfo is not None
        assert mq.dead_letters(queue).count() in (1, None)


@behaviour(50, needs=("ack", "dead_letter", "browse"))
def dead_letter_browse_non_destructive(h: Harness) -> None:
    """Looking at dead letters takes none: the next look finds them all."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(5))
        with mq.receiver(queue) as receiver:
            for delivery in take(h, receiver, 5):
                delivery.dead_letter("why")
            receiver.flush()
        first = {letter.delivery.body for letter in dead(h, mq, queue, 5)}
        second = {letter.delivery.body for letter in dead(h, mq, queue, 5)}
        assert first == second == set(bodies(5))
        assert len(mq.dead_letters(queue).browse(limit=2)) == 2
        with refused(unimq.UnimqError):
            (mq.dead_letters(queue).browse(limit=1))[0].delivery.ack()


@behaviour(51, needs=("ttl", "dead_letter"))
def native_dead_letter_reason_mapped(h: Harness) -> None:
    """What the broker itself dead-letters is read in the same shape, with a reason of ours."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with mq.receiver(queue):
            pass  # a receiver has made the dead-letter place
        mq.send(queue, Message(b"too late", headers={"tenant": "a"}, ttl_s=h.delay_s))
        pass_time(h, h.delay_s * 1.5)
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)
        (letter,) = dead(h, mq, queue)
        assert letter.reason == "expired", letter.reason
        assert letter.delivery.body == b"too late" and letter.delivery.headers["tenant"] == "a"


@behaviour(52, needs=("ack",))
def mutated_headers_do_not_leak_to_next_attempt(h: Harness) -> None:
    """What a handler does to a delivery's headers is gone at the next try."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        mq.send(queue, Message(b"x", headers={"a": "1"}))
        with mq.receiver(queue) as receiver:
            delivery = one(h, receiver)
            try:
                cast("MutableMapping[str, HeaderValue]", delivery.headers)["b"] = "2"
            except TypeError:
                pass  # read-only is as good
        with mq.receiver(queue) as receiver:
            again = one(h, receiver)
            assert dict(again.headers) == {"a": "1"}
            again.ack()


# -------------------------------------------------------------------------------------- beyond the list of semantics
@behaviour(103, needs=("ack", "dedup", "retry_delay", "dead_letter"))
def dead_then_replayed_inside_a_duplicate_window(h: Harness) -> None:
    """Retry, dead, replay, retry again, all inside one duplicate window: nothing is taken for a duplicate."""
    policy = Retry(immediate=0, delayed_s=[h.delay_s])
    with kit.client(h) as mq:
        queue = h.queue()
        mq.declare(queue, dedup_window_s=600)
        mq.send(queue, Message(b"stubborn", message_id=h.unique("id")))
        with mq.receiver(queue, retry=policy) as receiver:
            for life in (1, 2):
                first = one(h, receiver)
                assert (first.body, first.attempt) == (b"stubborn", 1)
                first.retry(delay_s=h.delay_s)
                receiver.flush()
                if h.clock is not None:
                    pass_time(h, h.delay_s * 1.2)
                second = one(h, receiver)
                assert (second.body, second.attempt) == (b"stubborn", 2), f"life {life}"
                if life == 2:
                    second.ack()
                    receiver.flush()
                    break
                second.retry(delay_s=h.delay_s)  # beyond the policy
                receiver.flush()
                (letter,) = dead(h, mq, queue)
                assert letter.reason == "exhausted"
                assert mq.dead_letters(queue).replay() == 1
            nothing(h, receiver)


@behaviour(104, needs=("ack", "dedup", "release"))
def release_twice_inside_a_duplicate_window(h: Harness) -> None:
    """A message released twice inside one duplicate window comes back twice."""
    with kit.client(h) as mq:
        queue = h.queue()
        mq.declare(queue, dedup_window_s=600)
        receipt = mq.send(queue, Message(b"hot", message_id=h.unique("id")))
        with mq.receiver(queue) as receiver:
            for _ in range(2):
                delivery = one(h, receiver)
                assert delivery.message_id == receipt.message_id
                delivery.release()
                receiver.flush()
            last = one(h, receiver)
            assert last.body == b"hot" and last.message_id == receipt.message_id
            last.ack()
            receiver.flush()
            nothing(h, receiver)


@behaviour(105, needs=("ack", "retry_delay"))
def policy_changed_while_messages_wait(h: Harness) -> None:
    """Messages that wait for a delay which the policy of today no longer names still come back: none waits unread."""
    yesterday = Retry(immediate=0, delayed_s=[h.delay_s])
    today = Retry(immediate=0, delayed_s=[h.delay_s * 2])
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(3))
        with mq.receiver(queue, retry=yesterday) as receiver:
            for delivery in take(h, receiver, 3):
                delivery.retry(delay_s=h.delay_s)
            receiver.flush()
    with kit.client(h) as mq:
        if h.clock is not None:
            pass_time(h, h.delay_s * 1.2)
        with mq.receiver(queue, retry=today) as receiver:
            again = take(h, receiver, 3)
            assert sorted(delivery.body or b"" for delivery in again) == bodies(3)
            assert {delivery.attempt for delivery in again} == {2}
            receiver.ack(again)
            receiver.flush()


@behaviour(117, needs=("ack",))
def no_policy_no_retry(h: Harness) -> None:
    """With `retry=None` both `retry` and `with` are refused, and the message is still in hand."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        with mq.receiver(queue, retry=None) as receiver:
            delivery = one(h, receiver)
            with refused(unimq.Unsupported):
                delivery.retry()
            with refused(unimq.Unsupported):
                with delivery:
                    pass
            delivery.ack()
            receiver.flush()
        assert drain(h, mq, queue, 0) == []


@behaviour(118, needs=("ack",))
def base_exception_gives_back(h: Harness) -> None:
    """Leaving `with delivery` by something that is no Exception gives the message back and lets it through."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        with mq.receiver(queue) as receiver:
            with refused(GeneratorExit):
                with one(h, receiver):
                    raise GeneratorExit
        assert set(drain_all(h, mq, queue, set(bodies(1)))) == set(bodies(1))
