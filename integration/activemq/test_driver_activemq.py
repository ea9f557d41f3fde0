"""The driver's promises at the seam, on both brokers."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from unimq.address import Queue, Subscription, Topic
from unimq.capabilities import ABSENT
from unimq.driver import ALL_WELL, Ack, ConnectOptions, Op, Release
from unimq.errors import AuthenticationFailed, ConnectionFailed, InvalidMessage, Unsupported
from unimq.message import Message
from unimq.retry import Retry
from unimq.topology import Declaration
from unimq.url import parse
from unimq_activemq import ADAPTER

from .rig import LIMIT_S, Rig, Waiter, ack, bodies, copy_of, settle, take

Unique = Callable[[str], str]


def plan_of(rig: Rig, source: Any) -> Any:
    return ADAPTER.plan(source, Retry(), rig.connection.facts)


def test_flavour_and_version_are_found(rig: Rig, request: pytest.FixtureRequest) -> None:
    assert rig.flavour in request.node.name
    assert rig.connection.facts.version[0] >= 2
    assert rig.connection.capabilities.found.startswith("ActiveMQ ")


@pytest.mark.parametrize(
    "body", [b"plain", b"", b"\x00\x01\xff\xfe\n\x00", b"x" * 1024 * 1024, None, "ü😀\n".encode()]
)
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json"])
def test_send_and_receive_bytes(
    rig: Rig, unique: Unique, body: bytes | None, content_type: str | None
) -> None:
    queue = Queue(unique("bytes"))
    assert rig.send(queue, Message(body, content_type=content_type)) is ALL_WELL
    link = rig.receiver(queue)
    (delivery,) = take(link, 1)
    assert delivery.body == body
    assert delivery.content_type == content_type
    ack(link, [delivery])


def test_fields_come_back(rig: Rig, unique: Unique) -> None:
    queue, when = Queue(unique("fields")), dt.datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=dt.UTC)
    sent = Message(
        b"{}",
        key="k:1\n",
        headers={
            "s": " a:b\\c\n\r ",
            "i": 2**63 - 1,
            "f": 1.5,
            "b": True,
            "x": b"\0\xff",
            "odd näme": "",
            "a:b\\c\n": "ü😀",
        },
        subject="a.b:c",
        content_type="application/json",
        message_id="id:1",
        correlation_id="c:1",
        reply_to=Queue("answers"),
        priority=7,
        ttl_s=60,
        timestamp=when,
    )
    assert rig.send(queue, sent) is ALL_WELL
    (got,) = take(rig.receiver(queue), 1)
    for name in (
        "key",
        "subject",
        "content_type",
        "message_id",
        "correlation_id",
        "reply_to",
        "priority",
        "timestamp",
    ):
        assert getattr(got, name) == getattr(sent, name), name
    assert got.headers == sent.headers
    assert {name: type(value) for name, value in got.headers.items()} == {
        name: type(value) for name, value in (sent.headers or {}).items()
    }
    assert got.expires_at is not None and 0 < (got.expires_at - dt.datetime.now(dt.UTC)).total_seconds() <= 60
    assert not got.redelivered


def test_what_stomp_cannot_carry_is_refused_and_its_neighbours_go(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("refused"))
    bad = [{"a\0b": "x"}, {"destination": "elsewhere"}, {"_AMQ_x": "1"}, {"n": "a\0b"}, {"s": "\ud800"}]
    result = rig.send(queue, b"first", *(Message(b"bad", headers=headers) for headers in bad), b"last")
    assert result.failures is not None and sorted(result.failures) == [1, 2, 3, 4, 5]
    for failed in result.failures.values():
        assert not failed.handed_over
        assert isinstance(ADAPTER.classify(failed.error, op=Op.SEND, handed_over=False), InvalidMessage)
    link = rig.receiver(queue)
    assert bodies(take(link, 2)) == [b"first", b"last"]
    assert link.receive(5, 0.3) == ()


@pytest.mark.parametrize(
    "name", ["a:b", "a/b", "a b", "ü", "a\\b", "a,b", "a?b", "a*b", "a>b", "a#b", "a::b", "a%2Cb", " a "]
)
def test_odd_names_are_places_of_their_own(rig: Rig, unique: Unique, name: str) -> None:
    queue = Queue(unique(name) + name)
    assert rig.send(queue, name.encode()) is ALL_WELL
    link = rig.receiver(queue)
    (delivery,) = take(link, 1)
    ack(link, [delivery])


def test_receive_times_out_with_nothing(rig: Rig, unique: Unique) -> None:
    link = rig.receiver(Queue(unique("empty")))
    began = time.monotonic()
    assert len(link.receive(1, 0)) == 0
    assert time.monotonic() - began < 0.1
    assert len(link.receive(1, 0.3)) == 0
    assert 0.25 < time.monotonic() - began < 2


def test_competing_consumers_get_each_once(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("compete"))
    first, second = rig.receiver(queue, prefetch=10), rig.receiver(queue, prefetch=10)
    assert rig.send(queue, *(b"%d" % n for n in range(100))) is ALL_WELL
    got: list[bytes | None] = []
    deadline = time.monotonic() + LIMIT_S
    while len(got) < 100 and time.monotonic() < deadline:
        for link in (first, second):
            if deliveries := link.receive(10, 0.02):
                got += bodies(deliveries)
                ack(link, deliveries)
    assert sorted(got) == sorted(b"%d" % n for n in range(100))


def test_ack_removes_and_no_ack_then_close_redelivers_in_order(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("redeliver"))
    rig.send(queue, *(b"%d" % n for n in range(6)))
    link = rig.receiver(queue)
    got = take(link, 6)
    for n in (4, 1):  # out of order: the others must stay
        ack(link, [got[n]])
    link.close(5)
    again = rig.receiver(queue)
    assert bodies(take(again, 4)) == [b"0", b"2", b"3", b"5"]
    assert len(again.receive(1, 0.3)) == 0


def test_acks_are_confirmed_across_a_dropped_connection(broker: str, unique: Unique) -> None:
    queue = Queue(unique("confirmed"))
    with Rig(broker) as rig:
        rig.send(queue, *(b"%d" % n for n in range(20)))
        link = rig.receiver(queue)
        got = take(link, 20)
        ack(link, got[::2])
        rig.connection._consume.kill(None)
        rig.lost()
    with Rig(broker) as rig:
        link = rig.receiver(queue)
        assert sorted(bodies(take(link, 10)), key=int) == [b"%d" % n for n in range(1, 20, 2)]  # type: ignore[arg-type]
        assert len(link.receive(1, 0.3)) == 0


def test_flush_waits_for_what_was_settled_before(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("flush"))
    rig.send(queue, *(b"%d" % n for n in range(50)))
    link = rig.receiver(queue)
    got = take(link, 50)
    acks: list[Waiter[Any]] = []
    for delivery in got:
        acks.append(Waiter())
        link.settle([delivery], Ack(), acks[-1])
    flushed: Waiter[Any] = Waiter()
    link.flush(flushed)
    assert not flushed.wait().lost
    assert all(waiter.done for waiter in acks)


def test_prefetch_caps_what_is_in_hand(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("prefetch"))
    rig.send(queue, *(b"x" * 10 for _ in range(20)))
    link = rig.receiver(queue, prefetch=3)
    got = take(link, 3)
    assert len(link.receive(10, 0.3)) == 0
    ack(link, got[:1])
    assert len(take(link, 1)) == 1
    assert len(link.receive(10, 0.3)) == 0


def test_prefetch_of_one_leaves_the_rest_to_others(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("one"))
    rig.send(queue, b"a", b"b")
    slow, other = rig.receiver(queue, prefetch=1), rig.receiver(queue, prefetch=1)
    assert bodies(take(slow, 1) + take(other, 1)) == [b"a", b"b"]


def test_release_is_a_copy_to_the_own_queue(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("release"))
    rig.send(
        queue,
        Message(b"{}", headers={"n": 1}, key="k", content_type="application/json", message_id=unique("m")),
    )
    link, plan = rig.receiver(queue), plan_of(rig, queue)
    (first,) = take(link, 1)
    for number in (1, 2):
        assert rig.forward(plan.release, copy_of(first, number, attempt=number)) is ALL_WELL
        ack(link, [first])
        (again,) = take(link, 1)
        assert (again.body, again.headers, again.key, again.content_type) == (
            b"{}",
            {"n": 1},
            "k",
            "application/json",
        )
        assert (again.message_id, again.metadata.copies, again.metadata.attempts) == (
            first.message_id,
            number,
            number,
        )
        first = again
    ack(link, [first])


def test_a_copy_keeps_body_and_kind(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("kinds"))
    sent = [
        Message(b"\0\xff", headers={"b": b"\0", "i": 3}),
        Message(None),
        Message("ü".encode(), content_type="text/plain"),
        Message(b"", content_type="text/plain"),
    ]
    rig.send(queue, *sent)
    link, plan = rig.receiver(queue), plan_of(rig, queue)
    got = take(link, 4)
    assert rig.forward(plan.release, *(copy_of(delivery, 1) for delivery in got)) is ALL_WELL
    ack(link, got)
    again = take(link, 4)
    assert bodies(again) == [message.body for message in sent]
    assert again[0].headers == {"b": b"\0", "i": 3}
    for before, after in zip(got, again, strict=True):
        assert ("content-length" in before.raw.headers) == ("content-length" in after.raw.headers)
        assert not {"AMQ_SCHEDULED_DELAY", "scheduledJobId"} & set(after.raw.headers)
    ack(link, again)


def test_retry_delay_is_a_scheduled_copy(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("retry"))
    rig.send(queue, b"later")
    link, plan = rig.receiver(queue), plan_of(rig, queue)
    (delivery,) = take(link, 1)
    place = plan.retry(1.0)
    assert place.delay_s is None and rig.connection.facts.scheduler is None
    began = time.monotonic()
    assert rig.forward(place, copy_of(delivery, 1, delay_s=1.0)) is ALL_WELL
    assert rig.connection.facts.scheduler is True
    ack(link, [delivery])
    (again,) = take(link, 1)
    assert 0.9 < time.monotonic() - began < 4
    ack(link, [again])


def test_delayed_send_and_order_behind_the_probe(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("delayed"))
    link, began = rig.receiver(queue), time.monotonic()
    sender = rig.sender(queue)
    waiters: list[Waiter[Any]] = [Waiter() for _ in range(3)]
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.8)
    for message, waiter in zip(
        [Message(b"late", delay_s=0.8), Message(b"one", deliver_at=soon), Message(b"now")],
        waiters,
        strict=True,
    ):
        assert sender.submit(rig.batch(message), waiter) == 1
    assert [waiter.wait() for waiter in waiters] == [ALL_WELL] * 3
    assert bodies(take(link, 1)) == [b"now"]
    assert sorted(bodies(take(link, 2)), key=str) == [b"late", b"one"]
    assert 0.6 < time.monotonic() - began < 4


def test_no_scheduler_is_unsupported(rig: Rig, unique: Unique) -> None:
    """The broker's answer is the one thing that is made up here: both have a scheduler that is on."""
    rig.connection._scheduler._tell(False, None)
    assert rig.connection.capabilities.send_delay is ABSENT
    assert rig.connection.capabilities.retry_delay is ABSENT
    result = rig.send(Queue(unique("off")), b"fine", Message(b"x", delay_s=1))
    assert result.failures is not None and list(result.failures) == [1]
    assert isinstance(result.failures[1].error, Unsupported)
    with pytest.raises(Unsupported):
        plan_of(rig, Queue("q")).retry(1.0)
    assert plan_of(rig, Queue("q")).retry(0.0)


