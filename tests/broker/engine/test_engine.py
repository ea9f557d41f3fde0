"""Names, bounds, dead letters, time and notice over all queues."""

from __future__ import annotations

import pytest

from unimq.broker.engine import EngineLimit, Entry, Mismatch, QueueCore, QueueOptions, Refusal, Stored

from .kit import bodies, declared, engine, message, put


def test_declare_is_idempotent_and_says_where_it_differs() -> None:
    e, _ = engine()
    q = e.declare_queue("q", QueueOptions(ttl_s=5))
    assert e.declare_queue("q", QueueOptions(ttl_s=5)) is q
    assert e.declare_queue("q", QueueOptions(ttl_s=6, max_length=1)) == Mismatch(
        {"ttl_s": (5, 6), "max_length": (None, 1)}
    )
    with pytest.raises(EngineLimit):
        e.declare_queue("")


def test_unroutable_is_visible() -> None:
    e, _ = engine()
    assert e.publish("nowhere", message()).routed == 0
    assert e.publish_topic("nowhere", message()).routed == 0


def test_delete_unbinds_and_frees() -> None:
    e, _ = engine()
    topic = e.declare_topic("t")
    e.subscribe(topic, "s", declared(e, "q", ttl_s=5))
    e.publish_topic("t", message())
    assert e.delete_queue("q") == 1
    assert e.delete_queue("q") is None
    assert e.publish_topic("t", message()).routed == 0
    assert e.budget.held_bytes == 0
    assert e.due() is None
    assert e.delete_topic("t")
    assert not e.delete_topic("t")


def test_the_whole_engine_is_bounded_even_for_empty_messages() -> None:
    e, _ = engine(max_bytes=100_000)
    q = declared(e, "q")
    while not (last := e.publish("q", message(""))).refused:
        assert e.budget.held_bytes <= 100_000
    assert last.refused == ((q, Refusal.BROKER_FULL),)
    q.ack(q.lease("a"))
    assert not e.publish("q", message("")).refused


def test_remembered_ids_are_bounded_too() -> None:
    e, clock = engine(max_bytes=100_000)
    q = declared(e, "q", dedup_window_s=60)
    sent = 0
    while isinstance(q.put(message("", message_id=str(sent))), Entry):
        q.ack(q.lease("a"))
        sent += 1
    assert 0 < sent < 1_000
    clock.advance(60)
    e.tick()
    assert e.budget.held_bytes == 0


def test_a_fan_out_that_does_not_fit_goes_nowhere_unless_time_makes_room() -> None:
    e, clock = engine(max_bytes=message().size_bytes * 3)
    topic = e.declare_topic("t")
    queues = [declared(e, f"q{n}", ttl_s=5) for n in range(2)]
    for q in queues:
        e.subscribe(topic, q.name, q)
    assert len(e.publish_topic("t", message()).entries) == 2
    assert len(e.publish_topic("t", message()).refused) == 2
    assert [q.ready for q in queues] == [1, 1]
    clock.advance(5)
    assert len(e.publish_topic("t", message()).entries) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ttl_s": 5}, "expired"),
        ({"max_length": 1}, "overflow"),
        ({"max_delivery_count": 1}, "max-delivery"),
        ({}, "why"),
    ],
)
def test_every_way_to_die_ends_in_the_place_with_its_reason(options: dict[str, int], reason: str) -> None:
    e, clock = engine()
    dead = declared(e, "q.dlq", ttl_s=None)
    q = declared(e, "q", dead_letter="q.dlq", **options)
    put(q, "x", headers={"k": "v"}, message_id="id", ttl_s=50)
    if reason == "expired":
        clock.advance(5)
        e.tick()
    elif reason == "overflow":
        put(q, "y")
    elif reason == "max-delivery":
        q.release(q.lease("a"))
    else:
        q.dead_letter(q.lease("a"), "why", "because")
    clock.advance(100)  # a dead letter does not expire
    (entry,) = dead.lease("b", 5)
    (death,) = entry.stored.deaths
    assert (death.queue, death.reason, death.count) == ("q", reason, 1)
    assert death.description == ("because" if reason == "why" else "")
    assert (entry.stored.headers, entry.stored.message_id) == ({"k": "v"}, "id")
    assert q.removed["dead-lettered"] == 1


def test_dying_again_counts_up_and_moves_to_the_front() -> None:
    e, _ = engine()
    declared(e, "b", dead_letter="a")
    declared(e, "a", dead_letter="b")
    q, other = e.queue("a"), e.queue("b")
    assert q is not None and other is not None
    put(q, 0)
    for _ in range(2):
        q.dead_letter(q.lease("c"), "why")
        other.dead_letter(other.lease("c"), "why")
    (entry,) = q.lease("c")
    assert [(d.queue, d.count) for d in entry.stored.deaths] == [("b", 2), ("a", 2)]


def test_a_place_that_is_missing_or_full_keeps_the_dead_until_it_takes_them() -> None:
    e, clock = engine()
    q = declared(e, "q", dead_letter="dlq")
    put(q, 0, 1)
    q.dead_letter(q.lease("a", 2), "why")
    assert q.depth().dead == 2
    dead = declared(e, "dlq", max_length=1, overflow="reject")
    clock.advance(1)
    e.tick()
    assert (q.depth().dead, dead.depth().ready) == (1, 1)
    dead.ack(dead.lease("b"))
    clock.advance(1)
    assert e.due() is not None
    e.tick()
    assert bodies(dead.lease("b", 5)) == "1"
    assert q.depth().total == 0


