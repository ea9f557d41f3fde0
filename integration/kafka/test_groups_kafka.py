"""Partitions that come and go: revoked with a drain, lost without one; a broker that says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from integration.native import NativeBroker
from unimq.driver import Ack, Forget, LockLostEvent, Lost, Op, Revoked
from unimq.errors import SendOutcomeUnknown
from unimq.message import Message
from unimq_kafka import ADAPTER, owner

from .rig import Rig

Unique = Callable[[str], str]
SESSION_S = 6.0  # the least that a broker takes by default


@pytest.fixture
def own_kafka(own_broker: Callable[[str], NativeBroker]) -> Iterator[NativeBroker]:
    broker = own_broker("kafka")
    yield broker
    broker.recover()


def shared(rig: Rig, unique: Unique) -> tuple[object, object, list[object]]:
    """Two partitions, a first receiver that has messages of both in hand."""
    queue = rig.queue(unique, partitions=2)
    link = rig.receiver(queue)
    numbers = 0
    in_hand: list[object] = []
    while {one.position[0] for one in in_hand} != {0, 1}:  # type: ignore[attr-defined]
        rig.send(queue, Message(b"%d" % numbers, key=str(numbers)))
        in_hand += rig.take(link, 1)
        numbers += 1
    return queue, link, in_hand


def test_what_is_settled_while_a_partition_leaves_is_not_seen_again(rig: Rig, unique: Unique) -> None:
    queue, link, in_hand = shared(rig, unique)
    settled: list[object] = []

    def settle(event: object) -> None:
        if isinstance(event, Revoked):
            settled.extend(event.deliveries)
            event.link.settle(event.deliveries, Ack(), lambda result: None)

    rig.on_event = settle
    began = time.monotonic()
    second = rig.receiver(queue)
    event = rig.event(Revoked, link)
    assert set(settled) == set(event.deliveries)
    assert 0 < len(settled) < len(in_hand), "all or nothing was revoked"
    assert second.receive(10, 3.0) == []
    assert time.monotonic() - began < owner.REVOKE_DRAIN_S + 3.0
    assert not rig.has(LockLostEvent)


def test_what_is_forgotten_comes_to_the_other(rig: Rig, unique: Unique) -> None:
    queue, link, in_hand = shared(rig, unique)

    def forget(event: object) -> None:
        if isinstance(event, Revoked):
            event.link.settle(event.deliveries, Forget(), lambda result: None)

    rig.on_event = forget
    second = rig.receiver(queue)
    revoked = rig.event(Revoked, link)
    gone = revoked.deliveries
    again = rig.take(second, len(gone))
    assert time.monotonic() < revoked.deadline, "forgetting did not end the drain"
    assert sorted(one.body or b"" for one in again) == sorted(one.body or b"" for one in gone)
    kept = [one for one in in_hand if one not in gone]
    assert not rig.settle(link, kept).lost  # type: ignore[arg-type]
    assert len(list(rig.settle(link, gone).lost)) == len(gone)


def test_after_the_deadline_the_rest_is_lost_to_us(
    rig: Rig, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "REVOKE_DRAIN_S", 0.5)
    queue, link, _ = shared(rig, unique)
    second = rig.receiver(queue)
    gone = rig.event(Revoked, link).deliveries
    lost = rig.event(LockLostEvent, link)
    assert set(lost.deliveries) == set(gone)
    assert set(rig.settle(link, gone).lost) == set(gone)
    assert len(rig.take(second, len(gone))) == len(gone)


def test_a_lost_partition_is_an_event_and_nothing_is_committed(
    own_kafka: NativeBroker, unique: Unique
) -> None:
    options = {"consumer": {"session.timeout.ms": round(SESSION_S * 1000), "heartbeat.interval.ms": 500}}
    with Rig(own_kafka.url, native=options) as rig:
        queue = rig.queue(unique)
        rig.send(queue, b"1")
        link = rig.receiver(queue)
        (delivery,) = rig.take(link, 1)
        own_kafka.pause()
        lost = rig.event(LockLostEvent, link, timeout_s=3 * SESSION_S)
        own_kafka.resume()
        assert list(lost.deliveries) == [delivery]
        assert list(rig.settle(link, [delivery]).lost) == [delivery]
        (again,) = rig.take(link, 1, timeout_s=30)
        assert again.body == b"1"
        assert not rig.settle(link, [again]).lost
        assert not rig.has(Lost)


def test_a_silent_broker_leaves_a_send_unknown_and_closes_in_time(
    own_kafka: NativeBroker, unique: Unique
) -> None:
    rig = Rig(own_kafka.url)
    try:
        queue = rig.queue(unique)
        link = rig.sender(queue)
        rig.send(queue, b"well", link=link)
        receiver = rig.receiver(queue)
        (delivery,) = rig.take(receiver, 1)
        own_kafka.pause()
        sent, settled = rig.waiter(), rig.waiter()
        assert link.submit(rig.batch(Message(b"x")), sent) == 1
        receiver.settle([delivery], Ack(), settled)
        began = time.monotonic()
        link.close(1.0)
        assert 0.9 < time.monotonic() - began < 2.0
        failures = sent.wait(0.1).failures
        assert failures is not None
        assert failures[0].handed_over
        fault = ADAPTER.classify(failures[0].error, op=Op.SEND, handed_over=True)
        assert isinstance(fault, SendOutcomeUnknown)
        began = time.monotonic()
        rig.connection.close(2.0)
        assert time.monotonic() - began < 5.0
        assert list(settled.wait(0.1).lost) == [delivery]
    finally:
        own_kafka.resume()
        rig.connection.close(2.0)


def test_sends_and_receives_go_on_after_a_silence(own_kafka: NativeBroker, unique: Unique) -> None:
    with Rig(own_kafka.url) as rig:
        queue = rig.queue(unique)
        receiver = rig.receiver(queue)
        rig.send(queue, b"before")
        rig.settle(receiver, rig.take(receiver, 1))
        link = rig.sender(queue)
        own_kafka.pause()
        done = rig.waiter()
        assert link.submit(rig.batch(Message(b"during")), done) == 1
        for _ in range(20):
            rig.connection.drive(0.02)
        assert not done.over
        own_kafka.resume()
        assert done.wait().failures is None
        assert [one.body for one in rig.take(receiver, 1)] == [b"during"]
