"""The driver on a real RabbitMQ: sending, receiving, settling, topology. Both ways of reading: our own and pika's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from integration.rabbitmq.seam import Events, Result, batch, connect, declare, depth, send, settle, take
from integration.sources import Broker
from unimq import Queue, Retry, Subscription, Topic
from unimq.driver import (
    Cancelled,
    Copy,
    Forget,
    Lost,
    Place,
    ReceiverOptions,
    Release,
    Room,
    SenderOptions,
)
from unimq.errors import ResourceExhausted, TopologyMismatch, Unroutable, Unsupported
from unimq.topology import Declaration
from unimq_rabbitmq import ADAPTER

Name = Callable[[str], str]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(params=["fast", "pika"])
def driver(request: pytest.FixtureRequest, rabbitmq: Broker, events: Events) -> Iterator[Any]:
    connection = connect(rabbitmq.url, events, native={"fast": request.param == "fast"})
    yield connection
    connection.close(5.0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unimq-rabbitmq")]


@pytest.fixture
def queue(driver: Any, unique: Name) -> Queue:
    found = Queue(unique("seam"))
    declare(driver, found)
    return found


# ---------------------------------------------------------------------------------------------------------- sending
def test_ten_thousand_are_confirmed(driver: Any, queue: Queue, events: Events) -> None:
    link, results, sent = driver.sender(queue, SenderOptions()), [], 0
    room = threading.Event()
    while sent < 10_000:
        result = Result()
        accepted = link.submit(batch([b"%d" % i for i in range(sent, min(sent + 250, 10_000))]), result)
        sent += accepted
        if accepted:
            results.append(result)
        else:  # full: Room follows
            events.wait(Room)
            events.clear()
            room.set()
    assert all(result.get().failures is None for result in results)
    assert driver.stats(queue).depth == 10_000


def test_unroutable_items_fail_alone(driver: Any, unique: Name) -> None:
    topic = Topic(unique("t"))
    sub = Subscription(topic, "s", subjects=["yes.#"])
    declare(driver, sub)
    strict = driver.sender(topic, SenderOptions(unroutable="error"))
    for ids in (True, False):
        mixed = batch([b"a", b"b", b"a", b"c"], ids=ids)
        for message, subject in zip(mixed.messages, ("no", "yes.x", "no", "yes"), strict=True):
            message.subject = subject
        result = Result()
        strict.submit(mixed, result)
        failures = result.get().failures
        assert set(failures) == {0, 2}
        assert all(
            isinstance(failed.error, Unroutable) and failed.handed_over for failed in failures.values()
        )
    lenient = driver.sender(topic, SenderOptions())
    assert send(lenient, [b"x"], subject="no").failures is None
    assert depth(driver, sub, 4) == 4


def test_a_queue_that_vanishes_is_unroutable(driver: Any, queue: Queue) -> None:
    link = driver.sender(queue, SenderOptions())
    assert send(link, [b"x"]).failures is None
    driver.delete(queue)
    failures = send(link, [b"x", b"y"]).failures
    assert set(failures) == {0, 1}
    assert "mq.declare" in str(failures[0].error)


def test_a_full_queue_nacks(driver: Any, unique: Name) -> None:
    queue = Queue(unique("full"))
    declare(driver, queue, max_length=3)
    link = driver.sender(queue, SenderOptions())
    early = send(link, [b"x"] * 10).failures or {}  # a quorum queue notices a little late
    failures = send(link, [b"x"] * 50).failures
    assert failures
    assert all(
        isinstance(failed.error, ResourceExhausted) and failed.handed_over for failed in failures.values()
    )
    assert driver.stats(queue).depth == 60 - len(failures) - len(early)


def test_one_bad_message_does_not_take_the_others(driver: Any, queue: Queue) -> None:
    mixed = batch([b"a", b"b", b"c"])
    mixed.messages[1].content_type = "x" * 300
    mixed.messages[2].ttl_s = 1e9
    result = Result()
    driver.sender(queue, SenderOptions()).submit(mixed, result)
    failures = result.get().failures
    assert {index: failed.handed_over for index, failed in failures.items()} == {1: False, 2: False}
    assert driver.stats(queue).depth == 1


def test_nothing_is_begun_after_its_deadline(driver: Any, queue: Queue) -> None:
    failures = send(driver.sender(queue, SenderOptions()), [b"x"], deadline_s=-1.0).failures
    assert failures[0].handed_over is False
    assert driver.stats(queue).depth == 0


def test_a_missing_exchange_kills_its_link_alone(
    driver: Any, queue: Queue, unique: Name, events: Events
) -> None:
    topic = Topic(unique("t"))
    declare(driver, topic)
    link, other = driver.sender(topic, SenderOptions()), driver.sender(queue, SenderOptions())
    driver.delete(topic)
    failures = send(link, [b"x", b"y"]).failures
    assert set(failures) == {0, 1}
    fault = ADAPTER.classify(failures[0].error, op=_send(), handed_over=True)
    assert isinstance(fault, Unroutable)
    lost = events.wait(Lost)
    assert lost.link is link
    dead = send(link, [b"z"]).failures
    assert dead[0].handed_over is False
    assert send(other, [b"well"]).failures is None


def test_sending_inside_done_nests_nothing(driver: Any, queue: Queue) -> None:
    link, left, over = driver.sender(queue, SenderOptions()), [2_000], threading.Event()

    def done(result: Any) -> None:
        assert result.failures is None
        left[0] -= 1
        if left[0]:
            assert link.submit(batch([b"x"]), done) == 1
        else:
            over.set()

    link.submit(batch([b"x"]), done)
    assert over.wait(40)


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
def test_bodies_of_any_size(driver: Any, queue: Queue, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    assert send(driver.sender(queue, SenderOptions()), [body, b"next"]).failures is None
    link = driver.receiver(queue, ReceiverOptions())
    assert [d.body for d in take(link, 2)] == [body, b"next"]


# -------------------------------------------------------------------------------------------------------- receiving
def filled(driver: Any, queue: Queue, count: int) -> None:
    assert send(driver.sender(queue, SenderOptions()), [b"%d" % i for i in range(count)]).failures is None


def test_acks_in_any_order(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 100)
    link = driver.receiver(queue, ReceiverOptions(prefetch=100))
    taken = take(link, 100)
    results = [Result() for _ in range(4)]
    for result, some in zip(results, (taken[50:], taken[1:50:2], taken[0:50:2], []), strict=True):
        link.settle(some, _ack(), result) if some else link.flush(result)
    assert all(list(result.get().lost) == [] for result in results)
    link.close(5.0)
    assert driver.stats(queue).depth == 0


def test_release_comes_back_and_the_rest_stays_settled(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 10)
    link = driver.receiver(queue, ReceiverOptions(prefetch=10))
    taken = take(link, 10)
    settle(link, taken[3:6], Release())
    settle(link, taken[:3] + taken[6:])  # an ack over nacked tags must not end on one
    again = take(link, 3)
    assert sorted(d.body or b"" for d in again) == [b"3", b"4", b"5"]
    assert all(d.redelivered and d.delivery_count == 1 for d in again)
    settle(link, again)
    link.close(5.0)
    assert depth(driver, queue, 0) == 0


def test_what_is_not_settled_goes_back_at_close(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 10)
    link = driver.receiver(queue, ReceiverOptions(prefetch=5))
    settle(link, take(link, 5)[:2])
    link.close(5.0)
    assert depth(driver, queue, 8) == 8


def test_forgotten_ones_are_not_acked_by_their_neighbours(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 10)
    link = driver.receiver(queue, ReceiverOptions(prefetch=10))
    taken = take(link, 10)
    settle(link, taken[2:3], Forget())
    settle(link, taken[:2] + taken[3:])
    link.close(5.0)
    assert depth(driver, queue, 1) == 1


def test_prefetch_is_a_bound(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 30)
    link = driver.receiver(queue, ReceiverOptions(prefetch=7))
    assert len(take(link, 7)) == 7
    assert link.receive(10, 0.3) == []


def test_prefetch_changes_in_flight(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 60)
    link = driver.receiver(queue, ReceiverOptions(prefetch=1))
    settle(link, take(link, 1))
    link.set_prefetch(20)
    assert len(take(link, 20)) == 20


def test_many_bytes_shrink_the_prefetch(driver: Any, queue: Queue) -> None:
    filled_bodies = [bytes(200_000)] * 40
    assert send(driver.sender(queue, SenderOptions()), filled_bodies).failures is None
    link = driver.receiver(queue, ReceiverOptions(prefetch=10, prefetch_bytes=1_000_000))
    for _ in range(40):
        settle(link, take(link, 1))
    assert link.receive(1, 0.2) == []
    assert link._held == 0
    assert link._held_bytes == 0


def test_on_receive_is_settled_when_handed_out(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 10)
    link = driver.receiver(queue, ReceiverOptions(mode="on_receive", prefetch=4))
    take(link, 6)
    link.close(5.0)
    assert depth(driver, queue, 4) == 4


def test_browse_leaves_everything(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 5)
    link = driver.receiver(queue, ReceiverOptions(mode="browse", prefetch=100))
    assert len(take(link, 5)) == 5
    assert link.ended
    started = time.monotonic()
    assert link.receive(1, 5.0) == []
    assert time.monotonic() - started < 1.0
    link.close(5.0)
    assert driver.stats(queue).depth == 5  # at once: the next browse must see them again


def test_until_end_stops_at_what_was_there(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 5)
    link = driver.receiver(queue, ReceiverOptions(until_end=True, prefetch=2))
    filled(driver, queue, 3)
    taken = []
    while not link.ended:
        some = link.receive(1, 5.0)
        settle(link, some)
        taken += some
    assert [d.body for d in taken] == [b"0", b"1", b"2", b"3", b"4"]
    link.close(5.0)
    assert depth(driver, queue, 3) == 3


def test_on_ready_once_per_filling_and_wake(driver: Any, queue: Queue) -> None:
    ready = threading.Semaphore(0)
    link = driver.receiver(queue, ReceiverOptions(on_ready=ready.release))
    assert link.receive(1, 0) == []
    filled(driver, queue, 5)
    assert ready.acquire(timeout=10)
    take(link, 5)
    assert not ready.acquire(timeout=0.2)
    link.wake()
    started = time.monotonic()
    assert link.receive(1, 10.0) == []
    assert time.monotonic() - started < 1.0


def test_receive_is_woken_from_its_wait(driver: Any, queue: Queue) -> None:
    link = driver.receiver(queue, ReceiverOptions())
    threading.Timer(0.2, link.wake).start()
    started = time.monotonic()
    assert link.receive(1, 10.0) == []
    assert time.monotonic() - started < 2.0


def test_a_deleted_queue_cancels(driver: Any, queue: Queue, events: Events) -> None:
    filled(driver, queue, 3)
    link = driver.receiver(queue, ReceiverOptions())
    taken = take(link, 3)
    driver.delete(queue)
    assert events.wait(Cancelled).link is link
    with pytest.raises(pika.exceptions.ConsumerCancelled):
        link.receive(1, 5.0)
    assert list(settle(link, taken).lost) == taken


def test_a_channel_dies_under_a_living_connection(
    driver: Any, queue: Queue, unique: Name, events: Events
) -> None:
    filled(driver, queue, 4)
    other = Queue(unique("other"))
    declare(driver, other)
    link, well = driver.receiver(queue, ReceiverOptions()), driver.receiver(other, ReceiverOptions())
    taken = take(link, 4)
    taken[0].tag = 999  # an unknown tag closes the channel
    lost = list(settle(link, taken[:1]).lost)
    assert lost == taken[:1]
    event = events.wait(Lost)
    assert event.link is link
    assert ADAPTER.classify(event.error, op=_receive(), handed_over=False).code == "unknown-delivery-tag"
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        link.receive(1, 1.0)
    filled(driver, other, 1)
    assert len(take(well, 1)) == 1


def test_order_survives_a_change_of_the_single_active_consumer(
    driver: Any, unique: Name, rabbitmq: Broker
) -> None:
    """pika's close cancels first, and then messages on their way come back before those in hand."""
    for _ in range(5):
        queue = Queue(unique("ordered"), ordered=True)
        declare(driver, queue)
        filled(driver, queue, 40)
        first = driver.receiver(queue, ReceiverOptions(prefetch=10))
        settle(first, take(first, 10))
        take(first, 1)
        first.close(5.0)
        second = driver.receiver(queue, ReceiverOptions(prefetch=10))
        seen = []
        while len(seen) < 30:
            some = take(second, 1)
            settle(second, some)
            seen += [int(d.body or b"") for d in some]
        assert seen == sorted(seen)
        second.close(5.0)


