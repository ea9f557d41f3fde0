# Generated from unimq/testing/conformance/_async/ops.py by tools/unasync.py; do not edit.
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
def declare_idempotent(h: Harness) -> None:
    """Declaring what is there does nothing: messages, positions and options stay."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        topic = a_topic(mq, h)
        group = h.subscription(topic)
        mq.declare(group)
        fill(mq, queue, bodies(2))
        fill(mq, topic, bodies(2))
        for place in (queue, topic, group):
            report = mq.declare(place)
            assert report.ok and not report.created, report
        assert sorted(drain(h, mq, queue, 2), key=repr) == bodies(2)
        assert sorted(drain(h, mq, group, 2), key=repr) == bodies(2)


@behaviour(96, hooks=("mismatch",))
def declare_mismatch_reported_with_diff(h: Harness) -> None:
    """Declaring an existing place with other options is a mismatch that names what is there and what was asked for."""
    assert h.mismatch is not None
    there, asked = h.mismatch
    with kit.client(h) as mq:
        queue = h.queue()
        mq.declare(queue, **there)
        mq.declare(queue, **there)
        with refused(unimq.TopologyMismatch) as caught:
            mq.declare(queue, **asked)
        assert caught.error.differences, "it does not say what differs"
        report = mq.declare(queue, verify_only=True, **asked)
        assert not report.ok and report.differences
        fill(mq, queue, [b"unharmed"])
        assert drain(h, mq, queue, 1) == [b"unharmed"]


@behaviour(97)
def verify_mode_creates_nothing(h: Harness) -> None:
    """`verify_only` and topology="verify" say what is missing and create nothing."""
    queue = h.queue()
    with kit.client(h) as mq:
        report = mq.declare(queue, verify_only=True)
        assert not report.ok and report.missing and not report.created
        report = mq.declare(queue, verify_only=True)
        assert report.missing, "the first verify created it"
    with kit.client(h, topology="verify") as mq:
        with refused(unimq.NotFound, unimq.TopologyMismatch):
            with mq.receiver(queue) as receiver:
                receiver.ready(h.patience_s)
    with kit.client(h) as mq:
        assert (mq.declare(queue, verify_only=True)).missing, "the receiver created it"
        assert (mq.declare(queue)).created
        assert (mq.declare(queue, verify_only=True)).ok


@behaviour(98, needs=("stats_depth",))
def depth_matches_known(h: Harness) -> None:
    """The depth is the number of messages waiting; what the broker does not know is None, never 0."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)

        def depth_is(count: int) -> bool:
            return (mq.stats(queue)).depth == count

        kit.eventually(lambda: depth_is(0), h.patience_s, "depth 0")
        fill(mq, queue, bodies(7))
        kit.eventually(lambda: depth_is(7), h.patience_s, "depth 7")
        assert len(drain(h, mq, queue, 7)) == 7
        kit.eventually(lambda: depth_is(0), h.patience_s, "depth 0 again")


@behaviour(102)
def capabilities_are_true(h: Harness) -> None:
    """Every capability that is not there is refused when it is asked for, by name, before a message moves."""
    with kit.client(h) as mq:
        capabilities = mq.capabilities
    declared = [flag for flag in FLAGS if getattr(capabilities, flag)]
    with kit.client(h, require=declared):
        pass  # what is there may be required
    wrong: list[str] = []
    for flag in FLAGS:
        if flag in declared:
            continue
        try:
            with kit.client(h, require=[flag]):
                wrong.append(f"{flag}: connect(require=[{flag!r}]) was not refused")
        except unimq.Unsupported as error:
            if flag not in str(error):
                wrong.append(f"{flag}: the refusal does not name it: {error}")
        prove: Any = PROBES[kit.WORLD].get(flag)
        if prove is not None:
            try:
                prove(h)
            except AssertionError as error:
                wrong.append(f"{flag}: {error}")
    assert not wrong, "; ".join(wrong)


@behaviour(112, needs=("purge",))
def purge_empties(h: Harness) -> None:
    """Purging removes what waits, and what is sent after it stays."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(5))
        assert mq.purge(queue) in (5, None)
        fill(mq, queue, [b"after"])
        assert drain(h, mq, queue, 1) == [b"after"]


@behaviour(113, needs=("browse",))
def browse_takes_nothing(h: Harness) -> None:
    """Browsing shows what waits, takes nothing, and cannot settle what it shows."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, bodies(4))
        found = mq.browse(queue, limit=3)
        assert [delivery.body for delivery in found] == bodies(3)
        with refused(unimq.UnimqError):
            found[0].ack()
        assert [delivery.body for delivery in mq.browse(queue)] == bodies(4)
        with mq.receiver(queue) as receiver:
            taken = take(h, receiver, 4)
            assert [delivery.body for delivery in taken] == bodies(4)
            if mq.capabilities.browse is unimq.Support.NATIVE:  # an emulation holds the messages for a moment
                assert not any(delivery.redelivered for delivery in taken), "browsing counted as a delivery"
            receiver.ack(taken)
            receiver.flush()


@behaviour(115)
def emulation_is_refused_where_it_is_not_allowed(h: Harness) -> None:
    """With `allow_emulation=False` requiring what is only emulated is refused at connect."""
    emulated = [flag for flag in FLAGS if getattr(h.capabilities, flag) is unimq.Support.EMULATED]
    native = [flag for flag in FLAGS if getattr(h.capabilities, flag) is unimq.Support.NATIVE]
    with kit.client(h, require=native, allow_emulation=False):
        pass
    for flag in emulated:
        with refused(unimq.Unsupported):
            with kit.client(h, require=[flag], allow_emulation=False):
                pass


@behaviour(124)
def receiver_fixes_its_position(h: Harness) -> None:
    """What is sent after `declare` returned, or after a receiver opened, is received: nothing falls in between."""
    with kit.client(h) as mq:
        topic = a_topic(mq, h)
        declared = h.subscription(topic, "declared")
        opened = h.subscription(topic, "opened")
        mq.declare(declared)
        with mq.receiver(opened) as receiver:
            mq.send(topic, Message(b"at once"))
            delivery = one(h, receiver)
            assert delivery.body == b"at once"
            delivery.ack()
        assert drain(h, mq, declared, 1) == [b"at once"]


@behaviour(125)
def wrong_url_is_one_clear_error(h: Harness) -> None:
    """An unknown option in the URL is refused by name, before anything is connected."""
    with within(5.0, "refusing a URL"):
        with refused(unimq.UnimqError) as caught:
            with kit.client(h, h.url_with(no_such_option=1)) as mq:
                nothing(h, mq.receiver(h.queue()))
    assert "no_such_option" in str(caught.error)
