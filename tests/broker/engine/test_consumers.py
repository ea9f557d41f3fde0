"""Consumers and queues of a virtual host: whose turn, what comes back where, what expires and what goes."""

from __future__ import annotations

from .amqp_kit import Reader, drained, queue, quorum, refused, send, taken, vhost

Q = "queue 'q' in vhost '/'"


def test_each_in_turn_and_higher_priorities_first() -> None:
    on, _ = vhost()
    queue(on)
    low, one, two = Reader("low"), Reader("one", 2), Reader("two", 3)
    on.consume("q", low, arguments={"x-priority": -1})
    on.consume("q", one)
    on.consume("q", two)
    for number in range(7):
        send(on, "q", str(number))
    assert (one.bodies, two.bodies, low.bodies) == ("0 2", "1 3 4", "5 6")
    one.room_for = 1
    on.wanted(one)
    send(on, "q", "7")
    assert one.bodies == "0 2 7"


def test_a_new_consumer_gets_what_lies_there_and_consume_ok_comes_first() -> None:
    on, _ = vhost()
    queue(on)
    for number in range(3):
        send(on, "q", str(number))
    reader = Reader(room_for=2)
    said: list[int] = []
    on.consume("q", reader, on_ok=lambda: said.append(len(reader.entries)))
    assert said == [0]
    assert reader.bodies == "0 1"
    assert on.counts(on.find_queue("q")) == (1, 1)


def test_without_acknowledgement_nothing_is_held() -> None:
    on, _ = vhost()
    queue(on)
    reader = Reader(no_ack=True)
    on.consume("q", reader)
    send(on, "q", "1")
    assert reader.bodies == "1"
    assert on.find_queue("q").core.depth().total == 0
    assert on.engine.budget.held_bytes == 0


def test_single_active_and_who_follows() -> None:
    on, _ = vhost()
    queue(on, "q", {"x-single-active-consumer": True})
    first, second, third = Reader("first"), Reader("second"), Reader("third")
    for reader, priority in ((first, 0), (second, 0), (third, 5)):
        on.consume("q", reader, arguments={"x-priority": priority})
    with refused(403, f"{Q} in exclusive use"):
        on.consume("q", Reader("alone", exclusive=True))
    send(on, "q", "1")
    on.cancel(first)
    send(on, "q", "2")
    on.cancel(third)
    send(on, "q", "3")
    assert (first.bodies, second.bodies, third.bodies) == ("1", "3", "2")


def test_exclusive_consumers_are_alone() -> None:
    on, _ = vhost()
    queue(on)
    alone, other = Reader("alone", exclusive=True), Reader("other")
    on.consume("q", other)
    with refused(403, f"{Q} in exclusive use"):
        on.consume("q", alone)
    on.cancel(other)
    on.consume("q", alone)
    with refused(403, f"{Q} in exclusive use"):
        on.consume("q", other)
    assert on.get("q", "get") is None  # getting is not consuming


def test_what_a_quorum_queue_does_not_do() -> None:
    on, _ = vhost()
    quorum(on, single_active_consumer=True)
    with refused(
        405,
        f"cannot obtain access to locked {Q}. basic.get operations are not supported by quorum queues with single "
        "active consumer",
    ):
        on.get("q", "me")
    with refused(540, f"{Q} does not support global qos"):
        on.consume("q", Reader(), global_prefetch=True)
    with refused(406, f"invalid arg 'x-cancel-on-ha-failover' for {Q} of queue type rabbit_quorum_queue"):
        on.consume("q", Reader(), arguments={"x-cancel-on-ha-failover": True})
    with refused(406, f"invalid arg 'x-priority' for {Q}: \"expected integer, got longstr\""):
        on.consume("q", Reader(), arguments={"x-priority": "high"})


def test_order_of_return() -> None:
    """facts §4 and §12: nack of 2, then of 0, of six."""
    for arguments, order in (
        (None, "0 2 4 5"),
        ({}, "4 5 2 0"),
        ({"delivery_limit": 5}, "2 0 4 5"),
    ):
        on, _ = vhost()
        made = queue(on) if arguments is None else quorum(on, **arguments)
        for number in range(6):
            send(on, "q", str(number))
        held = [taken(on) for _ in range(4)]
        on.ack(made, [held[1], held[3]])
        on.requeue(made, [held[2]])
        on.requeue(made, [held[0]])
        assert " ".join(drained(on)) == order
    on, _ = vhost()
    made = quorum(on)
    for number in range(6):
        send(on, "q", str(number))
    on.abandon(made, [taken(on) for _ in range(3)])
    assert " ".join(drained(on)) == "0 1 2 3 4 5"  # a vanished reader's go to the head, whatever the limit


def test_quorum_counts() -> None:
    on, _ = vhost()
    made = quorum(on)
    send(on, "q")
    entry = taken(on)
    assert made.content(entry, by_get=True).properties.headers == {"x-delivery-count": 0}
    assert made.content(entry).properties.headers == {}
    on.requeue(made, [entry])
    entry = taken(on)
    assert entry.redelivered
    assert made.content(entry).properties.headers == {"x-delivery-count": 1}


def test_quorum_refuses_late_and_takes_again_later() -> None:
    on, _ = vhost()
    quorum(on, max_length=5, overflow="reject-publish")
    assert [send(on, "q", str(n)).refused for n in range(7)] == [False] * 6 + [True]
    taken(on)
    assert send(on, "q").refused  # 5 of 5: still too many
    taken(on)
    assert not send(on, "q").refused


