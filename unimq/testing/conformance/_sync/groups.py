# Generated from unimq/testing/conformance/_async/groups.py by tools/unasync.py; do not edit.
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
def competing_consumers_each_once(h: Harness) -> None:
    """Two receivers of one queue share its messages: each message goes to one of them, once, and none is left."""
    contents = bodies(100)
    with kit.client(h) as mq, kit.client(h) as other:
        queue = a_queue(mq, h)
        with mq.receiver(queue, prefetch=5) as first, other.receiver(queue, prefetch=5) as second:
            fill(mq, queue, contents)
            seen: list[bytes | None] = []

            def work(receiver: unimq.Receiver) -> None:
                deadline = time.monotonic() + h.patience_s
                while len(seen) < len(contents) and time.monotonic() < deadline:
                    for delivery in receiver.receive(max_messages=5, timeout_s=0.2):
                        seen.append(delivery.body)
                        delivery.ack()
                receiver.flush()

            kit.gather(lambda: work(first), lambda: work(second))
            assert sorted(seen, key=repr) == contents
            nothing(h, first)
            nothing(h, second)


@behaviour(16)
def two_groups_each_get_all(h: Harness) -> None:
    """Each group of a topic gets every message."""
    contents = bodies(20)
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        groups = [h.subscription(topic, "one"), h.subscription(topic, "two")]
        for group in groups:
            mq.declare(group)
        fill(mq, topic, contents)
        for group in groups:
            assert sorted(drain(h, mq, group, 20), key=repr) == contents


@behaviour(17)
def same_group_shares(h: Harness) -> None:
    """Two members of one group share: each message goes to one of them."""
    contents = bodies(40)
    with kit.client(h) as mq, kit.client(h) as other:
        topic = a_topic(mq, h)
        group = h.subscription(topic)
        mq.declare(group)
        with mq.receiver(group, prefetch=5) as first, other.receiver(group, prefetch=5) as second:
            fill(mq, topic, contents)
            seen: list[bytes | None] = []

            def work(receiver: unimq.Receiver) -> None:
                deadline = time.monotonic() + h.patience_s
                while len(seen) < len(contents) and time.monotonic() < deadline:
                    for delivery in receiver.receive(max_messages=5, timeout_s=0.2):
                        seen.append(delivery.body)
                        assert delivery.group == group.name
                        delivery.ack()
                receiver.flush()

            kit.gather(lambda: work(first), lambda: work(second))
            assert sorted(seen, key=repr) == contents
            nothing(h, first)
            nothing(h, second)


@behaviour(18, needs=("log",))
def new_group_start_earliest_and_latest(h: Harness) -> None:
    """A new group from the earliest gets what was sent before it; one from the latest does not."""
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        fill(mq, topic, [b"before"])
        late, early = h.subscription(topic), h.subscription(topic, start="earliest")
        mq.declare(late)
        fill(mq, topic, [b"after"])
        assert sorted(drain(h, mq, early, 2), key=repr) == [b"after", b"before"]
        assert drain(h, mq, late, 1) == [b"after"]


@behaviour(19)
def offline_group_keeps_messages(h: Harness) -> None:
    """A declared group that nobody reads keeps what is sent, also over its members' comings and goings."""
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        group = h.subscription(topic)
        mq.declare(group)
        fill(mq, topic, bodies(3))
        assert sorted(drain(h, mq, group, 3), key=repr) == bodies(3)
        fill(mq, topic, bodies(3, first=3))
    with kit.client(h) as mq:
        assert sorted(drain(h, mq, group, 3), key=repr) == bodies(3, first=3)


@behaviour(20)
def anonymous_group_is_cleaned(h: Harness) -> None:
    """Subscriptions without a name are private, get all that is sent while they are open, and leave nothing behind."""
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        before = h.places() if h.places is not None else set()
        with mq.receiver(Subscription(topic)) as first, mq.receiver(Subscription(topic)) as second:
            first.ready(h.patience_s)
            second.ready(h.patience_s)
            fill(mq, topic, [b"for both"])
            for receiver in (first, second):
                delivery = one(h, receiver)
                assert delivery.body == b"for both"
                delivery.ack()
        fill(mq, topic, [b"for nobody"])
        with mq.receiver(Subscription(topic)) as third:
            third.ready(h.patience_s)
            nothing(h, third)
        places = h.places
        if places is not None:
            kit.eventually(lambda: places() <= before, h.patience_s, "the private places are gone")


@behaviour(81, needs=("filters",))
def filter_semantics(h: Harness) -> None:
    """`subjects` are alternatives (`*` one word, `#` any number), all of `where` must hold, and both must match."""
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        one_word = h.subscription(topic, "star", subjects=["orders.*.eu", "refunds"])
        any_words = h.subscription(topic, "hash", subjects=["orders.#"])
        where = h.subscription(topic, "where", where={"tenant": "a", "kind": "x"})
        both = h.subscription(topic, "both", subjects=["orders.#"], where={"tenant": "a"})
        for group in (one_word, any_words, where, both):
            mq.declare(group)
        sent = {
            b"1": ("orders.new.eu", {"tenant": "a", "kind": "x"}),
            b"2": ("orders.new.big.eu", {"tenant": "b", "kind": "x"}),
            b"3": ("orders", {"tenant": "a"}),
            b"4": ("refunds", {"tenant": "a", "kind": "x"}),
            b"5": ("other", {}),
        }
        for body, (subject, headers) in sent.items():
            mq.send(topic, Message(body, subject=subject, headers=dict(headers)))
        assert sorted(drain(h, mq, one_word, 2), key=repr) == [b"1", b"4"]
        assert sorted(drain(h, mq, any_words, 3), key=repr) == [b"1", b"2", b"3"]
        assert sorted(drain(h, mq, where, 2), key=repr) == [b"1", b"4"]
        assert sorted(drain(h, mq, both, 2), key=repr) == [b"1", b"3"]


@behaviour(114, needs=("filters", "filters_verified"))
def another_filter_on_a_group_is_noticed(h: Harness) -> None:
    """A subscription has one filter: opening it with another is a mismatch, and declaring can replace it."""
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        group = h.subscription(topic, subjects=["a"])
        other = Subscription(topic, group.name, subjects=["b"])
        mq.declare(group)
        with refused(unimq.TopologyMismatch):
            with mq.receiver(other) as receiver:
                receiver.ready(h.patience_s)
        mq.declare(other, replace_filters=True)
        mq.send(topic, Message(b"a", subject="a"))
        mq.send(topic, Message(b"b", subject="b"))
        with mq.receiver(other) as receiver:
            taken = take(h, receiver, 1)
            assert [delivery.body for delivery in taken] == [b"b"]
            taken[0].ack()
            nothing(h, receiver)