def test_a_foreign_message_with_odd_headers_is_no_poison(driver: Any, queue: Queue, rabbitmq: Broker) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        connection.channel().basic_publish("", queue.name, b"plain")
        connection.channel().basic_publish(
            "",
            queue.name,
            b"typed",
            pika.BasicProperties(headers={"n": None, "l": [1], "t": {"x": 1}, "i": 2**40}),
        )
    link = driver.receiver(queue, ReceiverOptions())
    taken = take(link, 2)
    assert [d.body for d in taken] == [b"plain", b"typed"]
    assert dict(taken[0].headers) == {}
    assert dict(taken[1].headers) == {"i": 2**40}


# ------------------------------------------------------------------------------------------------ copies and delays
def test_a_retry_waits_and_comes_back_to_its_group_alone(driver: Any, unique: Name) -> None:
    topic = Topic(unique("t"))
    one, two = Subscription(topic, "one"), Subscription(topic, "two")
    plan = ADAPTER.plan(one, Retry(delayed_s=(0.3,)), driver.facts)
    driver.declare(plan.topology, verify_only=False)
    declare(driver, two)
    send(driver.sender(topic, SenderOptions()), [b"x"], subject="a.b")
    link, copier = driver.receiver(one, ReceiverOptions()), driver.sender(plan.retry(0.3), SenderOptions())
    taken = take(link, 1)
    result = Result()
    copier.forward([Copy(taken[0], "m#1", {"unimq-copies": 1, "unimq-message-id": "m"})], result)
    assert result.get().failures is None
    settle(link, taken)
    started = time.monotonic()
    again = take(link, 1)[0]
    assert time.monotonic() - started > 0.2
    assert (again.body, again.subject, again.message_id, again.metadata.copies) == (b"x", "a.b", "m", 1)
    settle(link, [again])
    assert driver.stats(two).depth == 1


