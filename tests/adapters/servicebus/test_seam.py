"""The seam on the stub: the behaviours every driver has to show, by their numbers in the conformance list."""

from __future__ import annotations

import datetime as dt
import threading
import time

import pytest
from azure.servicebus.exceptions import ServiceBusError

from tests.adapters.servicebus.harness import (
    KEY,
    Answer,
    World,
    batch,
    flush,
    forward,
    send,
    sent,
    settle,
    settled,
    take,
    until,
    world,
)  # fmt: skip
from tests.adapters.servicebus.stub import amqp_error
from unimq.address import Queue, Subscription, Topic
from unimq.driver import Ack, Copy, DeadLetterOutcome, Defer, Facts, Forget, Lost, Op, Place, Release, Room
from unimq.errors import Closed, MessageTooLarge, Rejected, SendOutcomeUnknown, Unsupported
from unimq.message import Message
from unimq.retry import Retry
from unimq_servicebus import names, sender

Q = Queue("orders")


@pytest.fixture
def w():
    with world() as made:
        made.stub.queue("orders")
        yield made


def test_01_send_receive_bytes_12_timeout_is_empty(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    assert orders.receive(1, 0) == []
    started = time.monotonic()
    assert orders.receive(1, 0.15) == []
    assert 0.1 < time.monotonic() - started < 1.0
    body = bytes(range(256))
    sent(link, body)
    (delivery,) = take(orders, 1)
    assert delivery.body == body
    assert delivery.message_id == "id-0"
    assert delivery.place is None
    settled(orders, [delivery], Ack())


def test_15_competing_consumers_each_once(w: World) -> None:
    link, one, two = w.sender(Q), w.receiver(Q, prefetch=7), w.receiver(Q, prefetch=7)
    sent(link, *[b"%d" % n for n in range(60)])
    got: list[bytes | None] = []
    while len(got) < 60:
        for receiver in (one, two):
            some = receiver.receive(10, 0.3)
            settled(receiver, some, Ack())
            got += [d.body for d in some]
    assert sorted(got) == sorted(b"%d" % n for n in range(60))
    assert one.receive(1, 0.2) == two.receive(1, 0) == []


def test_22_ack_removes_26_out_of_order(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    sent(link, b"0", b"1", b"2")
    zero, one, two = take(orders, 3)
    settled(orders, [two], Ack())
    settled(orders, [zero], Ack())
    orders.close(5)
    again = w.receiver(Q)
    assert [d.body for d in take(again, 1)] == [one.body]
    assert again.receive(1, 0.3) == []


def test_23_no_ack_then_close_redelivers(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    sent(link, b"x")
    (first,) = take(orders, 1)
    assert not first.redelivered
    orders.close(5)
    (second,) = take(w.receiver(Q), 1)
    assert second.redelivered
    assert second.delivery_count == 1
    assert list(settle(orders, [first], Ack()).lost) == [first]


def test_28_release_is_counted(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    sent(link, b"x")
    for count in range(3):
        (delivery,) = take(orders, 1)
        assert delivery.delivery_count == count
        settled(orders, [delivery], Release())


def test_29_retry_is_a_scheduled_copy(w: World) -> None:
    plan = w.adapter.plan(Q, Retry(), Facts())
    place = plan.retry(0.5)
    link, orders, again = w.sender(Q), w.receiver(Q), w.sender(place)
    stamp = dt.datetime(2026, 1, 2, 3, 4, 5, 678000, dt.UTC)
    sent(
        link,
        Message(
            b"x", key="k", subject="a.b", correlation_id="c", reply_to="elsewhere", content_type="text/x", timestamp=stamp,
            headers={"s": "é", "i": 7, "big": 2**40, "f": 1.5, "b": True, "raw": b"\xff\x00"},
        ),
    )  # fmt: skip
    (first,) = take(orders, 1)
    copy = Copy(
        first,
        f"{first.message_id}#1",
        {"unimq-attempt": 3, "unimq-copies": 1, "unimq-message-id": "id-0"},
        delay_s=0.5,
    )
    assert forward(again, copy).failures is None
    settled(orders, [first], Ack())
    started = time.monotonic()
    (second,) = take(orders, 1)
    assert 0.3 < time.monotonic() - started < 1.5
    for name in (
        "body",
        "key",
        "subject",
        "correlation_id",
        "reply_to",
        "content_type",
        "timestamp",
        "headers",
        "message_id",
    ):
        assert getattr(second, name) == getattr(first, name), name
    assert second.headers == {"s": "é", "i": 7, "big": 2**40, "f": 1.5, "b": True, "raw": b"\xff\x00"}
    assert second.timestamp == stamp
    assert second.metadata.broker_message_id == "id-0#1"
    assert second.metadata.attempts == 3
    assert second.delivery_count == 0


def test_29_a_subscription_retries_in_private(w: World) -> None:
    w.stub.topic("events", "billing", "other")
    w.stub.queue("events.billing.retry")
    source = Subscription(Topic("events"), "billing")
    plan = w.adapter.plan(source, Retry(), Facts())
    receiver = w.receiver(source, also_read=plan.also_read)
    other = w.receiver(Subscription(Topic("events"), "other"))
    sent(w.sender(Topic("events")), b"x")
    (first,) = take(receiver, 1)
    assert first.place is None
    assert forward(w.sender(plan.retry(0.2)), Copy(first, "id-0#1", {}, delay_s=0.2)).failures is None
    settled(receiver, [first], Ack())
    (second,) = take(receiver, 1)
    assert second.place == plan.also_read[0]
    settled(receiver, [second], DeadLetterOutcome("fatal", "for good"))
    assert len(take(other, 1)) == 1
    assert other.receive(1, 0.3) == []
    lying = {place.text: w.receiver(place, mode="dead").receive(5, 0.5) for place in plan.dead_read}
    assert {text: len(some) for text, some in lying.items()} == {
        "events/Subscriptions/billing/$DeadLetterQueue": 0, "events.billing.retry/$DeadLetterQueue": 1,
    }  # fmt: skip


def test_46_dead_letter_is_native_with_reason(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    sent(link, Message(b"x", headers={"h": "1"}))
    settled(
        orders,
        take(orders, 1),
        DeadLetterOutcome("no-such-customer", "number 7", {"unimq-attempt": 4, "unimq-history": "a\nb"}),
    )
    dead = w.receiver(w.adapter.plan(Q, Retry(), Facts()).dead_read[0], mode="dead")
    (letter,) = take(dead, 1)
    assert letter.body == b"x"
    assert letter.native_death().reason == "no-such-customer"
    assert letter.native_death().description == "number 7"
    assert letter.headers == {"h": "1"}
    assert letter.metadata.attempts == 4
    assert letter.metadata.unimq["unimq-history"] == "a\nb"
    replayed = w.sender(Q)
    assert forward(replayed, Copy(letter, "id-0#1", {}, frozenset({"unimq-reason"}))).failures is None
    settled(dead, [letter], Ack())
    (back,) = take(orders, 1)
    assert back.native_death() is None
    assert back.metadata.unimq["unimq-history"] == "a\nb", "a replay keeps the history"


def test_51_the_brokers_own_dead_letters(w: World) -> None:
    queue = w.stub.queues["orders"]
    queue.max_delivery = 2
    link = w.sender(Q)
    sent(link, Message(b"old", ttl_s=0.05), Message(b"poison"))
    orders = w.receiver(Q)
    until(lambda: [e.reason for e in queue.dead] == ["TTLExpiredException"] or queue.tick(time.time()))
    for _ in range(2):
        settled(orders, take(orders, 1), Release())
    dead = w.receiver(names.place(names.dead_of(names.queue_entity(Q))), mode="dead")
    assert [(d.body, d.native_death().reason) for d in take(dead, 2)] == [
        (b"old", "expired"), (b"poison", "max-delivery"),
    ]  # fmt: skip


def test_67_a_lost_confirm_is_unknown_within_its_timeout(w: World) -> None:
    link = w.sender(Q)
    w.stub.lose_next_confirm = True
    started = time.monotonic()
    failed = send(link, b"x", timeout_s=0.4).failures
    assert 0.3 < time.monotonic() - started < 1.0
    assert failed is not None
    assert failed[0].handed_over
    fault = w.adapter.classify(failed[0].error, op=Op.SEND, handed_over=True)
    assert isinstance(fault, SendOutcomeUnknown)
    sent(link, b"y", prefix="next")
    assert [d.body for d in take(w.receiver(Q), 2)] == [b"x", b"y"]


def test_87_close_unblocks_receive(w: World) -> None:
    orders = w.receiver(Q)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            orders.receive(1, 20)
        except Closed as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    orders.close(5)
    thread.join(2)
    assert not thread.is_alive()
    assert raised
    orders.close(5)
    with pytest.raises(Closed):
        orders.receive(1, 0)


def test_90_wake_unblocks_and_loses_nothing(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    orders.wake()
    started = time.monotonic()
    assert orders.receive(1, 5) == []
    assert time.monotonic() - started < 0.1
    sent(link, b"x")
    until(lambda: orders._buffer)
    orders.wake()
    assert [d.body for d in orders.receive(1, 5)] == [b"x"]


def test_on_ready_once_per_empty_to_full(w: World) -> None:
    ready = threading.Semaphore(0)
    link, orders = w.sender(Q), w.receiver(Q, on_ready=ready.release)
    assert orders.receive(5, 0) == []
    sent(link, *[b"x"] * 5)
    assert ready.acquire(timeout=5)
    take(orders, 5)
    assert not ready.acquire(blocking=False)
    assert orders.receive(5, 0) == []
    w.stub.cut()
    assert ready.acquire(timeout=5), "death is told too"


def test_an_ack_waits_no_longer_than_a_slice(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    sent(link, b"x")
    (delivery,) = take(orders, 1)
    done = Answer()
    started = time.monotonic()
    orders.settle([delivery], Ack(), done)
    assert time.monotonic() - started < 0.05, "settle never blocks"
    done.wait()
    assert done.at - started < 0.5
    assert list(flush(orders).lost) == []


def test_prefetch_bounds_what_is_out(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q, prefetch=3)
    sent(link, *[b"%d" % n for n in range(10)])
    first = take(orders, 3)
    assert orders.receive(5, 0.3) == []
    assert len(w.stub.queues["orders"].locked) == 3
    settled(orders, first[:1], Ack())
    assert len(take(orders, 1)) == 1
    orders.settle(first[1:], Forget(), done := Answer())
    done.wait()
    assert len(take(orders, 2)) == 2


def test_prefetch_one_reads_both_places(w: World) -> None:
    w.stub.topic("t", "s")
    w.stub.queue("t.s.retry")
    source = Subscription(Topic("t"), "s")
    plan = w.adapter.plan(source, Retry(), Facts())
    receiver = w.receiver(source, also_read=plan.also_read, prefetch=1)
    sent(w.sender(Topic("t")), *[b"s"] * 3)
    sent(w.sender(plan.also_read[0]), *[b"r"] * 3)
    places = []
    for _ in range(6):
        (delivery,) = take(receiver, 1)
        places.append(delivery.place)
        settled(receiver, [delivery], Ack())
    assert places.count(None) == 3


def test_defer_and_fetch_by_position(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q)
    sent(link, b"a", b"b")
    a, b = take(orders, 2)
    settled(orders, [a], Defer())
    settled(orders, [b], Ack())
    later = w.receiver(Q, mode="deferred", positions=[a.position])
    (back,) = take(later, 1)
    assert back.body == b"a"
    settled(later, [back], Ack())


def test_browse_takes_nothing(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q, mode="browse", prefetch=4)
    sent(link, *[b"%d" % n for n in range(10)])
    assert [d.body for d in take(orders, 10)] == [b"%d" % n for n in range(10)]
    orders.close(5)
    assert [d.delivery_count for d in take(w.receiver(Q), 10)] == [0] * 10


def test_on_receive_is_at_most_once(w: World) -> None:
    link, orders = w.sender(Q), w.receiver(Q, mode="on_receive")
    sent(link, b"a", b"b")
    assert len(take(orders, 2)) == 2
    queue = w.stub.queues["orders"]
    until(lambda: not queue.locked and not queue.ready)


# ----------------------------------------------------------------------------------------------------- sending
def test_the_wire_keeps_the_order_over_keys_delays_and_copies(w: World) -> None:
    link = w.sender(Q)
    answers = [Answer() for _ in range(40)]
    for n, done in enumerate(answers):
        assert link.submit(batch([Message(b"%d" % n, key=str(n // 3))], prefix=str(n)), done) == 1
    assert all(done.wait().failures is None for done in answers)
    assert [d.body for d in take(w.receiver(Q), 40)] == [b"%d" % n for n in range(40)]


def test_only_the_bad_message_of_a_batch_fails(w: World) -> None:
    link = w.sender(Q)
    w.stub.max_message_bytes = 2_000
    failed = send(link, b"a", b"x" * 3_000, b"b", Message(b"c", priority=3)).failures
    assert failed is not None
    assert sorted(failed) == [1, 3]
    assert not failed[1].handed_over
    assert isinstance(w.adapter.classify(failed[1].error, op=Op.SEND, handed_over=False), MessageTooLarge)
    assert isinstance(failed[3].error, Unsupported)
    assert [d.body for d in take(w.receiver(Q), 2)] == [b"a", b"b"]


def test_a_batch_is_cut_at_what_the_link_takes(w: World) -> None:
    link = w.sender(Q)
    sent(link, *[b"x" * 60_000 for _ in range(9)])
    assert len(take(w.receiver(Q), 9)) == 9
    assert [what for what, _ in w.stub.calls].count("send") >= 3


def test_busy_is_reported_and_not_repeated(w: World) -> None:
    link = w.sender(Q)
    w.stub.refuse_next_sends.append(amqp_error("com.microsoft:server-busy"))
    failed = send(link, b"a", b"b").failures
    assert failed is not None
    assert len(failed) == 2
    assert not failed[0].handed_over
    assert w.adapter.classify(failed[0].error, op=Op.SEND, handed_over=False).retryable
    assert [what for what, _ in w.stub.calls].count("send") == 1
    sent(link, b"c", prefix="next")


def test_a_cut_connection_ends_the_sender_and_answers_all(w: World) -> None:
    link = w.sender(Q)
    w.stub.cut()
    failed = send(link, b"x").failures
    assert failed is not None
    assert failed[0].handed_over
    lost = w.event(Lost)
    assert lost.link is link
    later = send(link, b"y", b"z", prefix="later").failures
    assert later is not None
    assert not any(failure.handed_over for failure in later.values())


def test_a_deadline_gone_by_is_not_begun(w: World) -> None:
    link = w.sender(Q)
    failed = send(link, b"x", timeout_s=-1).failures
    assert failed is not None
    assert not failed[0].handed_over
    assert not w.stub.queues["orders"].ready


def test_a_full_link_says_room(w: World) -> None:
    link = w.sender(Q)
    w.stub.slow_s = 0.3
    done, answers = 0, []
    while True:
        answers.append(Answer())
        accepted = link.submit(batch([b"x"] * 256, prefix=f"b{done}"), answers[-1])
        done += accepted
        if accepted < 256:
            break
    assert done == sender.QUEUE_MAX_ITEMS
    if accepted == 0:
        answers.pop()
    w.stub.slow_s = 0.0
    assert w.event(Room).link is link
    assert all(answer.wait().failures is None for answer in answers)


def test_done_may_submit_to_any_depth(w: World) -> None:
    link = w.sender(Q)
    link.close(5)
    finished = threading.Event()
    depth = 0

    def again(result: object) -> None:
        nonlocal depth
        depth += 1
        if depth == 3_000:
            finished.set()
        else:
            link.submit(batch([b"x"]), again)

    link.submit(batch([b"x"]), again)
    assert finished.wait(10)


def test_scheduled_sends_have_positions_and_can_be_cancelled(w: World) -> None:
    link = w.sender(Q)
    result = send(link, Message(b"a", delay_s=60), Message(b"b", delay_s=60), b"c")
    assert result.failures is None
    assert result.positions is not None
    assert result.positions[2] is None
    assert w.connection.cancel(Q, result.positions[0])
    assert not w.connection.cancel(Q, result.positions[0])
    assert w.connection.stats(Q).delayed == 1


def test_close_of_a_stuck_sender_answers(w: World) -> None:
    link = w.sender(Q)
    w.stub.lose_next_confirm = True
    done = Answer()
    link.submit(batch([b"x"], timeout_s=3), done)
    queue = w.stub.queues["orders"]
    until(lambda: queue.ready)
    link.close(0.2)
    failed = done.wait(1).failures
    assert failed[0].handed_over


# ------------------------------------------------------------------------------------------- places, connecting
def test_a_missing_place_raises_at_open(w: World) -> None:
    for call in (lambda: w.sender(Queue("nowhere")), lambda: w.receiver(Queue("nowhere"))):
        with pytest.raises(Exception, match="could not be found") as caught:
            call()
        assert "declare" in str(w.adapter.classify(caught.value, op=Op.OPEN, handed_over=False))
    with pytest.raises(Unsupported, match="nothing can be sent"):
        w.sender(Place(names.dead_of(names.queue_entity(Q)), "dead"))
    w.stub.topic("t", "s")
    source = Subscription(Topic("t"), "s")
    # the retry queue is missing: no half a receiver
    with pytest.raises(Exception, match="could not be found"):
        w.receiver(source, also_read=w.adapter.plan(source, Retry(), Facts()).also_read)


def test_declare_makes_compares_and_verifies(w: World) -> None:
    source = Subscription(Topic("t"), "s", ordered=True)
    plan = w.adapter.plan(source, Retry(), Facts())
    report = w.connection.declare(plan.topology, verify_only=True)
    assert list(report.missing) == ["t", "t/Subscriptions/s", "t.s.retry"]
    report = w.connection.declare(plan.topology, verify_only=False)
    assert list(report.created) == ["t", "t/Subscriptions/s", "t.s.retry"]
    assert w.connection.declare(plan.topology, verify_only=True).ok
    assert w.stub.queues["t.s.retry"].requires_session
    report = w.connection.declare(
        w.adapter.plan(Queue("orders", ordered=True), None, Facts()).topology, verify_only=True
    )
    assert report.differences == {"orders": {"requires_session": (False, True)}}


def test_stats_purge_delete(w: World) -> None:
    sent(w.sender(Q), b"a", b"b")
    assert w.connection.stats(Q).depth == 2
    assert w.connection.purge(Q) == 2
    assert w.connection.stats(Q).depth == 0
    w.connection.delete(Q)
    assert "orders" not in w.stub.queues


def test_a_session_queue_without_a_key_is_rejected(w: World) -> None:
    w.stub.queue("s", requires_session=True)
    failed = send(w.sender(Queue("s")), b"no key").failures
    assert failed is not None
    assert isinstance(w.adapter.classify(failed[0].error, op=Op.SEND, handed_over=False), Rejected)


def test_the_key_shows_nowhere(w: World) -> None:
    (text, options) = w.stub.made_with[0]
    assert KEY in text
    assert options["retry_total"] == 0
    w.stub.cut()
    with pytest.raises(ServiceBusError) as caught:
        w.receiver(Queue("nowhere"))
    assert KEY not in f"{caught.value!r} {w.connection!r} {w.adapter!r} {w.events!r}"
