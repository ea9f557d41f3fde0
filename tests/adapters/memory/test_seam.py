"""The driver at the seam: what the core cannot show from above."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import unimq_memory
from unimq import Message, Queue, Subscription, Topic
from unimq.driver import (
    Ack,
    Batch,
    BatchResult,
    Blocked,
    Cancelled,
    ConnectOptions,
    Copy,
    Declaration,
    LockLostEvent,
    Lost,
    Place,
    ReceiverOptions,
    Release,
    Room,
    SenderOptions,
    SettleResult,
    Unblocked,
)
from unimq.errors import NotFound, Rejected, TopologyMismatch, Unroutable, Unsupported
from unimq.url import UrlError, parse
from unimq_memory.errors import LineLost
from unimq_memory.names import QueueRef
from unimq_memory.sender import HELD_BATCHES_MAX, MemorySender

Q = Queue("q")
WAIT_S = 5.0


def declare(line: Any, *addresses: Any, **options: Any) -> Any:
    return line.connection.declare([Declaration(each, **options) for each in addresses], verify_only=False)


def batch(*messages: Message, ids: list[str] | None = None, deadline: float | None = None) -> Batch:
    until = time.monotonic() + WAIT_S if deadline is None else deadline
    return Batch(messages, [message.body for message in messages], None, ids, until)


def send(link: MemorySender, *bodies: bytes, **fields: Any) -> BatchResult:
    results: list[BatchResult] = []
    messages = [Message(body, **fields) for body in bodies]
    assert link.submit(batch(*messages), results.append) == len(bodies)
    assert len(results) == 1, "done is called before submit returns"
    return results[0]


def fill(line: Any, where: Any, *bodies: bytes, **fields: Any) -> BatchResult:
    return send(line.connection.sender(where, SenderOptions()), *bodies, **fields)


def reader(line: Any, source: Any = Q, **options: Any) -> Any:
    return line.connection.receiver(source, ReceiverOptions(**options))


def settle(link: Any, deliveries: Any, outcome: Any) -> SettleResult:
    results: list[SettleResult] = []
    link.settle(deliveries, outcome, results.append)
    (result,) = results
    return result


def bodies(deliveries: Any) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


# ----------------------------------------------------------------------------------------------------- connecting
def test_what_cannot_be_connected(line: Any) -> None:
    adapter = unimq_memory.ADAPTER
    for url in ("memory://", "memory://me:secret@x"):
        with pytest.raises(UrlError) as caught:
            adapter.connect(parse(url), ConnectOptions(), print)
        assert "secret" not in str(caught.value)
    with pytest.raises(Unsupported, match="'blocking'"):
        adapter.connect(parse("memory://x"), ConnectOptions(native={"blocking": 1}), print)


def test_refused_connects_are_counted(broker: Any) -> None:
    broker.refuse(2)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            unimq_memory.ADAPTER.connect(parse(f"memory://{broker.name}"), ConnectOptions(), print)
    unimq_memory.ADAPTER.connect(parse(f"memory://{broker.name}"), ConnectOptions(), print)


def test_reset_forgets(line: Any, broker: Any) -> None:
    declare(line, Q)
    unimq_memory.reset(f"memory://{broker.name}")
    assert isinstance(line.events[-1], Lost) and line.events[-1].link is None
    with pytest.raises(LineLost):
        line.connection.sender(Q, SenderOptions())
    assert unimq_memory.broker(broker.name) is not broker


# -------------------------------------------------------------------------------------------------------- sending
def test_ten_thousand_sends_from_within_done(line: Any) -> None:
    declare(line, Q)
    link = line.connection.sender(Q, SenderOptions())
    count = 0

    def done(result: BatchResult) -> None:
        nonlocal count
        count += 1
        if count < 10_000:
            link.submit(batch(Message(b"%d" % count)), done)

    link.submit(batch(Message(b"0")), done)
    assert count == 10_000
    assert line.connection.stats(Q).depth == 10_000


def test_nobody_declared_it(line: Any) -> None:
    declare(line, Topic("t"))
    for target in (Queue("nope"), Topic("nope"), Place(QueueRef("nope"), "nope")):
        with pytest.raises(NotFound, match=r"mq\.declare"):
            line.connection.sender(target, SenderOptions())
    link = line.connection.sender(Topic("t"), SenderOptions(unroutable="error"))
    failed = send(link, b"x").failures[0]
    assert type(failed.error) is Unroutable and not failed.handed_over
    assert fill(line, Topic("t"), b"x").failures is None, "without the wish nobody is told"


def test_a_full_queue_rejects_and_a_duplicate_is_taken(line: Any) -> None:
    declare(line, Q, max_length=2, dedup_window_s=60)
    link = line.connection.sender(Q, SenderOptions())
    results: list[BatchResult] = []
    messages = [Message(b"%d" % number) for number in range(4)]
    link.submit(batch(*messages, ids=["a", "a", "b", "c"]), results.append)
    assert set(results[0].failures) == {3} and type(results[0].failures[3].error) is Rejected
    assert results[0].positions == [1, None, 2, None]


def test_deleted_and_declared_again(line: Any) -> None:
    declare(line, Q)
    link = line.connection.sender(Q, SenderOptions())
    line.connection.delete(Q)
    assert type(send(link, b"x").failures[0].error) is Unroutable
    declare(line, Q)
    assert send(link, b"x").failures is None


def test_cancel_by_position(line: Any) -> None:
    topic = Topic("t")
    declare(line, Q, Subscription(topic, "a"), Subscription(topic, "b"))
    for target in (Q, topic):
        (position,) = fill(line, target, b"later", delay_s=60).positions
        assert line.connection.cancel(target, position)
        assert not line.connection.cancel(target, position)
    assert line.connection.stats(Subscription(topic, "a")).delayed == 0


def test_past_its_deadline_nothing_is_begun(line: Any) -> None:
    declare(line, Q)
    results: list[BatchResult] = []
    link = line.connection.sender(Q, SenderOptions())
    link.submit(batch(Message(b"x"), deadline=time.monotonic() - 1), results.append)
    assert not results[0].failures[0].handed_over and line.connection.stats(Q).depth == 0


# ------------------------------------------------------------------------------------------------------ receiving
def test_prefetch_holds_by_count_and_bytes(line: Any) -> None:
    declare(line, Q)
    fill(line, Q, *[b"x" * 1000] * 50)
    link = reader(line, prefetch=5)
    first = link.receive(100, 0)
    assert len(first) == 5 and link.receive(100, 0) == []
    settle(link, first[:2], Ack())
    assert len(link.receive(100, 0)) == 2
    by_bytes = reader(line, prefetch=100, prefetch_bytes=6_000)
    taken = by_bytes.receive(100, 0)
    assert 3 <= len(taken) <= 4 and by_bytes.receive(100, 0) == []


def test_closing_hands_back_in_order_and_counted(line: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"1", b"2", b"3")
    link = reader(line)
    held = link.receive(10, 0)
    settle(link, held[1:2], Ack())
    link.close(1.0)
    again = reader(line).receive(10, 0)
    assert bodies(again) == [b"1", b"3"]
    assert [(d.delivery_count, d.redelivered) for d in again] == [(1, True)] * 2
    assert [d.tag for d in settle(link, held[:1], Ack()).lost] == [held[0].tag]
    with pytest.raises(LineLost):
        link.receive(1, 0)


def test_twenty_returns_are_the_end(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"poison")
    link = reader(line)
    for _ in range(20):
        settle(link, link.receive(1, 0), Release())
    assert link.receive(1, 0) == []
    (dead,) = reader(line, Place(QueueRef("q.dlq"), "q.dlq"), mode="dead").receive(1, 0)
    death = dead.native_death()
    assert death.reason == "max-delivery" and death.attempts == 20 and line.connection.stats(Q).dead == 0


def test_competing_links_share_what_is_ready(line: Any) -> None:
    declare(line, Q)
    first, second = reader(line), reader(line)
    assert first.receive(100, 0) == second.receive(100, 0) == []
    fill(line, Q, *[b"x"] * 10)
    assert len(first.receive(100, 0)) == 5
    assert len(second.receive(100, 0)) == 5
    fill(line, Q, *[b"x"] * 10)
    assert len(first.receive(100, 0)) == 10, "the other one is not waiting"


def test_on_ready_once_from_empty_to_something(line: Any) -> None:
    declare(line, Q)
    calls: list[int] = []
    link = reader(line, on_ready=lambda: calls.append(1))
    assert link.receive(10, 0) == []
    fill(line, Q, b"1")
    fill(line, Q, b"2", b"3")
    assert calls == [1]
    assert len(link.receive(10, 0)) == 3
    fill(line, Q, b"4")
    assert calls == [1], "nobody came back empty"
    assert len(link.receive(10, 0)) == 1 and link.receive(10, 0) == []
    link.close(1.0)
    assert len(calls) == 2, "it died"


def test_room_in_the_prefetch_is_told(line: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"1", b"2")
    calls: list[int] = []
    link = reader(line, prefetch=1, on_ready=lambda: calls.append(1))
    held = link.receive(1, 0)
    assert link.receive(1, 0) == [] and not calls
    settle(link, held, Ack())
    assert calls and bodies(link.receive(1, 0)) == [b"2"]


def test_receive_waits_and_wake_is_sticky(line: Any) -> None:
    declare(line, Q)
    link = reader(line)
    link.wake()
    began = time.monotonic()
    assert link.receive(1, WAIT_S) == [] and time.monotonic() - began < 1.0
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(link.receive(1, WAIT_S)), daemon=True)
    waiting.start()
    fill(line, Q, b"x")
    waiting.join(WAIT_S)
    assert bodies(got) == [b"x"]


def test_browsing_takes_nothing(line: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"1", b"2", b"3")
    link = reader(line, mode="browse", prefetch=2)
    assert bodies(link.receive(10, 0)) == [b"1", b"2"] and bodies(link.receive(10, 0)) == [b"3"]
    link.close(1.0)
    assert [d.delivery_count for d in reader(line).receive(10, 0)] == [0, 0, 0]


def test_only_the_first_ordered_link_is_served(line: Any) -> None:
    declare(line, Q)
    ordered = Queue("q", ordered=True)
    first, second = reader(line, ordered), reader(line, ordered)
    fill(line, Q, b"1", b"2", b"3", key="k")
    assert second.receive(10, 0) == []
    assert bodies(first.receive(1, 0)) == [b"1"]
    first.close(1.0)
    assert bodies(second.receive(10, 0)) == [b"1", b"2", b"3"]


def test_an_ordered_release_takes_its_key_along(line: Any) -> None:
    declare(line, Q)
    link = reader(line, Queue("q", ordered=True))
    sender = line.connection.sender(Q, SenderOptions())
    for body, key in ((b"a1", "a"), (b"b1", "b"), (b"a2", "a"), (b"a3", "a")):
        send(sender, body, key=key)
    held = link.receive(10, 0)
    settle(link, held[:1], Release())
    (event,) = [event for event in line.events if isinstance(event, LockLostEvent)]
    assert bodies(event.deliveries) == [b"a2", b"a3"]
    again = link.receive(10, 0)
    assert bodies(again) == [b"a1", b"a2", b"a3"] and [d.delivery_count for d in again] == [1, 0, 0]


def test_a_copy_goes_back_with_any_delay(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"x")
    link = reader(line)
    (held,) = link.receive(1, 0)
    results: list[BatchResult] = []
    place = unimq_memory.ADAPTER.plan(Q, None, line.connection.facts).retry(7.5)
    copier = line.connection.sender(place, SenderOptions())
    link.close(1.0)  # from memory: its link is gone
    copier.forward([Copy(held, "i#1", {"unimq-copies": 1}, delay_s=7.5)], results.append)
    assert results[0].failures is None and line.connection.stats(Q).delayed == 1
    broker.clock.advance(7.6)
    assert len(reader(line).receive(10, 0)) == 2


# ------------------------------------------------------------------------------------------------------- topology
def test_declare_creates_compares_and_reports(line: Any) -> None:
    declaration = Declaration(Q, max_length=10)
    missing = line.connection.declare([declaration], verify_only=True)
    assert missing.missing == ("q",) and not line.connection.broker.places()
    assert set(declare(line, Q, max_length=10).created) == {"q", "q.dlq"}
    assert declare(line, Q).existing == ("q",), "what was not asked for is not compared"
    with pytest.raises(TopologyMismatch):
        declare(line, Q, max_length=20)
    differs = line.connection.declare([Declaration(Q, max_length=20)], verify_only=True)
    assert differs.differences == {"q": {"max_length": (10, 20)}}


@pytest.mark.parametrize(
    "options", [{"lock_s": 1}, {"partitions": 2}, {"native": {"x": 1}}, {"max_priority": 10}]
)
def test_what_it_lacks_is_unsupported(line: Any, options: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        declare(line, Q, **options)
    assert not line.connection.broker.places()


def test_one_filter_at_a_time(line: Any) -> None:
    topic = Topic("t")
    one, other = Subscription(topic, "s", subjects=["a"]), Subscription(topic, "s", subjects=["b"])
    declare(line, one)
    declare(line, one)
    for act in (lambda: declare(line, other), lambda: reader(line, other)):
        with pytest.raises(TopologyMismatch):
            act()
    declare(line, other, replace_filters=True)
    sender = line.connection.sender(topic, SenderOptions())
    send(sender, b"a", subject="a")
    send(sender, b"b", subject="b")
    assert bodies(reader(line, other).receive(10, 0)) == [b"b"]


def test_a_private_subscription_leaves_nothing(line: Any, broker: Any) -> None:
    declare(line, Topic("t"))
    before = broker.places()
    link = reader(line, Subscription(Topic("t")))
    fill(line, Topic("t"), b"x")
    assert bodies(link.receive(1, 0)) == [b"x"]
    link.close(1.0)
    assert broker.places() == before


def test_deleting_ends_the_consumer(line: Any, broker: Any) -> None:
    declare(line, Q)
    link = reader(line)
    line.connection.delete(Q)
    assert isinstance(line.events[-1], Cancelled) and line.events[-1].link is link
    assert not broker.places()
    with pytest.raises(NotFound):
        link.receive(1, 0)


# ---------------------------------------------------------------------------------------------------- time, faults
def timer_threads(broker: Any) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"unimq-memory-{broker.name}"]


def test_the_timer_is_there_while_something_is_due(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"now")
    assert not timer_threads(broker)
    fill(line, Q, b"soon", delay_s=0.05)
    (thread,) = timer_threads(broker)
    link = reader(line)
    assert bodies(link.receive(1, 0)) == [b"now"] and bodies(link.receive(1, WAIT_S)) == [b"soon"]
    thread.join(WAIT_S)
    assert not timer_threads(broker)
    fill(line, Q, b"again", delay_s=3600)
    broker.clock.advance(3601)
    assert bodies(link.receive(1, 0)) == [b"again"]


def test_expired_goes_to_the_dead_letters(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"x", ttl_s=5)
    broker.clock.advance(6)
    assert line.connection.stats(Q).dead == 1
    (dead,) = reader(line, Place(QueueRef("q.dlq"), "q.dlq"), mode="dead").receive(1, 0)
    assert dead.native_death().reason == "expired" and dead.expires_at is None


def test_a_dropped_line(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"held", b"waiting")
    link, sender = reader(line), line.connection.sender(Q, SenderOptions())
    (held,) = link.receive(1, 0)
    broker.lose_confirms(1)
    results: list[BatchResult] = []
    sender.submit(batch(Message(b"unknown")), results.append)
    assert results == []
    broker.drop_connections()
    assert results[0].failures[0].handed_over
    assert [type(event) for event in line.events] == [Lost] and line.events[0].link is None
    assert not send(sender, b"late").failures[0].handed_over
    assert settle(link, [held], Ack()).lost == [held]
    from .conftest import Line

    again = Line(broker.name)
    assert bodies(reader(again).receive(10, 0)) == [b"held", b"waiting", b"unknown"]


def test_a_batch_cut_in_its_middle(line: Any, broker: Any) -> None:
    declare(line, Q)
    sender = line.connection.sender(Q, SenderOptions())
    broker.drop_in_next_batch()
    result = send(sender, b"1", b"2", b"3", b"4")
    assert set(result.failures) == {0, 1, 2, 3} and all(f.handed_over for f in result.failures.values())
    from .conftest import Line

    assert Line(broker.name).connection.stats(Q).depth == 2


def test_a_dead_link_under_a_living_line(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"x")
    link, sender = reader(line), line.connection.sender(Q, SenderOptions())
    link.receive(1, 0)
    assert broker.kill_links("receiver") == 1
    assert [(type(e), e.link) for e in line.events] == [(Lost, link)]
    assert send(sender, b"y").failures is None
    assert bodies(reader(line).receive(10, 0)) == [b"x", b"y"]


def test_blocked_sends_wait_in_order(line: Any, broker: Any) -> None:
    declare(line, Q)
    sender = line.connection.sender(Q, SenderOptions())
    broker.block("disk")
    results: list[BatchResult] = []
    for number in range(HELD_BATCHES_MAX):
        assert sender.submit(batch(Message(b"%02d" % number)), results.append) == 1
    assert sender.submit(batch(Message(b"more")), results.append) == 0 and results == []
    broker.unblock()
    assert len(results) == HELD_BATCHES_MAX and all(result.failures is None for result in results)
    assert [type(event) for event in line.events] == [Blocked, Unblocked, Room]
    assert bodies(reader(line).receive(100, 0)) == [b"%02d" % number for number in range(HELD_BATCHES_MAX)]


def test_a_silent_broker(line: Any, broker: Any) -> None:
    declare(line, Q)
    fill(line, Q, b"x")
    link, sender = reader(line), line.connection.sender(Q, SenderOptions())
    held = link.receive(1, 0)
    broker.pause()
    sent: list[BatchResult] = []
    settled: list[SettleResult] = []
    sender.submit(batch(Message(b"y")), sent.append)
    link.settle(held, Ack(), settled.append)
    link.flush(settled.append)
    assert sent == settled == [] and link.receive(1, 0.01) == []
    with pytest.raises(TimeoutError):
        line.connection.stats(Q)
    broker.resume()
    assert len(sent) == 1 and len(settled) == 2 and bodies(link.receive(1, 0)) == [b"y"]
