"""Who is served when: what comes back, what dies and what is counted, in RabbitMQ's order of steps."""

from __future__ import annotations

import pytest

from unimq.broker.engine.amqpqueue import AmqpQueue
from unimq.broker.engine.errors import AmqpError
from unimq.broker.engine.vhost import VHost

from .amqp_kit import Reader, drained, headers, queue, quorum, refused, send, taken, vhost


def given_back(on: VHost, made: AmqpQueue, reader: Reader) -> None:
    """All he holds, by his wish; he has room for it again."""
    entries, reader.entries = reader.entries, []
    reader.room_for += len(entries)
    on.requeue(made, entries, reader)


def test_who_gives_back_stands_in_line_before_it_comes_back() -> None:
    on, _ = vhost()
    made = queue(on)
    high, low = Reader("high", 1), Reader("low", 1)
    on.consume("q", high, arguments={"x-priority": 5})
    on.consume("q", low)
    send(on, "q", "1")
    send(on, "q", "2")
    send(on, "q", "3")  # both are full: they step out
    on.ack(made, low.entries, low)
    low.room_for = 1
    given_back(on, made, high)
    assert (high.bodies, low.bodies) == ("1", "2")
    on.wanted(low)
    assert low.bodies == "2 3"


def test_several_that_are_wanted_together_come_in_the_order_of_stepping_out() -> None:
    on, _ = vhost()
    queue(on)
    one, two = Reader("one", 1), Reader("two", 1)
    on.consume("q", one)
    on.consume("q", two)
    for number in range(5):
        send(on, "q", str(number))
    one.room_for = two.room_for = 1
    on.wanted(two, one)
    assert (one.bodies, two.bodies) == ("0 2", "1 3")


def test_in_a_quorum_queue_who_is_full_leaves_his_place_at_once() -> None:
    for made_by, second in ((queue, "one"), (quorum, "two")):
        on, _ = vhost()
        made = made_by(on)
        readers = {"one": Reader("one", 1), "two": Reader("two", 1)}
        for reader in readers.values():
            on.consume("q", reader)
        send(on, "q", "0")
        send(on, "q", "1")
        for name in ("two", "one"):
            readers[name].room_for = 1
            on.ack(made, readers[name].entries[:1], readers[name])
        send(on, "q", "2")
        assert readers[second].bodies.endswith(" 2")


def test_the_next_single_active_one_of_a_quorum_queue_is_who_came_next() -> None:
    for arguments, follows in (({}, "urgent"), ({"x-queue-type": "quorum"}, "second")):
        on, _ = vhost()
        queue(on, "q", {"x-single-active-consumer": True, **arguments}, durable=True)
        first, second, urgent = Reader("first"), Reader("second"), Reader("urgent")
        on.consume("q", first)
        on.consume("q", second)
        on.consume("q", urgent, arguments={"x-priority": 5})
        on.cancel(first)
        send(on, "q", "1")
        assert {"second": second, "urgent": urgent}[follows].bodies == "1"


def test_a_quorum_queue_counts_who_is_cancelled_and_holds_something_but_not_who_waits() -> None:
    on, _ = vhost()
    made = quorum(on, single_active_consumer=True)
    first, second, third = Reader("first"), Reader("second"), Reader("third")
    for reader in (first, second, third):
        on.consume("q", reader)
    assert on.counts(made) == (0, 1)
    send(on, "q")
    on.cancel(first)
    assert on.counts(made) == (0, 2)
    first.settled = 1
    on.ack(made, first.entries)
    assert on.counts(made) == (0, 1)
    send(on, "q")
    on.cancel(second)
    on.end_channel([], [(made, second.entries)])
    assert on.counts(made) == (0, 1)


def test_a_quorum_queue_serves_before_it_looks_at_its_bounds() -> None:
    for kind, left in (("classic", ["2"]), ("quorum", ["1", "2"])):
        on, _ = vhost()
        made = queue(on, "q", {"x-max-length": 1, "x-queue-type": kind}, durable=True)
        reader = Reader("r", 1)
        on.consume("q", reader)
        send(on, "q", "1")
        send(on, "q", "2")
        given_back(on, made, reader)
        assert sorted([*reader.bodies.split(), *drained(on)]) == left


def test_a_quorum_queue_counts_what_is_left_before_it_expires() -> None:
    for made_by, left in ((queue, 1), (quorum, 2)):
        on, _ = vhost()
        made = made_by(on)
        send(on, "q", "1")
        send(on, "q", "2", expiration="0")
        send(on, "q", "3")
        got = on.get("q", "owner")
        assert got is not None
        assert got[2] == left
        assert on.counts(made)[0] == 1


