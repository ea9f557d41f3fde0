"""One queue: order, leases, counts, limits."""

from __future__ import annotations

import pytest

from unimq.broker.engine import Budget, Entry, ManualClock, QueueCore, QueueOptions, Refusal
from unimq.broker.engine.message import DEFERRED, DELAYED, LEASED, READY

from .kit import bodies, message, put, queue


def test_fifo_lease_and_ack() -> None:
    q, _ = queue()
    put(q, 0, 1, 2)
    first = q.lease("a", 2)
    assert bodies(first) == "0 1"
    assert (q.depth().ready, q.depth().leased) == (1, 2)
    assert not q.ack(first)
    assert bodies(q.lease("b", 10)) == "2"
    assert q.removed["acked"] == 2


def test_lease_of_an_empty_queue_leaves_nothing_behind() -> None:
    q, _ = queue()
    assert q.lease("a", 5) == []
    put(q, 0)
    assert q.lease("a", 5, wants=lambda _: False) == []
    assert q.leased_by("a") == []


def test_second_verb_is_lost_and_the_others_are_settled() -> None:
    q, _ = queue()
    put(q, 0, 1)
    one, two = q.lease("a", 2)
    q.ack([one])
    assert q.ack([one, two]) == [one]
    assert q.release([one]) == [one]
    assert q.dead_letter([one], "why") == [one]
    assert q.defer([one]) == [one]
    assert q.renew([one]) == [one]
    assert q.depth().total == 0


def test_highest_priority_first_and_fifo_within_capped() -> None:
    q, _ = queue(max_priority=5)
    for number, priority in enumerate([0, 3, 9, 5, 3, -1]):
        put(q, number, priority=priority)
    assert bodies(q.lease("a", 10)) == "2 3 1 4 0 5"


def test_without_max_priority_priorities_are_ignored() -> None:
    q, _ = queue()
    put(q, 0, priority=1)
    put(q, 1, priority=9)
    assert bodies(q.lease("a", 2)) == "0 1"


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("original", "0 2 4 5"),  # a classic queue, nack of 2 then 0
        ("back", "4 5 2 0"),  # a quorum queue without a delivery limit
        ("head", "2 0 4 5"),  # and with one
    ],
)
def test_where_the_returned_stand(position: str, expected: str) -> None:
    q, _ = queue(requeue_position=position)
    put(q, 0, 1, 2, 3, 4, 5)
    held = q.lease("a", 4)
    q.ack([held[1], held[3]])
    q.release([held[2]])
    q.release([held[0]])
    assert bodies(q.lease("a", 10)) == expected


def test_returned_twice_at_the_head_keeps_its_place() -> None:
    q, _ = queue(requeue_position="head")
    put(q, 0, 1)
    for _ in range(3):
        q.release(q.lease("a", 1))
    assert bodies(q.lease("a", 2)) == "0 1"


def test_returned_are_redelivered_with_a_count_and_a_new_handle() -> None:
    q, _ = queue()
    put(q, 0)
    (first,) = q.lease("a")
    assert (first.redelivered, first.delivery_count) == (False, 0)
    q.release([first])
    (second,) = q.lease("a")
    assert second is not first
    assert (second.seq, second.redelivered, second.delivery_count) == (first.seq, True, 1)
    assert q.ack([first]) == [first]
    q.release([second], count=False)
    assert q.lease("a")[0].delivery_count == 1


def test_counting_on_delivery() -> None:
    q, _ = queue(count_on="delivery")
    put(q, 0)
    (first,) = q.lease("a")
    assert first.delivery_count == 1
    q.release([first], count=False)
    (again,) = q.lease("a")
    assert again.delivery_count == 1


@pytest.mark.parametrize("count_on", ["delivery", "release"])
def test_max_delivery_count_is_the_number_of_deliveries(count_on: str) -> None:
    q, _ = queue(max_delivery_count=3, count_on=count_on)
    put(q, 0)
    deliveries = 0
    while held := q.lease("a"):
        deliveries += 1
        q.release(held)
    assert deliveries == 3
    assert q.removed["max-delivery"] == 1


def test_a_vanished_owner_gives_back_in_order() -> None:
    q, _ = queue()
    put(q, 0, 1, 2, 3)
    held = q.lease("a", 3)
    q.lease("b", 1)
    q.ack([held[1]])
    assert q.drop_owner("a") == 2
    assert q.drop_owner("a") == 0
    back = q.lease("c", 5)
    assert bodies(back) == "0 2"
    assert all(entry.redelivered for entry in back)


def test_expired_lock_comes_back_and_the_old_handle_is_void() -> None:
    q, clock = queue(lock_s=30)
    put(q, 0)
    (old,) = q.lease("a")
    clock.advance(20)
    assert not q.renew([old])
    clock.advance(29)
    assert q.depth().leased == 1
    assert q.due() == old.lease_deadline
    clock.advance(1)
    assert q.ack([old]) == [old]  # nobody ticked: the verb itself sees the time
    (new,) = q.lease("a")
    assert (new.delivery_count, new.redelivered) == (1, True)
    assert q.ack([old]) == [old]
    assert not q.ack([new])


