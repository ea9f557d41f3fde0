"""Locks and sessions on the stub: what is lost is an event, what is asked later is answered."""

from __future__ import annotations

import threading
import time

import pytest

from tests.adapters.servicebus.harness import (
    Answer,
    World,
    flush,
    sent,
    settle,
    settled,
    take,
    until,
    world,
)  # fmt: skip
from unimq.address import Queue
from unimq.driver import Ack, LockLostEvent, LockRenewal, Lost, Op, Release, Sessions
from unimq.errors import LockLost, Unsupported
from unimq.message import Message

Q = Queue("orders")
S = Queue("s", ordered=True)


@pytest.fixture
def w():
    with world() as made:
        made.stub.queue("orders", lock_s=0.6)
        made.stub.queue("s", lock_s=1.0, requires_session=True)
        yield made


def test_a_lock_is_renewed_while_it_is_held(w: World) -> None:
    orders = w.receiver(Q)
    sent(w.sender(Q), b"x")
    (delivery,) = take(orders, 1)
    first = delivery.locked_until
    threading.Event().wait(1.5)  # two and a half locks
    assert not delivery.lock_lost
    assert delivery.locked_until > first
    settled(orders, [delivery], Ack())


def test_renewal_ends_at_its_bound_and_the_loss_is_an_event(w: World) -> None:
    orders = w.receiver(Q, native={"lock_renewal_max_s": 0})
    sent(w.sender(Q), b"x")
    (delivery,) = take(orders, 1)
    event = w.event(LockLostEvent, 3)
    assert list(event.deliveries) == [delivery]
    assert event.link is orders
    assert delivery.lock_lost
    assert list(settle(orders, [delivery], Ack()).lost) == [delivery]
    (again,) = take(orders, 1)
    assert again.redelivered


def test_a_lock_lost_at_the_broker_loses_that_delivery_alone(w: World) -> None:
    orders = w.receiver(Q)
    sent(w.sender(Q), b"x")
    (delivery,) = take(orders, 1)
    w.stub.lose_locks("orders")
    done = Answer()
    orders.settle([delivery], Ack(), done)
    assert list(done.wait().lost) == [delivery]
    assert list(flush(orders).lost) == [], "named once"
    (again,) = take(orders, 1)
    settled(orders, [again], Ack())
    assert not [event for event in w.events if isinstance(event, Lost)]


def test_renew_by_hand(w: World) -> None:
    orders = w.receiver(Q)
    assert isinstance(orders, LockRenewal)
    assert isinstance(orders, Sessions)
    sent(w.sender(Q), b"a", b"b")
    a, b = take(orders, 2)
    before = a.locked_until
    settled(orders, [b], Ack())
    assert list(orders.renew([a, b])) == [b]
    assert a.locked_until >= before
    with pytest.raises(Unsupported):
        orders.get_state()


def test_a_cut_connection_ends_the_link_once_and_answers_all(w: World) -> None:
    orders = w.receiver(Q)
    sent(w.sender(Q), b"x", b"y")
    deliveries = take(orders, 2)
    receiver_link = next(link for link in w.stub.links if type(link).__name__ == "StubReceiver")
    with w.stub.cond:
        receiver_link.broken = True
        w.stub.cond.notify_all()
    assert w.event(Lost).link is orders
    assert sorted(map(id, settle(orders, deliveries, Ack()).lost)) == sorted(map(id, deliveries))
    assert list(flush(orders).lost) == []
    for _ in range(2):
        with pytest.raises(Exception, match="connection is gone"):
            orders.receive(1, 0)
    assert len([event for event in w.events if isinstance(event, Lost)]) == 1


def test_62_63_a_session_is_exclusive_and_has_a_state(w: World) -> None:
    link = w.sender(S)
    sent(link, Message(b"1", key="a"), Message(b"2", key="b"), Message(b"3", key="a"))
    one, two = w.receiver(S, session="a"), w.receiver(S, session="b")
    assert [d.body for d in take(one, 2)] == [b"1", b"3"]
    (second,) = take(two, 1)
    assert (second.body, second.session_id, two.session_id) == (b"2", "b", "b")
    assert one.get_state() is None
    one.set_state(b"here")
    assert one.get_state() == b"here"
    started = time.monotonic()
    third = w.receiver(S, session="a")  # not there yet, and no error
    assert time.monotonic() - started < 2.0
    assert third.receive(1, 0.1) == []
    assert list(flush(third).lost) == [], "nothing can be held: answered at once"
    one.close(5)
    assert [d.body for d in take(third, 2)] == [b"1", b"3"]
    assert third.get_state() == b"here"