def test_expiration_zero_reaches_only_who_waits() -> None:
    on, _ = vhost()
    for arguments in (None, {"x-message-ttl": 0}):
        on, _ = vhost()
        made = queue(on, "q", arguments)
        expiration = {} if arguments else {"expiration": "0"}
        send(on, "q", "lost", **expiration)
        assert on.counts(made) == (0, 0)
        reader = Reader(room_for=1)
        on.consume("q", reader)
        send(on, "q", "reaches", **expiration)
        send(on, "q", "no room", **expiration)
        assert reader.bodies == "reaches"
        on.requeue(made, reader.entries)
        assert on.counts(made) == (0, 1)  # and does not come back


def test_only_the_head_expires() -> None:
    on, clock = vhost()
    made = queue(on)
    send(on, "q", "long", expiration="5000")
    send(on, "q", "short", expiration="1000")
    clock.advance(2)
    on.engine.tick()
    assert on.counts(made) == (2, 0)
    clock.advance(4)
    assert on.counts(made) == (0, 0)


def test_an_unused_queue_expires() -> None:
    on, clock = vhost()
    queue(on, "q", {"x-expires": 1000})
    for _ in range(3):
        clock.advance(0.9)
        on.engine.tick()
        on.get("q", "me")  # using it
    send(on, "q")  # is not
    reader = Reader()
    on.consume("q", reader)
    clock.advance(5)
    on.engine.tick()
    on.cancel(reader)
    assert on.engine.due() == clock.now() + 1
    clock.advance(1)
    on.engine.tick()
    assert not on.queues
    assert on.engine.due() is None


def test_auto_delete_waits_for_its_first_consumer() -> None:
    on, _ = vhost()
    queue(on, "q", auto_delete=True)
    send(on, "q")
    reader = Reader()
    made = on.consume("q", reader)
    on.cancel(reader)
    assert not on.queues
    assert not reader.was_cancelled
    on.abandon(made, reader.entries)  # nothing to come back to
    assert on.engine.budget.held_bytes == 0


def test_who_reads_a_deleted_queue_is_told() -> None:
    on, _ = vhost()
    queue(on)
    reader = Reader()
    made = on.consume("q", reader)
    send(on, "q")
    assert on.delete_queue("q") == 0  # what is out does not count
    assert reader.was_cancelled
    on.cancel(reader)
    on.ack(made, reader.entries)
    on.requeue(made, reader.entries)
    assert on.engine.budget.held_bytes == 0


def test_coming_back_can_push_the_head_over_the_bound() -> None:
    on, _ = vhost()
    made = queue(on, "q", {"x-max-length": 2})
    send(on, "q", "1")
    held = taken(on)
    send(on, "q", "2")
    send(on, "q", "3")
    on.requeue(made, [held])
    assert drained(on) == ["2", "3"]


def test_priorities_are_capped() -> None:
    on, _ = vhost()
    queue(on, "q", {"x-max-priority": 2})
    for body, priority in (("a", None), ("b", 1), ("c", 9), ("d", 2), ("e", 0)):
        send(on, "q", body, **({} if priority is None else {"priority": priority}))
    assert drained(on) == ["c", "d", "b", "a", "e"]


def test_a_full_broker_takes_nothing_anywhere() -> None:
    on, _ = vhost(max_bytes=3_000)
    for name in ("one", "two"):
        queue(on, name)
        on.bind_queue(name, "amq.fanout", "")
    assert not send(on, "", "x" * 100, exchange="amq.fanout").refused
    assert send(on, "", "x" * 1_500, exchange="amq.fanout").refused
    assert drained(on, "one") == drained(on, "two") == ["x" * 100]


def test_a_bound_that_refuses_comes_before_who_waits_and_one_that_drops_does_not() -> None:
    for overflow, reached in (("drop-head", "1"), ("reject-publish", ""), ("reject-publish-dlx", "")):
        on, _ = vhost()
        queue(on, "q", {"x-max-length": 0, "x-overflow": overflow})
        reader = Reader()
        on.consume("q", reader)
        assert send(on, "q", "1").refused is (not reached)
        assert reader.bodies == reached


def test_of_several_priorities_only_the_next_message_expires() -> None:
    on, clock = vhost()
    made = queue(on, "q", {"x-max-priority": 2})
    send(on, "q", "high", priority=2)
    send(on, "q", "low", expiration="1000")
    clock.advance(2)
    assert on.counts(made) == (2, 0)
    assert drained(on) == ["high"]


def test_who_follows_is_served_when_all_is_back() -> None:
    for arguments in ({}, {"x-queue-type": "quorum"}):
        on, _ = vhost()
        made = queue(on, "q", {"x-single-active-consumer": True, **arguments}, durable=True)
        first, second = Reader("first", 2), Reader("second")
        on.consume("q", first)
        on.consume("q", second)
        for number in range(4):
            send(on, "q", str(number))
        on.end_channel([first], [(made, first.entries)])
        assert second.bodies == "0 1 2 3"
        assert [entry.redelivered for entry in second.entries] == [True, True, False, False]


def test_a_quorum_queue_counts_unsettled_gets_as_consumers() -> None:
    on, _ = vhost()
    made = quorum(on)
    send(on, "q")
    send(on, "q")
    entries = [taken(on), taken(on)]
    on.consume("q", Reader())
    assert on.counts(made) == (0, 3)
    on.ack(made, entries[:1])
    assert on.counts(made) == (0, 2)


def test_what_expires_while_it_is_asked_for_finds_its_dead_letter_place_at_once() -> None:
    on, _ = vhost()
    made = quorum(on, dead_letter_exchange="", dead_letter_routing_key="dead")
    queue(on, "dead")
    reader = Reader(room_for=1)
    on.consume("q", reader)
    send(on, "q", expiration="0")
    on.requeue(made, reader.entries)
    reader.room_for = 1
    on.wanted(reader)
    assert drained(on, "dead") == ["m"]