def test_delayed_is_not_early_and_short_is_not_behind_long() -> None:
    q, clock = queue()
    now = clock.now()
    for number, delay in [(0, 10), (1, 1), (2, 1)]:
        q.put(message(number), now + delay)
    assert q.lease("a") == []
    assert q.due() == now + 1
    clock.advance(0.999)
    assert q.lease("a") == []
    clock.advance(0.001)
    assert bodies(q.lease("a", 3)) == "1 2"
    assert (q.due(), q.depth().delayed) == (now + 10, 1)


def test_cancel_scheduled() -> None:
    q, clock = queue()
    entry = q.put(message(), clock.now() + 5)
    assert isinstance(entry, Entry)
    assert q.cancel_scheduled(entry.seq) is entry
    assert q.cancel_scheduled(entry.seq) is None
    assert q.due() is None
    other = q.put(message(), clock.now() + 5)
    assert isinstance(other, Entry)
    clock.advance(5)
    assert q.cancel_scheduled(other.seq) is None
    assert q.depth().ready == 1


@pytest.mark.parametrize(
    ("queue_ttl_s", "fields", "expected_s"),
    [(10, {}, 10), (None, {"ttl_s": 3}, 3), (10, {"ttl_s": 3}, 3), (2, {"ttl_s": 3}, 2), (None, {}, None)],
)
def test_the_shorter_ttl_holds(
    queue_ttl_s: float | None, fields: dict[str, float], expected_s: float | None
) -> None:
    q, clock = queue(ttl_s=queue_ttl_s)
    put(q, 0, **fields)
    due = q.due()
    assert (None if due is None else due - clock.now()) == expected_s


def test_ttl_of_a_delayed_message_runs_from_when_it_is_ready() -> None:
    q, clock = queue()
    q.put(message(ttl_s=5), clock.now() + 10)
    clock.advance(14)
    assert q.depth().ready == 1
    clock.advance(1)
    assert q.depth().total == 0


def test_leased_does_not_expire_until_it_comes_back() -> None:
    q, clock = queue(ttl_s=5)
    put(q, 0, 1)
    one, two = q.lease("a", 2)
    clock.advance(6)
    assert not q.ack([one])
    assert not q.release([two])
    assert q.depth().total == 0
    assert (q.removed["acked"], q.removed["expired"]) == (1, 1)


def test_expiry_at_the_head_only() -> None:
    q, clock = queue(expire_at="head")
    put(q, 0)
    put(q, 1, ttl_s=1)
    put(q, 2, ttl_s=9)
    clock.advance(2)
    assert q.depth().ready == 3  # behind a live one it stays counted
    (head,) = q.lease("a")
    assert q.depth().ready == 1
    clock.advance(7)
    assert q.depth().ready == 0
    q.ack([head])
    put(q, 3, ttl_s=1)
    put(q, 4, ttl_s=1)
    put(q, 5)
    clock.advance(1)
    assert bodies(q.lease("a", 5)) == "5"


def test_a_head_that_overflow_uncovers_expires() -> None:
    q, clock = queue(expire_at="head", max_length=2)
    put(q, 0)
    put(q, 1, ttl_s=1)
    clock.advance(2)
    put(q, 2)  # drops 0; 1 has outlived its time
    assert q.depth().ready == 1
    assert bodies(q.lease("a", 5)) == "2"


def test_expiry_in_the_middle_leaves_the_order() -> None:
    q, clock = queue()
    for number in range(200):
        put(q, number, ttl_s=1 if number % 2 else None)
    clock.advance(1)
    assert q.depth().ready == 100
    assert bodies(q.lease("a", 3)) == "0 2 4"


def test_overflow_drops_the_head() -> None:
    q, _ = queue(max_length=2)
    put(q, 0, 1, 2)
    assert bodies(q.lease("a", 5)) == "1 2"
    assert q.removed["overflow"] == 1


def test_overflow_by_bytes_drops_even_the_newcomer_when_it_alone_is_too_big() -> None:
    q, _ = queue(max_bytes=10)
    put(q, 0)
    assert q.depth().total == 0


@pytest.mark.parametrize("overflow", ["reject", "dead-letter"])
def test_overflow_refuses_the_newcomer(overflow: str) -> None:
    q, _ = queue(max_length=1, overflow=overflow)
    put(q, 0)
    assert q.put(message(1)) is Refusal.QUEUE_FULL
    q.lease("a")
    put(q, 2)  # what is leased is not ready
    assert q.removed["overflow"] == (overflow == "dead-letter")


def test_release_into_a_full_queue_loses_nothing() -> None:
    q, _ = queue(max_length=1)
    put(q, 0)
    held = q.lease("a")
    put(q, 1)
    q.release(held)
    assert bodies(q.lease("a", 5)) == "0 1"


