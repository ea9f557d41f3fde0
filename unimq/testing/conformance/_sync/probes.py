# Generated from unimq/testing/conformance/_async/probes.py by tools/unasync.py; do not edit.
"""Negative probes: where a capability is ABSENT, the call that asks for it raises `Unsupported` before a message moves.

Flags without a probe here (confirmed_send, settlement_confirmed, ack, crash_limit, filters_verified, request_reply) have no
call that asks for them alone yet; `connect(require=[…])` refuses these, which behaviour 102 tries for every flag.
"""

from __future__ import annotations

import unimq
from unimq import Message, Retry, Subscription

from ...harness import Harness
from .._check import refused
from .._table import probe
from . import _kit as kit
from ._help import a_queue, a_topic, bodies, drain, fill, one


def _send_refused(h: Harness, message: Message) -> None:
    """This message is refused, and the place stays empty but for its neighbour."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with refused(unimq.Unsupported) as caught:
            mq.send(queue, message)
        assert not caught.error.may_have_been_sent
        fill(mq, queue, [b"neighbour"])
        assert drain(h, mq, queue, 1) == [b"neighbour"], "the refused message moved"


@probe("send_delay")
def delayed_send_is_refused(h: Harness) -> None:
    _send_refused(h, Message(b"x", delay_s=5))


@probe("ttl")
def ttl_is_refused(h: Harness) -> None:
    _send_refused(h, Message(b"x", ttl_s=5))


@probe("priority")
def priority_is_refused(h: Harness) -> None:
    _send_refused(h, Message(b"x", priority=5))


@probe("typed_headers")
def typed_headers_are_refused(h: Harness) -> None:
    _send_refused(h, Message(b"x", headers={"n": 1}))


@probe("unroutable")
def unroutable_error_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        with refused(unimq.Unsupported):
            with mq.sender(topic, unroutable="error") as sender:
                sender.send(Message(b"x"))


def _in_hand(h: Harness, ask: str) -> None:
    """The verb `ask` raises Unsupported, and the delivery is still in hand: it can be acknowledged."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        with mq.receiver(queue, retry=Retry(immediate=0, delayed_s=[])) as receiver:
            delivery = one(h, receiver)
            with refused(unimq.Unsupported):
                if ask == "release":
                    delivery.release()
                elif ask == "retry":
                    delivery.retry(delay_s=5)
                elif ask == "dead_letter":
                    delivery.dead_letter("why")
                else:
                    delivery.defer()
            delivery.ack()
            receiver.flush()


@probe("release")
def release_is_refused(h: Harness) -> None:
    _in_hand(h, "release")


@probe("retry_delay")
def retry_delay_is_refused(h: Harness) -> None:
    _in_hand(h, "retry")


@probe("dead_letter")
def dead_letter_is_refused(h: Harness) -> None:
    _in_hand(h, "dead_letter")


@probe("defer")
def defer_is_refused(h: Harness) -> None:
    _in_hand(h, "defer")


@probe("lock_renewal")
def lock_renewal_says_false(h: Harness) -> None:
    """There are no locks to prolong: False, not an error, so that a handler may always ask."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(1))
        with mq.receiver(queue) as receiver:
            delivery = one(h, receiver)
            assert delivery.renew_lock() is False, "renew_lock says that there is a lock"
            delivery.ack()


@probe("order_per_key")
def ordered_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        queue = h.queue(ordered=True)
        with refused(unimq.Unsupported):
            mq.declare(queue)
            with mq.receiver(queue) as receiver:
                receiver.ready(h.patience_s)


@probe("sessions")
def session_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with refused(unimq.Unsupported):
            with mq.receiver(queue, session="next") as receiver:
                receiver.receive(timeout_s=0)


@probe("transactions")
def transactional_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with refused(unimq.Unsupported):
            with mq.receiver(queue, transactional=True) as receiver:
                receiver.receive(timeout_s=0)


@probe("dedup")
def dedup_window_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        with refused(unimq.Unsupported):
            mq.declare(h.queue(), dedup_window_s=60)


@probe("filters")
def filter_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        with refused(unimq.Unsupported):
            with mq.receiver(Subscription(topic, h.unique("group"), subjects=["a.*"])) as receiver:
                receiver.receive(timeout_s=0)


@probe("browse")
def browse_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with refused(unimq.Unsupported):
            mq.browse(queue)


@probe("log")
def start_earliest_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        with refused(unimq.Unsupported):
            with mq.receiver(Subscription(topic, h.unique("group"), start="earliest")) as receiver:
                receiver.receive(timeout_s=0)


@probe("seek")
def seek_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        group = h.subscription(a_topic(mq, h))
        mq.declare(group)
        with refused(unimq.Unsupported):
            mq.seek(group, "latest")


@probe("purge")
def purge_is_refused(h: Harness) -> None:
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with refused(unimq.Unsupported):
            mq.purge(queue)


def _stats(mq: unimq.Client, queue: unimq.Queue) -> unimq.Stats:
    """What is known; a broker that knows nothing at all may refuse the question."""
    try:
        return mq.stats(queue)
    except unimq.Unsupported:
        return unimq.Stats()


@probe("stats_depth")
def depth_is_none(h: Harness) -> None:
    """Unknown is None, never 0."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        assert (_stats(mq, queue)).depth is None, "a depth from a broker that does not know it"


@probe("stats_lag")
def lag_is_none(h: Harness) -> None:
    """Unknown is None, never 0."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        assert (_stats(mq, queue)).lag is None, "a lag from a broker that does not know it"
