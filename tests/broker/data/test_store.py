"""Messages that outlive a broker that is killed: their bytes, order, counts and time; and what does not outlive it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.broker.engine.amqp_kit import Reader, drained, headers, queue, quorum, send, taken
from unimq.broker.data import limits
from unimq.broker.engine import ManualClock
from unimq.wire.amqp091.table import Int8, Timestamp

from .kit import PERSISTENT, Life, Lives


# ------------------------------------------------------------------------------------------------------- messages
def test_a_message_comes_back_byte_for_byte(lives: Lives) -> None:
    queue(lives.vhost, "q", durable=True)
    given: dict[str, Any] = {
        "headers": {"n": Int8(3), "nested": {"list": [1, "ä", b"\xff"]}, "when": Timestamp(7)},
        "priority": 4,
        "correlation_id": "c",
        "expiration": "60000",
        "timestamp": 1_700_000_000,
        "type": "t",
        "app_id": "a",
    }
    send(lives.vhost, "q", b"\x00\xff" * 1000, **given, **PERSISTENT)
    before = lives.vhost.queues["q"].core.browse(1)[0]
    held_bytes = lives.now.engine.budget.held_bytes
    on = lives.end()
    (after,) = on.queues["q"].core.browse(1)
    assert after.stored.meta.properties.raw == before.stored.meta.properties.raw
    assert after.stored.body == b"\x00\xff" * 1000
    for name in ("seq", "state", "position", "priority", "enqueued_at", "expires_at", "delivery_count"):
        assert getattr(after, name) == getattr(before, name), name
    assert not after.redelivered
    assert lives.now.engine.budget.held_bytes == held_bytes


def test_transient_messages_last_in_quorum_queues_only(lives: Lives) -> None:
    queue(lives.vhost, "classic", durable=True)
    quorum(lives.vhost, "quorum")
    for name in ("classic", "quorum"):
        send(lives.vhost, name, "transient")
        send(lives.vhost, name, "persistent", **PERSISTENT)
    on = lives.end()
    assert drained(on, "classic") == ["persistent"]
    assert drained(on, "quorum") == ["transient", "persistent"]


def test_what_was_not_committed_is_lost_and_nothing_else(lives: Lives) -> None:
    queue(lives.vhost, "q", durable=True)
    send(lives.vhost, "q", "1", **PERSISTENT)
    lives.now.commit()
    send(lives.vhost, "q", "2", **PERSISTENT)
    lives.vhost.ack(lives.vhost.queues["q"], [taken(lives.vhost)])
    on = lives.end(commit=False)
    assert drained(on) == ["1"]


def test_settled_messages_and_their_rows_are_gone(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "q", durable=True)
    for n in range(6):
        send(on, "q", str(n), **PERSISTENT)
    lives.now.commit()
    assert lives.now.rows() == 6
    on.ack(on.queues["q"], [taken(on)])
    on.reject(on.queues["q"], [taken(on)])
    on.get("q", "o", no_ack=True)
    lives.now.commit()
    assert lives.now.rows() == 3
    assert drained(lives.end()) == ["3", "4", "5"]
    lives.now.commit()
    assert lives.now.rows() == 0


def test_a_message_that_came_and_went_is_never_written(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "q", durable=True)
    send(on, "q", "m", **PERSISTENT)
    on.ack(on.queues["q"], [taken(on)])
    assert not (lives.now.store.new or lives.now.store.changed or lives.now.store.gone)


def test_purged_and_dropped_heads_are_gone(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "bounded", {"x-max-length": 2}, durable=True)
    queue(on, "purged", durable=True)
    for n in range(4):
        send(on, "bounded", str(n), **PERSISTENT)
        send(on, "purged", str(n), **PERSISTENT)
    lives.now.commit()
    on.purge_queue("purged")
    on = lives.end()
    assert drained(on, "purged") == []
    assert drained(on, "bounded") == ["2", "3"]


def test_in_several_queues_each_keeps_its_own(lives: Lives) -> None:
    on = lives.vhost
    for name in ("a", "b"):
        queue(on, name, durable=True)
        on.bind_queue(name, "amq.fanout", "")
    send(on, "", "m", "amq.fanout", **PERSISTENT)
    lives.now.commit()
    on.ack(on.queues["a"], [taken(on, "a")])
    on = lives.end()
    assert (drained(on, "a"), drained(on, "b")) == ([], ["m"])


def test_order_and_priority(lives: Lives) -> None:
    queue(lives.vhost, "q", {"x-max-priority": 3}, durable=True)
    for n, priority in enumerate((0, 3, 1, 9, 0)):
        send(lives.vhost, "q", f"{n}", priority=priority, **PERSISTENT)
    lives.vhost.requeue(lives.vhost.queues["q"], [taken(lives.vhost)])
    on = lives.end()
    send(on, "q", "later", priority=3, **PERSISTENT)
    assert drained(lives.end()) == ["1", "3", "later", "2", "0", "4"]


# ------------------------------------------------------------------------------------------------ handed out, counted
def test_what_was_delivered_comes_back_redelivered_and_the_rest_not(lives: Lives) -> None:
    queue(lives.vhost, "q", durable=True)
    for n in range(3):
        send(lives.vhost, "q", str(n), **PERSISTENT)
    taken(lives.vhost)
    on = lives.end()
    found = [taken(on) for _ in range(3)]
    assert [entry.stored.body for entry in found] == [b"0", b"1", b"2"]
    assert [entry.redelivered for entry in found] == [True, False, False]


def test_delivered_at_once_to_a_waiting_consumer(lives: Lives) -> None:
    queue(lives.vhost, "q", durable=True)
    reader = Reader()
    lives.vhost.consume("q", reader)
    send(lives.vhost, "q", "m", **PERSISTENT)
    assert reader.bodies == "m"
    assert taken(lives.end()).redelivered


def test_quorum_queues_count_what_was_out_and_bury_what_came_back_too_often(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "dead", durable=True)
    quorum(on, "q", delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key="dead")
    send(on, "q", "m", **PERSISTENT)
    counts = []
    for _ in range(3):
        counts.append(taken(on, "q").delivery_count)
        on = lives.end()
    assert counts == [0, 1, 2]
    assert on.get("q", "o") is None
    (death,) = headers(taken(on, "dead"))["x-death"]
    assert (death["reason"], death["queue"]) == ("delivery_limit", "q")
    # committed by the restoring itself: it is in one of the queues, never in both
    on = lives.end(commit=False)
    assert on.get("q", "o") is None
    assert taken(on, "dead").redelivered is False


def test_a_quorum_queue_keeps_its_order_of_return(lives: Lives) -> None:
    on = lives.vhost
    quorum(on, "q", delivery_limit=9)
    for n in range(4):
        send(on, "q", str(n), **PERSISTENT)
    first, second = taken(on), taken(on)
    on.requeue(on.queues["q"], [second, first])
    assert drained(lives.end()) == ["1", "0", "2", "3"]


# -------------------------------------------------------------------------------------------------- dead letters, time
def test_x_death_grows_over_restarts(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}, durable=True)
    back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}
    queue(on, "dead", back, durable=True)
    send(on, "q", "m", headers={"own": 1}, **PERSISTENT)
    for name in ("q", "dead", "q"):
        on.reject(on.queues[name], [taken(on, name)])
        on = lives.end()
    found = headers(taken(on, "dead"))
    assert [(death["queue"], death["count"]) for death in found["x-death"]] == [("q", 2), ("dead", 1)]
    assert (found["own"], found["x-first-death-queue"]) == (1, "q")
    assert lives.now.rows() == 1


def test_a_dead_letter_that_no_queue_takes_is_held_and_offered_again(lives: Lives) -> None:
    on = lives.vhost
    arguments = {
        "dead_letter_exchange": "dlx",
        "dead_letter_strategy": "at-least-once",
        "overflow": "reject-publish",
    }
    quorum(on, "q", **arguments)
    send(on, "q", "m", **PERSISTENT)
    on.reject(on.queues["q"], [taken(on)])
    on = lives.end()
    assert on.queues["q"].core.depth().dead == 1
    queue(on, "dead", durable=True)
    on.declare_exchange("dlx", "fanout", durable=True)
    on.bind_queue("dead", "dlx", "")
    on = lives.end()
    (death,) = headers(taken(on, "dead"))["x-death"]
    assert death["reason"] == "rejected"
    assert on.queues["q"].core.depth().total == 0


def test_time_to_live_goes_on_while_no_broker_runs(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "dead", durable=True)
    queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}, durable=True)
    send(on, "q", "10 s", expiration="10000", **PERSISTENT)
    send(on, "q", "60 s", expiration="60000", **PERSISTENT)
    on = lives.end(down_s=30)
    assert drained(on, "dead") == ["10 s"]
    lives.now.clock.advance(29)
    lives.now.engine.tick()
    assert on.counts(on.queues["q"])[0] == 1
    lives.now.clock.advance(1)
    lives.now.engine.tick()
    assert drained(on, "dead") == ["60 s"]


def test_an_unused_queue_has_its_whole_time_again(lives: Lives) -> None:
    queue(lives.vhost, "q", {"x-expires": 60_000}, durable=True)
    on = lives.end(down_s=3600)
    assert "q" in on.queues
    lives.now.clock.advance(60)
    lives.now.engine.tick()
    assert "q" not in lives.end().queues


def test_a_clock_moved_by_hand_is_remembered(lives: Lives) -> None:
    lives.now.store.clock_advanced(61.5)
    lives.end()
    assert lives.now.store.advanced_s == 61.5


# --------------------------------------------------------------------------------------------------------- bounds
def test_what_is_restored_counts_against_max_bytes(lives: Lives) -> None:
    queue(lives.vhost, "q", durable=True)
    for _ in range(20):
        send(lives.vhost, "q", b"x" * 10_000, **PERSISTENT)
    on = lives.end(max_bytes=100_000)  # less than lies there
    assert lives.now.engine.budget.held_bytes > 200_000
    assert send(on, "q", "no room", **PERSISTENT).refused
    assert len(drained(on)) == 20
    assert not send(on, "q", "room", **PERSISTENT).refused


def test_the_file_does_not_grow_and_shrinks_again(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimq.broker.data.store.LOOK_AFTER_ROWS", 16)
    monkeypatch.setattr("unimq.broker.data.store.FREE_MAX_BYTES", 1 << 18)
    store = lives.now.store
    queue(lives.vhost, "q", durable=True)
    sizes = []
    for _ in range(4):
        for _ in range(32):
            send(lives.vhost, "q", b"x" * 30_000, **PERSISTENT)
        lives.now.commit()
        sizes.append(_pages(store.connection))
        drained(lives.vhost)
        lives.now.commit()
    assert sizes[-1] <= sizes[0] * 1.1
    assert _pages(store.connection) < sizes[0] / 2
    assert lives.end().queues["q"].ready == 0


def _pages(connection: Any) -> int:
    return int(connection.execute("PRAGMA page_count").fetchone()[0])


def test_numbers_of_queues_are_given_again(lives: Lives) -> None:
    for _ in range(50):
        queue(lives.vhost, "q", durable=True)
        send(lives.vhost, "q", "m", **PERSISTENT)
        lives.now.commit()
        lives.vhost.delete_queue("q")
        lives.now.commit()
    queue(lives.vhost, "q", durable=True)
    lives.now.commit()
    (number,) = lives.now.store.connection.execute("SELECT number FROM queues").fetchone()
    assert number <= 2
    assert limits.QUEUE_NUMBER_MAX > 1_000_000 and limits.SEQ_BITS >= 40


def test_two_lives_on_clocks_that_disagree(tmp_path: Path) -> None:
    """The system's clock went back between two lives: nothing expires early, nothing is lost."""
    first = Life(tmp_path, ManualClock(2_000_000.0))
    queue(first.vhost, "q", durable=True)
    send(first.vhost, "q", "m", expiration="1000", **PERSISTENT)
    first.commit()
    first.store.close()
    with closing((second := Life(tmp_path, ManualClock(1_000_000.0))).store):
        assert drained(second.vhost) == ["m"]