def test_duplicates_within_the_window() -> None:
    q, clock = queue(dedup_window_s=60)
    put(q, 0, message_id="x")
    q.ack(q.lease("a"))
    assert q.put(message(0, message_id="x")) is Refusal.DUPLICATE
    put(q, 1)
    put(q, 2)  # without an id nothing is a duplicate
    clock.advance(60)
    put(q, 3, message_id="x")
    assert q.depth().ready == 3


def test_a_refused_message_is_not_remembered_as_seen() -> None:
    q, _ = queue(dedup_window_s=60, max_length=1, overflow="reject")
    put(q, 0, message_id="x")
    assert q.put(message(1, message_id="y")) is Refusal.QUEUE_FULL
    q.ack(q.lease("a"))
    put(q, 1, message_id="y")


def test_defer_and_fetch_by_number() -> None:
    q, _ = queue()
    put(q, 0, 1)
    (held,) = q.lease("a")
    q.defer([held])
    assert bodies(q.lease("a", 5)) == "1"
    (fetched,) = q.receive_deferred("b", [held.seq, 999])
    assert q.receive_deferred("b", [held.seq]) == []
    q.release([fetched])
    assert q.depth().deferred == 1  # set aside once, it stays aside
    (fetched,) = q.receive_deferred("b", [held.seq])
    assert not q.ack([fetched])
    assert q.depth().deferred == 0


def test_deferred_expires() -> None:
    q, clock = queue(ttl_s=5)
    put(q, 0)
    q.defer(q.lease("a"))
    clock.advance(5)
    assert q.depth().total == 0
    assert q.removed["expired"] == 1


def test_selection_takes_from_the_middle_in_order() -> None:
    q, _ = queue()
    put(q, *range(300))
    odd = q.lease("a", 300, wants=lambda e: int(e.stored.body or b"") % 2 == 1)
    assert len(odd) == 150
    q.release(odd[:2])
    assert bodies(q.lease("b", 5)) == "0 1 2 3 4"


def test_browse_by_state_and_number() -> None:
    q, clock = queue()
    put(q, 0, 1, 2, 3)
    late = q.put(message(4), clock.now() + 5)
    held = q.lease("a", 2)
    q.defer(held[:1])
    assert bodies(q.browse(10)) == "2 3"
    assert bodies(q.browse(1, from_seq=4)) == "3"
    assert bodies(q.browse(10, states=(READY, LEASED, DEFERRED, DELAYED))) == "0 1 2 3 4"
    assert isinstance(late, Entry)
    assert bodies(q.browse(10, from_seq=late.seq, states=(DELAYED,))) == "4"
    assert q.depth().ready == 2


def test_purge_leaves_what_is_leased() -> None:
    q, clock = queue()
    put(q, 0, 1, 2)
    q.put(message(3), clock.now() + 5)
    held = q.lease("a")
    assert q.purge() == 2
    assert q.purge(delayed=True) == 1
    assert not q.release(held)
    assert bodies(q.lease("a", 5)) == "0"


def test_close_frees_everything_and_voids_handles() -> None:
    clock, budget = ManualClock(), Budget()
    q = QueueCore("q", QueueOptions(dedup_window_s=9), clock=clock, budget=budget)
    put(q, 0, message_id="a")
    put(q, 1, 2)
    q.put(message(3), clock.now() + 5)
    held = q.lease("a", 2)
    q.defer(held[:1])
    assert q.close() == 4
    assert budget.held_bytes == 0
    assert q.ack(held) == held
    assert q.put(message()) is Refusal.CLOSED
    assert q.due() is None


def test_dead_records_do_not_pile_up() -> None:
    q, _ = queue(ttl_s=3_600, lock_s=3_600)
    for _ in range(2_000):
        put(q, 0)
        q.ack(q.lease("a"))
    assert len(q._expiry) < 200
    assert len(q._locks) < 200
    put(q, "live")
    for _ in range(2_000):
        put(q, 1)
        q.ack(q.lease("a", wants=lambda e: e.stored.body == b"1"))
    assert len(q._shelf._lanes[0].fresh) < 200


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": -1},
        {"ttl_s": -1},
        {"dedup_window_s": 0},
        {"max_delivery_count": 0},
        {"lock_s": 0},
        {"max_priority": 256},
    ],
)
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        QueueOptions(**options)  # type: ignore[arg-type]


def test_the_clock_only_moves_forward() -> None:
    with pytest.raises(ValueError, match="forward"):
        ManualClock().advance(-1)


def test_returned_selected_and_returned_again() -> None:
    q, _ = queue()
    put(q, 0, 1)
    for _ in range(3):
        held = q.lease("a", 1, wants=lambda e: e.seq == 2)
        assert bodies(held) == "1"
        q.release(held)
    assert bodies(q.lease("a", 5)) == "0 1"


def test_deferring_what_has_outlived_its_ttl_ends_it() -> None:
    q, clock = queue(ttl_s=5)
    put(q, 0)
    held = q.lease("a")
    clock.advance(5)
    assert not q.defer(held)
    assert q.removed["expired"] == 1
