"""Behaviours at the seam, on a real Kafka: what the core builds on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException

from unimq import headers as h
from unimq.address import Queue, Subscription, Topic
from unimq.driver import Ack, Copy, FlowPaused, Forget, Op, Place, Release, Room
from unimq.errors import Closed, ConnectionFailed, MessageTooLarge, NotFound, Unsupported
from unimq.message import Message
from unimq.topology import Declaration
from unimq_kafka import ADAPTER, books

from .rig import Rig

Unique = Callable[[str], str]
QUIET_S = 1.0


def bodies(deliveries: list[object]) -> list[object]:
    return [one.body for one in deliveries]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------- basics
def test_bodies_and_fields_come_back(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    sent = Message(b"\xff\x00", key="k", subject="a.b", headers={"i": 1, "raw": b"\xff"}, content_type="x/y")
    result = rig.send(queue, sent, b"", Message(None))
    assert list(result.positions or ()) == [(0, 0), (0, 1), (0, 2)]
    link = rig.receiver(queue)
    first, empty, tombstone = rig.take(link, 3)
    assert (first.body, empty.body, tombstone.body) == (b"\xff\x00", b"", None)
    assert (first.key, first.subject, first.content_type) == ("k", "a.b", "x/y")
    assert first.headers == {"i": 1, "raw": b"\xff"}
    assert first.position == (0, 0)
    assert first.message_id
    assert rig.connection.stats(queue).depth == 3
    assert not rig.settle(link, [first, empty, tombstone]).lost
    assert rig.connection.stats(queue).lag == 0


def test_an_empty_receive_returns_at_its_time(rig: Rig, unique: Unique) -> None:
    link = rig.receiver(rig.queue(unique))
    began = time.monotonic()
    assert link.receive(1, 0) == []
    assert time.monotonic() - began < 0.1
    assert link.receive(1, 0.3) == []
    assert 0.25 < time.monotonic() - began < 1.0


def test_wake_is_sticky(rig: Rig, unique: Unique) -> None:
    link = rig.receiver(rig.queue(unique))
    link.wake()
    began = time.monotonic()
    assert link.receive(1, 10) == []
    assert time.monotonic() - began < 0.1


def test_on_ready_is_told_once_per_drought(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    told = threading.Semaphore(0)
    link = rig.receiver(queue, on_ready=told.release)
    assert link.receive(1, 0) == []
    rig.send(queue, b"1", b"2")
    assert told.acquire(timeout=15)
    rig.take(link, 2)
    assert not told.acquire(blocking=False)


def test_close_unblocks_receive(rig: Rig, unique: Unique) -> None:
    link = rig.receiver(rig.queue(unique))
    raised: list[BaseException] = []

    def receive() -> None:
        try:
            link.receive(1, 30)
        except Closed as error:
            raised.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    link.close(5)
    thread.join(2)
    assert not thread.is_alive()
    assert raised
    lost = rig.waiter()
    link.settle([], Ack(), lost)
    assert not lost.wait(1).lost  # a dead link answers at once


# ------------------------------------------------------------------------------------------------- settling
def test_competing_receivers_get_each_message_once(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique, partitions=4)
    links = [rig.receiver(queue, prefetch=20), rig.receiver(queue, prefetch=20)]
    rig.send(queue, *(Message(b"%d" % n, key=str(n)) for n in range(200)))
    seen: list[object] = []
    deadline = time.monotonic() + 30
    counts = [0, 0]
    while len(seen) < 200 and time.monotonic() < deadline:
        for number, link in enumerate(links):
            taken = link.receive(50, 0.05)
            if taken:
                counts[number] += len(taken)
                seen += bodies(taken)
                link.settle(taken, Ack(), rig.waiter())
    for link in links:
        link.close(5)
    link = rig.receiver(queue)
    seen += bodies(link.receive(500, QUIET_S))
    assert sorted(map(int, seen)) == list(range(200))  # type: ignore[call-overload]


def test_acked_is_gone_and_unacked_comes_again(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, b"1", b"2", b"3")
    link = rig.receiver(queue)
    taken = rig.take(link, 3)
    rig.settle(link, taken[:2])
    link.close(5)
    link = rig.receiver(queue)
    assert bodies(rig.take(link, 1)) == [b"3"]
    assert link.receive(1, QUIET_S) == []


def test_what_is_settled_and_not_waited_for_is_committed_at_close(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, b"1", b"2")
    link = rig.receiver(queue)
    done = rig.waiter()
    link.settle(rig.take(link, 2), Ack(), done)
    link.close(5)
    assert done.over
    assert not done.wait().lost
    assert rig.receiver(queue).receive(1, QUIET_S) == []


def test_an_ack_behind_a_gap_is_held_and_never_skips(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, *(b"%d" % n for n in range(5)))
    link = rig.receiver(queue)
    taken = rig.take(link, 5)
    assert rig.settle(link, taken[:1]).held == []
    result = rig.settle(link, taken[2:])
    assert list(result.held) == taken[2:]
    assert list(rig.flush(link).held) == taken[2:]
    assert rig.connection.stats(queue).lag == 4
    link.close(5)
    link = rig.receiver(queue)
    again = rig.take(link, 4)
    assert bodies(again) == [b"1", b"2", b"3", b"4"]
    for delivery in reversed(again):
        rig.settle(link, [delivery])
    assert rig.flush(link).held == []
    assert rig.connection.stats(queue).lag == 0


def test_a_released_message_is_a_new_delivery(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, b"1", b"2")
    link = rig.receiver(queue)
    first, second = rig.take(link, 2)
    rig.settle(link, [first], Release())
    (again,) = rig.take(link, 1)
    assert again.body == b"1"
    assert again.tag != first.tag
    rig.settle(link, [again, second])
    assert rig.connection.stats(queue).lag == 0


def test_a_forgotten_message_is_never_committed_over(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, b"1", b"2")
    link = rig.receiver(queue)
    first, second = rig.take(link, 2)
    rig.settle(link, [first], Forget())
    assert list(rig.settle(link, [second]).held) == [second]
    link.close(5)
    assert bodies(rig.take(rig.receiver(queue), 2)) == [b"1", b"2"]


def test_prefetch_caps_what_is_out_and_polling_goes_on(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, *(b"%d" % n for n in range(50)))
    link = rig.receiver(queue, prefetch=10)
    taken = rig.take(link, 10)
    assert link.receive(1, QUIET_S) == []
    rig.settle(link, taken)
    assert bodies(rig.take(link, 10)) == [b"%d" % n for n in range(10, 20)]


def test_too_much_behind_a_gap_pauses_the_partition(
    rig: Rig, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "GAP_CAP", 5)
    queue = rig.queue(unique)
    rig.send(queue, *(b"%d" % n for n in range(40)))
    link = rig.receiver(queue, prefetch=5)
    (gap, *others) = rig.take(link, 5)
    rig.settle(link, others)
    assert rig.event(FlowPaused, link).reason
    taken = link.receive(100, QUIET_S)  # at most a batch of what had been fetched
    assert len(taken) <= 5
    rig.settle(link, [gap, *taken])
    assert rig.take(link, 1)


def test_on_receive_is_settled_when_handed_out(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, b"1", b"2")
    link = rig.receiver(queue, mode="on_receive")
    assert bodies(rig.take(link, 1)) == [b"1"]
    link.close(5)
    assert bodies(rig.take(rig.receiver(queue), 1)) == [b"2"]


def test_browse_takes_nothing(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, *(b"%d" % n for n in range(5)))
    link = rig.receiver(queue)
    rig.settle(link, rig.take(link, 2))
    link.close(5)
    looking = rig.receiver(queue, mode="browse", prefetch=2)
    assert bodies(rig.take(looking, 3)) == [b"2", b"3", b"4"]
    assert rig.connection.stats(queue).lag == 3


# ------------------------------------------------------------------------------------- retries and the dead
def test_a_delayed_copy_comes_by_the_same_link_in_time(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    plan = rig.plan(queue, 1.0)
    rig.connection.declare(plan.topology, verify_only=False)
    rig.send(queue, b"later", b"now")
    link = rig.receiver(queue, also_read=plan.also_read)
    (delivery,) = rig.take(link, 1)
    place = plan.retry(1.0)
    rig.forward(place, Copy(delivery, "x#1", {h.ATTEMPT: 1, h.COPIES: 1}))
    copied = time.monotonic()
    rig.settle(link, [delivery])
    (other,) = rig.take(link, 1)
    assert other.body == b"now"
    assert time.monotonic() - copied < 0.9, "the delay of one blocked the other"
    rig.settle(link, [other])
    (again,) = rig.take(link, 1)
    assert 0.95 < time.monotonic() - copied < 2.0
    assert again.body == b"later"
    assert again.place == place
    assert (again.attempt, again.metadata.copies) == (2, 1)
    assert again.message_id == delivery.message_id
    assert again.timestamp == delivery.timestamp
    rig.settle(link, [again])
    assert rig.connection.stats(queue).delayed == 0


def test_a_place_made_later_is_read_as_well(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    rig.send(queue, b"x")
    link = rig.receiver(queue)
    (delivery,) = rig.take(link, 1)
    place = rig.plan(queue).retry(0.1)
    rig.declare(queue, places=[place])
    rig.forward(place, Copy(delivery, "x#1", {}))
    rig.settle(link, [delivery])
    (again,) = rig.take(link, 1)
    assert again.place == place


def test_a_dead_letter_keeps_its_reason(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    plan = rig.plan(queue)
    report = rig.connection.declare(plan.topology, verify_only=False)
    assert plan.dead_write is not None
    assert isinstance(plan.dead_write, Place)
    assert plan.dead_write.text in report.created
    rig.send(queue, Message(b"x", key="k", headers={"a": 1}))
    link = rig.receiver(queue)
    (delivery,) = rig.take(link, 1)
    rig.forward(plan.dead_write, Copy(delivery, "x#1", {h.REASON: "rejected"}))
    rig.settle(link, [delivery])
    stats = rig.connection.stats(queue)
    assert (stats.depth, stats.dead) == (0, 1)
    dead = rig.receiver(plan.dead_write, mode="dead")
    (buried,) = rig.take(dead, 1)
    assert (buried.body, buried.key, buried.headers) == (b"x", "k", {"a": 1})
    assert buried.metadata.unimq[h.REASON] == "rejected"
    rig.settle(dead, [buried])
    assert rig.connection.stats(queue).dead == 0
    dead.close(5)
    assert rig.connection.purge(plan.dead_write) == 0


# --------------------------------------------------------------------------------------------------- topics
def test_a_new_group_receives_what_is_sent_after_it_opened(rig: Rig, unique: Unique) -> None:
    topic = Topic(unique("t"))
    rig.declare(topic, partitions=3)
    rig.send(topic, *(Message(b"before", key=str(n)) for n in range(6)))
    link = rig.receiver(Subscription(topic, unique("g")))
    rig.send(topic, *(Message(b"after", key=str(n)) for n in range(6)))  # long before its first assignment
    assert bodies(rig.take(link, 6)) == [b"after"] * 6
    assert link.receive(1, QUIET_S) == []
    early = rig.receiver(Subscription(topic, unique("g"), start="earliest"))
    assert len(rig.take(early, 12)) == 12


def test_a_declared_group_has_its_position(rig: Rig, unique: Unique) -> None:
    subscription = Subscription(Topic(unique("t")), unique("g"))
    rig.declare(subscription)
    rig.send(subscription.topic, b"meanwhile")
    assert bodies(rig.take(rig.receiver(subscription), 1)) == [b"meanwhile"]


def test_a_private_subscription_leaves_nothing(rig: Rig, unique: Unique) -> None:
    topic = Topic(unique("t"))
    rig.declare(topic, partitions=2)
    rig.send(topic, b"before")
    links = [rig.receiver(Subscription(topic)), rig.receiver(Subscription(topic))]
    rig.send(topic, b"after")
    for link in links:
        (delivery,) = rig.take(link, 1)
        assert delivery.body == b"after"
        rig.settle(link, [delivery])


def test_a_filter_drops_and_acknowledges(rig: Rig, unique: Unique) -> None:
    topic = Topic(unique("t"))
    rig.declare(topic, partitions=1)
    subscription = Subscription(topic, unique("g"), subjects=["a.*"], where={"x": 1})
    link = rig.receiver(subscription)
    rig.send(
        topic,
        Message(b"no", subject="b.c", headers={"x": 1}),
        Message(b"yes", subject="a.c", headers={"x": 1}),
        Message(b"no", subject="a.c", headers={"x": True}),
        Message(b"no"),
    )
    (delivery,) = rig.take(link, 1)
    assert delivery.body == b"yes"
    rig.settle(link, [delivery])
    assert link.receive(1, QUIET_S) == []
    rig.flush(link)
    assert rig.connection.stats(subscription).lag == 0


# -------------------------------------------------------------------------------------------------- sending
def test_a_missing_topic_is_found_at_open_and_not_made(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("missing"))
    for _ in range(2):
        with pytest.raises(NotFound, match=r"mq\.declare"):
            rig.sender(queue)
        with pytest.raises(NotFound, match=r"mq\.declare"):
            rig.receiver(queue)
    report = rig.connection.declare([Declaration(queue)], verify_only=True)
    assert report.missing == (queue.name,)


def test_each_failure_is_its_own(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    link = rig.sender(queue)
    done = rig.waiter()
    batch = rig.batch(Message(b"1"), Message(b"x" * 2_000_000), Message(b"2", priority=3), Message(b"3"))
    assert link.submit(batch, done) == 4
    failures = done.wait().failures
    assert failures is not None
    assert sorted(failures) == [1, 2]
    assert all(not failed.handed_over for failed in failures.values())
    kinds = [ADAPTER.classify(failures[i].error, op=Op.SEND, handed_over=False) for i in (1, 2)]
    assert isinstance(kinds[0], MessageTooLarge)
    assert isinstance(kinds[1], Unsupported)
    assert bodies(rig.take(rig.receiver(queue), 2)) == [b"1", b"3"]


def test_a_full_queue_takes_a_prefix_and_room_follows(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    with Rig(rig.url, native={"producer": {"queue.buffering.max.messages": 100, "linger.ms": 200}}) as small:
        link = small.sender(queue)
        done = small.waiter()
        batch = small.batch(*(Message(b"%d" % n) for n in range(250)))
        assert link.submit(batch, done) == 100
        assert link.submit(batch, small.waiter()) == 0
        small.event(Room, link)
        assert done.wait().failures is None
        assert len(done.wait().positions or ()) == 100
    assert rig.connection.stats(queue).depth == 100


def test_order_is_kept_over_batches(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    link = rig.sender(queue)
    waiting = []
    for start in range(0, 1_000, 50):
        done = rig.waiter()
        assert link.submit(rig.batch(*(Message(b"%d" % n) for n in range(start, start + 50))), done) == 50
        waiting.append(done)
    for done in waiting:
        assert done.wait().failures is None
    receiver = rig.receiver(queue, prefetch=2_000)
    assert bodies(rig.take(receiver, 1_000)) == [b"%d" % n for n in range(1_000)]


def test_done_may_send_again_to_any_depth(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    link = rig.sender(queue)
    link.close(1)
    depth = 2_000
    left = [depth]

    def again(result: object) -> None:
        left[0] -= 1
        if left[0]:
            link.submit(rig.batch(Message(b"x")), again)

    link.submit(rig.batch(Message(b"x")), again)
    assert left[0] == 0


def test_nobody_there_is_told_within_the_time(unique: Unique) -> None:
    from integration.native._process import free_ports

    began = time.monotonic()
    with pytest.raises(KafkaException) as raised:
        Rig(f"kafka://127.0.0.1:{free_ports(1)[0]}", connect_timeout_s=8.0)
    assert time.monotonic() - began < 8.5
    fault = ADAPTER.classify(raised.value, op=Op.CONNECT, handed_over=False)
    assert isinstance(fault, ConnectionFailed)


def test_nothing_stays_behind(rig: Rig, unique: Unique) -> None:
    queue = rig.queue(unique)
    before = {thread.name for thread in threading.enumerate()}
    for _ in range(3):
        with Rig(rig.url) as one:
            one.send(queue, b"x")
            link = one.receiver(queue)
            one.settle(link, one.take(link, 1))
    deadline = time.monotonic() + 5
    while {thread.name for thread in threading.enumerate()} - before and time.monotonic() < deadline:
        rig.connection.drive(0.02)
    assert {thread.name for thread in threading.enumerate()} <= before
