# Generated from unimq/testing/conformance/_async/ack.py by tools/unasync.py; do not edit.
"""Settling: what an ack, a release, a close and a second verb do."""

from __future__ import annotations

import unimq

from ...harness import Harness
from .._check import refused
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, drain, drain_all, fill, nothing, one, take


@behaviour(22, needs=("ack",))
def ack_removes(h: Harness) -> None:
    """What was acknowledged and flushed is never handed out again."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(10))
        with mq.receiver(queue) as receiver:
            taken = take(h, receiver, 10)
            assert sorted(delivery.body or b"" for delivery in taken) == bodies(10)
            for delivery in taken:
                delivery.ack()
            receiver.flush()
    with kit.client(h) as mq:
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(23, needs=("ack",))
def no_ack_then_close_redelivers(h: Harness) -> None:
    """What was not settled when its receiver closed is handed out again, and its old delivery's verbs say LockLost."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(3))
        with mq.receiver(queue) as receiver:
            taken = take(h, receiver, 3)
            assert len(taken) == 3
        with refused(unimq.LockLost):
            taken[0].ack()
        assert sorted(drain(h, mq, queue, 3), key=repr) == bodies(3)


@behaviour(24, needs=("ack",))
def second_ack_raises(h: Harness) -> None:
    """A second ack raises AlreadySettled and changes nothing."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(2))
        with mq.receiver(queue) as receiver:
            first, second = take(h, receiver, 2)
            first.ack()
            with refused(unimq.AlreadySettled):
                first.ack()
            second.ack()
            receiver.flush()
            with refused(unimq.AlreadySettled):
                second.ack()
            nothing(h, receiver)
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(25, needs=("ack", "release", "dead_letter"))
def ack_then_another_verb_raises(h: Harness) -> None:
    """After an ack every other verb raises AlreadySettled: the message neither comes back nor dies."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        with mq.receiver(queue) as receiver:
            delivery = one(h, receiver)
            delivery.ack()
            for verb in (delivery.release, delivery.retry, lambda: delivery.dead_letter("why")):
                with refused(unimq.AlreadySettled):
                    verb()
            receiver.flush()
            nothing(h, receiver)
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)
        assert not mq.dead_letters(queue).browse()


@behaviour(26, needs=("ack",))
def out_of_order_ack_never_skips_unacked(h: Harness) -> None:
    """Acknowledging later messages never takes an earlier one with it: it comes back."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(5))
        with mq.receiver(queue) as receiver:
            taken = take(h, receiver, 5)
            assert len(taken) == 5
            for delivery in reversed(taken[1:]):
                delivery.ack()
            receiver.flush()
        first = taken[0].body or b""
        # those behind it may come back too where the broker has one position per partition; the first must
        seen = drain_all(h, mq, queue, {first})
        assert first in seen, f"{first!r} was skipped: {seen}"


@behaviour(28, needs=("ack", "release"))
def release_gives_back(h: Harness) -> None:
    """A released message is handed out again now, to anybody, with its body, and can then be acknowledged."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        with mq.receiver(queue) as receiver:
            delivery = one(h, receiver)
            delivery.release()
            with refused(unimq.AlreadySettled):
                delivery.ack()
            again = one(h, receiver)
            assert again.body == delivery.body and again.message_id == delivery.message_id
            again.ack()
            receiver.flush()
            nothing(h, receiver)
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(30, needs=("ack",))
def redelivered_flag_and_count_increase(h: Harness) -> None:
    """A message handed out again says so, where the broker knows: the flag is set and its count grows."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        counts: list[int] = []
        flags: list[bool] = []
        for _ in range(3):
            with mq.receiver(queue) as receiver:
                delivery = one(h, receiver)
                flags.append(delivery.redelivered)
                if delivery.delivery_count is not None:
                    counts.append(delivery.delivery_count)
        assert not flags[0], "the first delivery is no redelivery"
        assert counts == sorted(counts) and (not counts or counts[-1] > counts[0]), counts
        assert all(flags[1:]) or not any(flags), f"the flag comes and goes: {flags}"
        assert drain(h, mq, queue, 1) == bodies(1)


@behaviour(31)
def on_receive_mode_at_most_once(h: Harness) -> None:
    """In mode "on_receive" what was handed out is settled: it never comes again, and there is nothing left to settle."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(3))
        with mq.receiver(queue, mode="on_receive") as receiver:
            taken = take(h, receiver, 3)
            assert sorted(delivery.body or b"" for delivery in taken) == bodies(3)
            with refused(unimq.AlreadySettled):
                taken[0].ack()
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(32, needs=("ack",))
def prefetch_caps_unacked(h: Harness) -> None:
    """A receiver holds at most `prefetch` unsettled messages; each that is settled makes room for one."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(20))
        with mq.receiver(queue, prefetch=5) as receiver:
            taken = take(h, receiver, 5)
            assert len(taken) == 5
            nothing(h, receiver)
            taken[0].ack()
            taken[1].ack()
            more = take(h, receiver, 2)
            assert len(more) == 2
            nothing(h, receiver)
            for delivery in taken[2:] + more:
                delivery.ack()
            receiver.flush()
        assert len(drain(h, mq, queue, 13)) == 13


@behaviour(34, needs=("ack",))
def ack_flushed_on_close(h: Harness) -> None:
    """Closing a receiver takes its enqueued acks to the broker first: no flush is needed before it."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(50))
        with mq.receiver(queue) as receiver:
            for delivery in take(h, receiver, 50):
                delivery.ack()
    with kit.client(h) as mq:
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(35, needs=("ack",))
def ack_from_other_thread(h: Harness) -> None:
    """Verbs may be called from any thread, and raise there what they raise here."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(2))
        with mq.receiver(queue) as receiver:
            first, second = take(h, receiver, 2)
            kit.elsewhere(first.ack)
            kit.elsewhere(second.ack)
            with refused(unimq.AlreadySettled):
                kit.elsewhere(first.ack)
            receiver.flush()
            nothing(h, receiver)
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(116, needs=("ack",))
def receiver_acks_many(h: Harness) -> None:
    """`receiver.ack(deliveries)` settles all of them; iterating hands out one at a time, `with` acks on success."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(12))
        with mq.receiver(queue) as receiver:
            taken = take(h, receiver, 10)
            receiver.ack(taken)
            seen = 0
            for delivery in receiver:
                with delivery:
                    seen += 1
                if seen == 2:
                    break
            receiver.flush()
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)