def test_explicit_dead_letter(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("dead"))
    rig.send(queue, Message(b"bad", headers={"h": "1"}, ttl_s=0.7))
    link, plan = rig.receiver(queue), plan_of(rig, queue)
    (delivery,) = take(link, 1)
    assert (
        rig.forward(plan.dead_write, copy_of(delivery, 1, reason="rejected", description="why: not"))
        is ALL_WELL
    )
    ack(link, [delivery])
    time.sleep(1.0)  # beyond the original's time to live: the dead do not expire
    assert plan.dead_read[0] == plan.dead_write
    dead = rig.receiver(plan.dead_write, mode="dead")
    (found,) = take(dead, 1)
    assert found.body == b"bad" and found.headers == {"h": "1"}
    assert found.metadata.unimq["unimq-reason"] == "rejected"
    assert found.metadata.unimq["unimq-description"] == "why: not"
    ack(dead, [found])


def test_expired_message_is_found_in_classics_own_dead_letters(rig: Rig, unique: Unique) -> None:
    if rig.flavour != "classic":
        pytest.skip("Artemis has an expiry address of its own")
    queue, other = Queue(unique("expired")), Queue(unique("other"))
    rig.send(queue, Message(b"mine", ttl_s=0.1))
    rig.send(other, Message(b"theirs", ttl_s=0.1))
    time.sleep(0.3)  # the time to live itself
    for source in (queue, other):
        assert len(rig.receiver(source).receive(1, 0.5)) == 0
    places = plan_of(rig, queue).dead_read
    assert [str(place) for place in places] == [queue.name + ".dlq", "ActiveMQ.DLQ", "DLQ." + queue.name]
    dead = rig.receiver(places[1], mode="dead", prefetch=1000)
    (found,) = take(dead, 1)
    assert found.body == b"mine"
    assert len(dead.receive(1, 0.3)) == 0
    ack(dead, [found])