def test_next_session_none_free_is_empty_then_there(w: World) -> None:
    receiver = w.receiver(S, session="next")
    assert receiver.receive(1, 0.2) == []
    sent(w.sender(S), Message(b"x", key="k"))
    (delivery,) = take(receiver, 1)
    assert receiver.session_id == delivery.session_id == "k"
    assert delivery.locked_until is not None
    settled(receiver, [delivery], Ack())


def test_a_session_lives_as_long_as_its_receiver(w: World) -> None:
    receiver = w.receiver(S, session="k")
    threading.Event().wait(2.2)  # two locks
    sent(w.sender(S), Message(b"x", key="k"))
    settled(receiver, take(receiver, 1), Ack())


def test_a_lost_session_ends_the_link_and_loses_its_deliveries(w: World) -> None:
    ready = threading.Event()
    receiver = w.receiver(S, session="k", on_ready=ready.set)
    sent(w.sender(S), Message(b"1", key="k"), Message(b"2", key="k"))
    one, two = take(receiver, 2)
    settled(receiver, [one], Ack())
    assert receiver.receive(1, 0) == []
    ready.clear()
    w.stub.lose_session("s", "k")
    lost = w.event(Lost)
    assert lost.link is receiver
    assert isinstance(w.adapter.classify(lost.error, op=Op.RECEIVE, handed_over=False), LockLost)
    assert list(w.event(LockLostEvent).deliveries) == [two]
    assert w.events.index(w.event(LockLostEvent)) < w.events.index(lost)
    assert ready.wait(5)
    assert list(settle(receiver, [two], Ack()).lost) == [two]
    (again,) = take(w.receiver(S, session="k"), 1)
    assert again.body == b"2"


def test_an_ordered_source_reads_one_session_after_another(w: World) -> None:
    link = w.sender(S)
    for key in "abc":
        sent(link, *[Message(f"{key}{n}".encode(), key=key) for n in range(3)], prefix=key)
    receiver = w.receiver(S)
    got = []
    for _ in range(9):
        (delivery,) = take(receiver, 1)
        got.append(delivery.body)
        settled(receiver, [delivery], Ack())
    assert sorted(got) == sorted(f"{key}{n}".encode() for key in "abc" for n in range(3))
    for key in "abc":
        assert [body for body in got if body.decode().startswith(key)] == [
            f"{key}{n}".encode() for n in range(3)
        ]


def test_close_is_bounded_while_a_session_is_waited_for(w: World) -> None:
    receiver = w.receiver(S, session="next")
    started = time.monotonic()
    receiver.close(0.3)
    assert time.monotonic() - started < 1.0
    sent(w.sender(S), Message(b"x", key="k"))  # lets the accepting thread come back, and find that it is over
    until(lambda: not any(t.name == "unimq-sb-s" for t in threading.enumerate()))
    queue = w.stub.queues["s"]
    until(lambda: not queue.sessions)


@pytest.mark.parametrize("in_the_library", [False, True])
def test_close_of_a_stuck_receiver_answers(w: World, in_the_library: bool) -> None:
    orders = w.receiver(Q)
    sent(w.sender(Q), b"x")
    (delivery,) = take(orders, 1)
    w.stub.slow_s = 1.0
    until(lambda: orders.receive(1, 0.2) == [])
    done = Answer()
    orders.settle([delivery], Release(), done)
    if in_the_library:
        until(lambda: orders._lanes[0]._settling)
    orders.close(0.1)
    assert list(done.wait(1).lost) == [delivery]
    w.stub.slow_s = 0.0


def test_two_threads_in_one_link_are_noticed(w: World) -> None:
    """The stub's own check, so that its silence elsewhere means something."""
    receiver = w.receiver(Q)
    until(lambda: w.stub.calls)
    sdk = w.stub.links[0]
    for _ in range(200):
        try:
            sdk.receive_messages(1, 0.01)
        except AssertionError:
            break
    else:
        pytest.fail("not noticed")
    w.stub.violations.clear()
    receiver.close(5)