def test_the_dead_move_even_when_the_engine_is_full() -> None:
    e, _ = engine(max_bytes=message().size_bytes)
    dead, q = declared(e, "dlq"), declared(e, "q", dead_letter="dlq")
    put(q, 0)
    assert q.put(message()) is Refusal.BROKER_FULL
    q.dead_letter(q.lease("a"), "why")
    assert dead.depth().ready == 1


def test_at_most_once_dead_lettering_drops_and_counts() -> None:
    e, _ = engine()
    q = declared(e, "q", dead_letter="nowhere", dead_letter_refused="drop")
    put(q, 0)
    q.dead_letter(q.lease("a"), "why")
    assert q.removed["dead-letter-refused"] == 1
    assert e.budget.held_bytes == 0


def test_a_cycle_without_a_rejection_ends_and_one_with_goes_on() -> None:
    e, clock = engine()
    one, two = declared(e, "one", ttl_s=1, dead_letter="two"), declared(e, "two", ttl_s=1, dead_letter="one")
    put(one, 0)
    for _ in range(4):
        clock.advance(1)
        e.tick()
    assert one.removed["cycle"] + two.removed["cycle"] == 1
    put(one, 1)
    for _ in range(4):
        one.dead_letter(one.lease("a"), "rejected")
        clock.advance(1)
        e.tick()
    assert one.depth().ready == 1


def test_overflowing_queues_that_feed_each_other_come_to_an_end() -> None:
    e, _ = engine()
    names = [f"q{n}" for n in range(2_000)]
    for name, target in zip(names, names[1:] + names[:1], strict=True):
        declared(e, name, max_length=0, dead_letter=target)
    e.publish("q0", message())  # the way round is longer than a message remembers
    assert sum(q.removed["cycle"] for q in e.queues) == 1
    assert e.budget.held_bytes == 0


def test_duplicate_detection_never_eats_a_dead_letter() -> None:
    e, _ = engine()
    dead = declared(e, "dlq", dedup_window_s=60)
    q = declared(e, "q", dead_letter="dlq")
    for _ in range(2):
        put(q, 0, message_id="same")
        q.dead_letter(q.lease("a"), "why")
    assert dead.depth().ready == 2


def test_a_callable_place_is_asked() -> None:
    e, clock = engine()
    asked: list[tuple[str, Stored]] = []

    def place(queue: QueueCore, stored: Stored) -> bool:
        asked.append((queue.name, stored))
        return len(asked) > 1

    q = declared(e, "q", dead_letter=place)
    put(q, 0)
    q.dead_letter(q.lease("a"), "why")
    assert q.depth().dead == 1
    clock.advance(1)
    e.tick()
    assert q.depth().dead == 0
    assert [name for name, _ in asked] == ["q", "q"]


def test_listeners_hear_of_everything_that_becomes_ready() -> None:
    e, clock = engine()
    q = declared(e, "q", lock_s=30)
    heard: list[int] = []
    q.listeners.append(lambda queue: heard.append(queue.ready))
    put(q, 0)
    assert heard == [1]
    q.put(message(1), clock.now() + 5)
    assert heard == [1]
    clock.advance(5)
    e.tick()
    assert heard == [1, 2]
    held = q.lease("a", 2)
    q.release(held[:1])
    assert heard == [1, 2, 1]
    clock.advance(30)
    e.tick()
    assert heard == [1, 2, 1, 2]
    q.drop_owner("a")
    q.ack(q.lease("a", 2))
    assert heard == [1, 2, 1, 2]


def test_a_listener_may_call_the_engine() -> None:
    e, _ = engine()
    first, second = declared(e, "first"), declared(e, "second")

    def forward(queue: QueueCore) -> None:
        for entry in queue.lease("forwarder", 10):
            e.publish("second", entry.stored)
            queue.ack([entry])

    first.listeners.append(forward)
    put(first, 0, 1)
    assert bodies(second.lease("a", 5)) == "0 1"


def test_a_listener_that_raises_does_not_silence_the_engine() -> None:
    e, _ = engine()
    q, dead = declared(e, "q", dead_letter="dlq"), declared(e, "dlq")

    def broken(queue: QueueCore) -> None:
        raise RuntimeError("boom")

    q.listeners.append(broken)
    with pytest.raises(RuntimeError):
        q.put(message(0))
    q.listeners.clear()
    q.dead_letter(q.lease("a"), "why")
    assert dead.depth().ready == 1


def test_time_is_kept_for_thousands_of_queues_without_asking_each() -> None:
    e, clock = engine()
    now = clock.now()
    queues = [declared(e, f"q{n}") for n in range(2_000)]
    for n, q in enumerate(queues):
        q.put(message(), now + 1 + n)
    assert e.due() == now + 1
    clock.advance(10)
    e.tick()
    assert sum(q.ready for q in queues) == 10
    assert e.due() == now + 11
    earlier = queues[-1].put(message(), now + 10.5)
    assert isinstance(earlier, Entry)
    assert e.due() == now + 10.5
    queues[-1].cancel_scheduled(earlier.seq)
    assert e.due() == now + 11
    assert len(e._due) < 4_100


def test_one_seed_one_story() -> None:
    assert engine()[0].random.random() == engine()[0].random.random()