def test_crash_loop_ends_in_artemis_dead_letters(broker: str, unique: Unique) -> None:
    queue = Queue(unique("crash"))
    with Rig(broker) as rig:
        if rig.flavour != "artemis":
            pytest.skip("Classic redelivers for ever")
        rig.send(queue, b"killer")
        place = plan_of(rig, queue).dead_read[1]
    tries = 0
    for _ in range(12):
        rig = Rig(broker)
        try:
            if not rig.receiver(queue).receive(1, 0.5):
                break
            tries += 1
            rig.connection._consume.kill(None)
            rig.lost()
        finally:
            rig.connection.close(5)
    assert tries == 10
    with Rig(broker) as rig:
        dead = rig.receiver(place, mode="dead")
        (found,) = take(dead, 1)
        assert found.body == b"killer"
        ack(dead, [found])


def test_two_groups_each_get_all_and_a_retry_goes_to_one(rig: Rig, unique: Unique) -> None:
    topic = Topic(unique("topic.with.dots"))
    groups = [Subscription(topic, name) for name in ("a", "b.c")]
    rig.connection.declare([Declaration(group) for group in groups], verify_only=False)
    rig.send(topic, b"1", b"2")
    links = [rig.receiver(group) for group in groups]
    for group, link in zip(groups, links, strict=True):
        got = take(link, 2)
        assert bodies(got) == [b"1", b"2"]
        assert rig.forward(plan_of(rig, group).release, copy_of(got[0], 1)) is ALL_WELL
        ack(link, got)
    for link in links:
        got = take(link, 1)
        assert bodies(got) == [b"1"]
        ack(link, got)
        assert len(link.receive(1, 0.3)) == 0