def test_a_delayed_send_to_a_topic_keeps_its_subject(driver: Any, unique: Name) -> None:
    topic = Topic(unique("t"))
    sub = Subscription(topic, "s", subjects=["a.*"])
    declare(driver, sub)
    plan = ADAPTER.plan(topic, None, driver.facts)
    assert plan.delay is not None
    place = plan.delay(0.2)
    driver.declare([Declaration(topic, places=(place,))], verify_only=False)
    link = driver.receiver(sub, ReceiverOptions())
    assert send(driver.sender(place, SenderOptions()), [b"x"], subject="a.b").failures is None
    delivery = take(link, 1)[0]
    assert (delivery.subject, delivery.body) == ("a.b", b"x")


def test_native_deaths_are_read(driver: Any, unique: Name) -> None:
    queue = Queue(unique("dying"))
    declare(driver, queue)
    send(driver.sender(queue, SenderOptions()), [b"x"], ttl_s=0.1)
    dead = ADAPTER.plan(queue, None, driver.facts).dead_read[0]
    link = driver.receiver(dead, ReceiverOptions(mode="dead"))
    death = take(link, 1)[0].native_death()
    assert death is not None
    assert (death.reason, death.attempts) == ("expired", 1)


def test_requests_and_direct_replies(driver: Any, queue: Queue) -> None:
    reply = ADAPTER.plan(queue, None, driver.facts).reply
    assert reply is not None
    replies = driver.receiver(reply, ReceiverOptions(mode="on_receive"))
    service = driver.receiver(queue, ReceiverOptions())
    assert send(driver.sender(queue, SenderOptions()), [b"a", b"b"], reply_to=reply.text).failures is None
    for request in take(service, 2):
        answer = driver.sender(Place(request.reply_to, str(request.reply_to)), SenderOptions())
        assert (
            send(answer, [b"re:" + (request.body or b"")], correlation_id=request.message_id).failures is None
        )
        answer.close(1.0)
    assert sorted(d.body or b"" for d in take(replies, 2)) == [b"re:a", b"re:b"]