def test_a_dead_letter_to_its_own_queue_comes_when_all_have_been_served() -> None:
    on, _ = vhost()
    made = queue(
        on,
        "q",
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-max-priority": 5},
    )
    reader = Reader("r", 1)
    on.consume("q", reader)
    send(on, "q", "high", priority=5)
    send(on, "q", "low")
    entries, reader.entries, reader.room_for = reader.entries, [], 1
    on.reject(made, entries, reader)
    assert reader.bodies == "low"
    assert drained(on) == ["high"]


def test_what_dies_on_the_way_comes_behind_the_message_itself() -> None:
    on, _ = vhost()
    queue(on, "a", {"x-max-length": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "b"})
    queue(on, "b")
    for name in "ab":
        on.bind_queue(name, "amq.fanout", "")
    send(on, "", "m", exchange="amq.fanout")
    keys = [taken(on, "b").stored.meta.routing_key for _ in range(2)]
    assert keys == ["", "b"]


def test_a_dead_letter_that_a_full_queue_refuses_dies_there_too() -> None:
    on, _ = vhost()
    queue(
        on,
        "full",
        {
            "x-max-length": 0,
            "x-overflow": "reject-publish-dlx",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "q",
        },
    )
    made = queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "full"})
    send(on, "q")
    on.reject(made, [taken(on)])
    again = taken(on)
    assert [(d["queue"], d["reason"]) for d in headers(again)["x-death"]] == [
        ("full", "maxlen"),
        ("q", "rejected"),
    ]


def test_what_a_reader_of_a_quorum_queue_held_comes_back_as_it_was_given() -> None:
    for arguments, order in (({}, ["1", "2"]), ({"x-queue-type": "quorum"}, ["2", "1"])):
        on, _ = vhost()
        made = queue(on, "q", arguments, durable=True)
        send(on, "q", "1")
        send(on, "q", "2")
        first, second = taken(on), taken(on)
        on.end_channel([], [(made, [second, first])])
        assert drained(on) == order


def test_a_binding_is_looked_at_before_whose_queue_it_is() -> None:
    on, _ = vhost()
    on.declare_queue("q", exclusive=True, connection="mine")
    with refused(406, "Invalid x-match field type signedint (value 5); expected longstr"):
        on.bind_queue("q", "amq.headers", "", {"x-match": 5}, connection="other")
    on.unbind_queue("q", "amq.headers", "", connection="other")  # not there: nobody asks whose it is
    on.bind_queue("q", "amq.headers", "", connection="mine")
    for verb in (on.bind_queue, on.unbind_queue):
        with pytest.raises(AmqpError) as caught:
            verb("q", "amq.headers", "", connection="other")
        assert caught.value.code == 405


def test_what_is_dead_and_still_held_counts_against_a_bound_that_refuses() -> None:
    on, _ = vhost()
    made = quorum(
        on,
        max_length=1,
        overflow="reject-publish",
        dead_letter_exchange="",
        dead_letter_routing_key="nowhere",
        dead_letter_strategy="at-least-once",
    )
    for _ in range(2):
        assert not send(on, "q").refused
        on.reject(made, [taken(on)])
    assert send(on, "q").refused


def test_a_full_quorum_queue_takes_dead_letters_that_come_at_most_once() -> None:
    on, _ = vhost()
    quorum(on, "full", max_length=0, overflow="reject-publish")
    made = queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "full"})
    assert not send(on, "full", "1").refused
    assert send(on, "full", "2").refused
    send(on, "q", "letter")
    on.reject(made, [taken(on)])
    assert drained(on, "full") == ["1", "letter"]


def test_without_any_time_to_live_it_is_gone_before_the_next_comes() -> None:
    on, _ = vhost()
    queue(on, "dead")
    queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", "x-message-ttl": 0})
    for name in ("dead", "q"):
        on.bind_queue(name, "amq.fanout", "")
    for _ in range(2):
        send(on, "", exchange="amq.fanout", expiration="0")
    # the second lies behind the first one's letter, and only a head expires
    assert on.find_queue("dead").ready == 3


def test_a_cycle_that_x_death_hides_ends() -> None:
    on, _ = vhost()
    for name, place in (("a", "b"), ("b", "a")):
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": place}
        queue(on, name, {**arguments, "x-max-length": 0, "x-overflow": "reject-publish-dlx"})
    made = queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"})
    hidden = [{"queue": "q", "reason": "rejected", "count": 1}]
    send(on, "q", headers={"x-death": hidden})
    on.reject(made, [taken(on)])
    assert on.engine.budget.held_bytes == 0