def test_same_group_shares_and_keeps_while_away(rig: Rig, unique: Unique) -> None:
    group = Subscription(Topic(unique("shared")), "g")
    first, second = rig.receiver(group, prefetch=5), rig.receiver(group, prefetch=5)
    rig.send(group.topic, *(b"%d" % n for n in range(10)))
    got = take(first, 5) + take(second, 5)
    assert sorted(bodies(got)) == [b"%d" % n for n in range(10)]  # type: ignore[type-var]
    first.close(5), second.close(5)
    rig.send(group.topic, b"away")
    assert len(take(rig.receiver(group), 11)) == 11


def test_private_subscription_is_temporary(rig: Rig, unique: Unique) -> None:
    private = Subscription(Topic(unique("private")))
    first, second = rig.receiver(private), rig.receiver(private)
    rig.send(private.topic, b"all")
    for link in (first, second):
        got = take(link, 1)
        ack(link, got)
        link.close(5)
    rig.send(private.topic, b"nobody")
    assert len(rig.receiver(private).receive(1, 0.3)) == 0


def test_groups_of_one_key_go_to_one_receiver(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("keys"))
    links = [rig.receiver(queue, prefetch=20) for _ in range(2)]
    rig.send(queue, *(Message(b"%d" % n, key=f"k{n % 4}") for n in range(80)))
    seen: dict[str, list[tuple[int, int]]] = {}
    deadline, count = time.monotonic() + LIMIT_S, 0
    while count < 80 and time.monotonic() < deadline:
        for index, link in enumerate(links):
            if got := link.receive(20, 0.05):
                count += len(got)
                for delivery in got:
                    seen.setdefault(delivery.key, []).append((index, int(delivery.body)))
                ack(link, got)
    assert count == 80
    for entries in seen.values():
        assert len({index for index, _ in entries}) == 1
        assert [n for _, n in entries] == sorted(n for _, n in entries)