# --------------------------------------------------------------------------------------------------------- topology
def test_filters_are_compared_and_replaced(driver: Any, unique: Name) -> None:
    topic = Topic(unique("t"))
    send_link = None
    sub = Subscription(topic, "s", subjects=["a.*", "b"], where={"k": 1})
    declare(driver, sub)
    declare(driver, sub)
    send_link = driver.sender(topic, SenderOptions())
    for subject, headers in (
        ("a.x", {"k": 1}),
        ("a.x", {"k": 2}),
        ("c", {"k": 1}),
        ("b", {"k": 1, "more": "x"}),
    ):
        send(send_link, [subject.encode()], subject=subject, headers=headers)
    assert depth(driver, sub, 2) == 2
    other = Subscription(topic, "s", subjects=["c"])
    with pytest.raises(TopologyMismatch, match="replace_filters"):
        declare(driver, other)
    report = driver.declare([Declaration(other)], verify_only=True)
    assert not report.ok
    declare(driver, other, replace_filters=True)
    for subject in ("a.x", "c"):
        send(send_link, [b"new"], subject=subject, headers={"k": 1})
    assert depth(driver, sub, 3) == 3
    declare(driver, sub, replace_filters=True)
    assert driver.declare([Declaration(sub)], verify_only=True).ok