def test_artemis_drops_a_second_message_of_one_id(rig: Rig, unique: Unique) -> None:
    queue, name = Queue(unique("dedup")), unique("id")
    rig.send(queue, Message(b"1", message_id=name), Message(b"2", message_id=name))
    link = rig.receiver(queue)
    expected = 1 if rig.connection.capabilities.dedup else 2
    ack(link, take(link, expected))
    assert len(link.receive(1, 0.3)) == 0


def test_browse_takes_and_counts_nothing(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("browse"))
    rig.send(queue, *(b"x" * 5000 + b"%d" % n for n in range(5)))
    for _ in range(12):  # Artemis dead-letters after ten deliveries: looking is none
        looking = rig.receiver(queue, mode="browse", prefetch=5)
        assert [int(body[5000:]) for body in bodies(take(looking, 5)) if body] == [0, 1, 2, 3, 4]
        looking.close(5)
    got = take(rig.receiver(queue), 5)
    assert [int(body[5000:]) for body in bodies(got) if body] == [0, 1, 2, 3, 4]


def test_prefetch_of_large_messages_can_be_taken_before_any_is_settled(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("large"))
    rig.send(queue, *(bytes([n]) * 100_000 for n in range(60)))
    link = rig.receiver(queue, prefetch=50)
    got = take(link, 50)
    assert [delivery.body[0] for delivery in got] == list(range(50))
    assert len(link.receive(10, 0.3)) == 0
    ack(link, got)
    assert [delivery.body[0] for delivery in take(link, 10)] == list(range(50, 60))


def test_on_receive_never_comes_again(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("once"))
    rig.send(queue, *(b"%d" % n for n in range(10)))
    link = rig.receiver(queue, mode="on_receive", prefetch=10)
    assert bodies(take(link, 4)) == [b"%d" % n for n in range(4)]
    rig.connection._consume.kill(None)
    rig.lost()
    with Rig(rig.url) as other:
        assert bodies(take(other.receiver(queue), 6)) == [b"%d" % n for n in range(4, 10)]


def test_on_ready_is_called_once_when_an_empty_link_gets_something(rig: Rig, unique: Unique) -> None:
    queue, ready = Queue(unique("ready")), []
    event = threading.Event()
    link = rig.receiver(queue, on_ready=lambda: (ready.append(1), event.set()))
    assert len(link.receive(1, 0)) == 0
    rig.send(queue, b"1", b"2")
    assert event.wait(LIMIT_S)
    assert bodies(take(link, 2)) == [b"1", b"2"]
    assert ready == [1]


def test_wake_and_close_unblock_receive(rig: Rig, unique: Unique) -> None:
    link = rig.receiver(Queue(unique("blocked")))
    link.wake()
    began = time.monotonic()
    assert len(link.receive(1, 10)) == 0
    assert time.monotonic() - began < 0.1
    result: list[Any] = []

    def wait() -> None:
        try:
            result.append(link.receive(1, 30))
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    link.close(5)
    thread.join(LIMIT_S)
    assert not thread.is_alive() and "closed" in str(result[0])
    assert settle(link, [object()]).lost