def test_verify_creates_nothing(driver: Any, unique: Name) -> None:
    sub = Subscription(Topic(unique("t")), "s")
    plan = ADAPTER.plan(sub, Retry(), driver.facts)
    for _ in range(2):
        report = driver.declare(plan.topology, verify_only=True)
        assert not report.ok
        assert len(report.missing) >= 3
    driver.declare(plan.topology, verify_only=False)
    assert driver.declare(plan.topology, verify_only=True).ok


def test_an_existing_queue_is_used_as_it_is(driver: Any, unique: Name, rabbitmq: Broker) -> None:
    queue = Queue(unique("theirs"))
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        arguments = {"x-max-length": 5, "x-message-ttl": 100_000, "x-max-priority": 3}
        connection.channel().queue_declare(queue.name, durable=True, arguments=arguments)
    report = declare(driver, queue)
    assert queue.name in report.existing
    assert driver.facts.extra["queue_kinds"][queue.name] == "classic"
    declare(driver, queue, max_priority=3)
    with pytest.raises(TopologyMismatch) as caught:
        declare(driver, queue, ttl_s=50)
    assert caught.value.differences == {f"{queue.name}: x-message-ttl": (100_000, 50_000)}
    with pytest.raises(TopologyMismatch, match="single-active"):
        declare(driver, Queue(queue.name, ordered=True))


def test_priorities_need_a_classic_queue(driver: Any, unique: Name) -> None:
    queue = Queue(unique("prio"))
    declare(driver, queue, max_priority=9)
    link = driver.sender(queue, SenderOptions())
    for priority in (1, 9, 5):
        send(link, [b"%d" % priority], priority=priority)
    assert [d.body for d in take(driver.receiver(queue, ReceiverOptions()), 3)] == [b"9", b"5", b"1"]


@pytest.mark.parametrize("option", ["partitions", "dedup_window_s", "lock_s"])
def test_what_rabbitmq_lacks_is_said(driver: Any, unique: Name, option: str) -> None:
    with pytest.raises(Unsupported, match=option):
        declare(driver, Queue(unique("no")), **{option: 1})


def test_a_private_subscription_ends_with_its_receiver(driver: Any, unique: Name) -> None:
    topic = Topic(unique("t"))
    declare(driver, topic)
    for sub in (Subscription(topic, subjects=["a"]), Subscription(topic, where={"k": "v"})):
        link = driver.receiver(sub, ReceiverOptions())
        send_link = driver.sender(topic, SenderOptions())
        send(send_link, [b"yes"], subject="a", headers={"k": "v"})
        send(send_link, [b"no"], subject="b", headers={"k": "w"})
        assert [d.body for d in take(link, 1)] == [b"yes"]
        assert link.receive(1, 0.2) == []
        name = link.queue
        link.close(5.0)
        assert driver.delete(Place(name, name)) is None
        with pytest.raises(Exception, match="no queue"):
            driver.stats(Place(name, name))


def test_names_that_rabbitmq_changes_or_refuses(driver: Any, unique: Name) -> None:
    for name in (
        "amq." + unique("mine"),
        unique("line\nbreak"),
        unique("50%"),
        unique("größe/漢字"),
        unique("n\0l"),
    ):
        queue = Queue(name)
        declare(driver, queue)
        send(driver.sender(queue, SenderOptions()), [name.encode()])
        assert [d.body for d in take(driver.receiver(queue, ReceiverOptions()), 1)] == [name.encode()]


def test_admin(driver: Any, queue: Queue) -> None:
    filled(driver, queue, 3)
    found = driver.stats(queue)
    assert (found.depth, found.dead, found.consumers) == (3, 0, 0)
    assert driver.purge(queue) == 3
    driver.delete(queue)
    driver.delete(queue)


def _send() -> Any:
    from unimq.driver import Op

    return Op.SEND


def _receive() -> Any:
    from unimq.driver import Op

    return Op.RECEIVE


def _ack() -> Any:
    from unimq.driver import Ack

    return Ack()