def test_verbs_that_are_not_native_are_never_a_nack(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("verbs"))
    rig.send(queue, b"1")
    link = rig.receiver(queue)
    got = take(link, 1)
    assert settle(link, got, Release()).lost == got
    link.close(5)
    assert bodies(take(rig.receiver(queue), 1)) == [b"1"]


def test_completions_may_submit_again_to_any_depth(rig: Rig, unique: Unique) -> None:
    sender, left, over = rig.sender(Queue(unique("chain"))), [300], threading.Event()

    def done(result: Any) -> None:
        assert result is ALL_WELL
        left[0] -= 1
        if left[0]:
            assert sender.submit(rig.batch(Message(b"x")), done) == 1
        else:
            over.set()

    sender.submit(rig.batch(Message(b"x")), done)
    assert over.wait(LIMIT_S * 2)


def test_a_dead_link_completes_at_once_to_any_depth(rig: Rig, unique: Unique) -> None:
    sender, left, over = rig.sender(Queue(unique("chain"))), [5000], threading.Event()
    rig.connection._publish.kill(None)
    rig.lost()

    def done(result: Any) -> None:
        assert not result.failures[0].handed_over
        left[0] -= 1
        if left[0]:
            sender.submit(rig.batch(Message(b"x")), done)
        else:
            over.set()

    sender.submit(rig.batch(Message(b"x")), done)
    assert over.wait(LIMIT_S)


def test_a_wrong_password_is_refused_at_once(broker: str) -> None:
    began = time.monotonic()
    with pytest.raises(Exception) as caught:
        Rig(broker.replace(":admin@", ":s3cr3t-word@"))
    fault = ADAPTER.classify(caught.value, op=Op.CONNECT, handed_over=False)
    assert isinstance(fault, AuthenticationFailed) and not fault.retryable
    assert time.monotonic() - began < 5
    assert "s3cr3t" not in f"{fault} {fault!r} {caught.value!r}"


def test_declare_refuses_what_stomp_cannot_say(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("options"))
    report = rig.connection.declare([Declaration(queue)], verify_only=True)
    assert report.ok and report.facts["flavour"] == rig.flavour
    with pytest.raises(Unsupported, match="max_length"):
        rig.connection.declare([Declaration(queue, max_length=5)], verify_only=False)
    with pytest.raises(Unsupported, match="filters"):
        rig.receiver(Subscription(Topic("t"), "g", subjects=["a.*"]))


def test_nothing_is_left_after_close(broker: str, unique: Unique) -> None:
    def mine() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("unimq-activemq")}

    for _ in range(5):
        with Rig(broker) as rig:
            queue = Queue(unique("leak"))
            rig.send(queue, b"1")
            link = rig.receiver(queue)
            ack(link, take(link, 1))
            assert len(mine()) == 2
        assert not mine()
        rig.connection.close(1)


def test_json_text_is_text_to_a_foreign_reader(rig: Rig, unique: Unique) -> None:
    queue = Queue(unique("text"))
    rig.send(queue, Message(json.dumps({"ü": 1}).encode(), content_type="application/json"), Message(b"raw"))
    text, raw = take(rig.receiver(queue), 2)
    assert "content-length" in raw.raw.headers
    if rig.flavour == "classic":  # Artemis sends a length always
        assert "content-length" not in text.raw.headers


def test_refused_and_unknown_hosts_are_connection_failures() -> None:
    for url in ("stomp://127.0.0.1:1", "stomp://nowhere.invalid"):
        with pytest.raises(OSError) as caught:
            ADAPTER.connect(parse(url), ConnectOptions(connect_timeout_s=3), lambda event: None)
        assert isinstance(ADAPTER.classify(caught.value, op=Op.CONNECT, handed_over=False), ConnectionFailed)
