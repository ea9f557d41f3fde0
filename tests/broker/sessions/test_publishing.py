"""Publishing: confirms, returns, transactions, direct reply-to, refusal for want of room."""

from __future__ import annotations

import time

import pika
import pytest

from unimq import broker
from unimq.wire.amqp091 import content_frames, method_frame
from unimq.wire.amqp091.properties import make_properties

from .kit import Client, World


def confirming(world: World | None = None) -> Client:
    client = (world or World()).open(1)
    client.say(1, "confirm.select", False)
    client.declare("q")
    client.take()
    return client


def test_confirms_are_said_once_a_turn() -> None:
    client = confirming()
    frames = b"".join(
        method_frame(1, "basic.publish", "", "q", False, False) + content_frames(1, b"\x00\x00", b"%d" % n, 0)
        for n in range(50)
    )
    client.send(frames)
    assert client.take() == [(1, "basic.ack", (50, True))]
    client.publish("q")
    assert client.take() == [(1, "basic.ack", (51, False))]


def test_a_returned_message_is_returned_before_it_is_confirmed() -> None:
    client = confirming()
    client.publish("nowhere", b"lost", mandatory=True, message_id="m")
    returned, confirmed = client.take()
    properties = make_properties(message_id="m").raw
    assert returned == (1, "basic.return", (312, "NO_ROUTE", "", "nowhere", properties, b"lost"))
    assert confirmed == (1, "basic.ack", (1, False))


def test_a_full_queue_refuses_with_nack_among_acks() -> None:
    client = confirming()
    client.declare("small", max_length=1, overflow="reject-publish")
    client.take()
    for key in ("q", "small", "small", "q", "q"):
        client.publish(key)
    assert client.take() == [
        (1, "basic.ack", (2, True)),
        (1, "basic.nack", (3, False, False)),
        (1, "basic.ack", (5, True)),
    ]


def test_a_missing_exchange_closes_the_channel_and_confirms_only_those_before() -> None:
    client = confirming()
    client.publish("q")
    client.publish("q", exchange="missing")
    acked, closed = client.take()
    assert acked == (1, "basic.ack", (1, False))
    assert closed[2] == (404, "NOT_FOUND - no exchange 'missing' in vhost '/'", 60, 40)


def test_properties_go_through_byte_for_byte() -> None:
    client = World().open(1)
    client.declare("q")
    raw = make_properties(headers={"bytes": b"\xff\xfe", "n": 1}, timestamp=7, app_id="app").raw
    client.send(method_frame(1, "basic.publish", "", "q", False, False) + content_frames(1, raw, b"b", 0))
    client.say(1, "basic.get", "q", True)
    assert client.take()[-1][2][-2:] == (raw, b"b")


def test_malformed_properties_are_an_internal_error_as_in_rabbitmq() -> None:
    client = World().open(1)
    client.send(
        method_frame(1, "basic.publish", "", "q", False, False)
        + content_frames(1, b"\x80\x00\x20ab", b"x", 0)
    )
    assert client.error() == (541, "INTERNAL_ERROR", (0, 0))


def test_errors_of_a_content_are_the_publishs() -> None:
    for properties, text in (
        ({"expiration": "abc"}, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer"),
        (
            {"user_id": "bob"},
            "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'",
        ),
    ):
        client = World().open(1)
        client.publish("q", **properties)
        assert client.error() == (406, text, (60, 40))


def test_immediate_is_not_there() -> None:
    client = World().open(1)
    client.send(
        method_frame(1, "basic.publish", "", "q", False, True) + content_frames(1, b"\x00\x00", b"x", 0)
    )
    assert client.error() == (540, "NOT_IMPLEMENTED - immediate=true", (60, 40))


# -------------------------------------------------------------------------------------------------- transactions
def test_a_commit_does_all_and_a_rollback_nothing() -> None:
    world = World()
    client = world.open(1, 2)
    client.declare("q")
    client.say(1, "tx.select")
    client.publish("q", b"one")
    client.publish("q", b"two")
    client.take()
    client.say(2, "basic.get", "q", True)
    assert client.names() == ["basic.get-empty"]
    client.say(1, "tx.rollback")
    client.publish("q", b"three")
    client.say(1, "tx.commit")
    client.say(2, "basic.get", "q", True)
    client.say(2, "basic.get", "q", True)
    events = client.take()
    assert [name for _, name, _ in events] == [
        "tx.rollback-ok",
        "tx.commit-ok",
        "basic.get-ok",
        "basic.get-empty",
    ]
    assert events[2][2][-1] == b"three"


def test_an_ack_rolled_back_is_not_acked() -> None:
    client = World().open(1)
    client.declare("q")
    client.publish("q", b"one")
    client.say(1, "tx.select")
    client.say(1, "basic.get", "q", False)
    client.say(1, "basic.ack", 1, False)
    client.say(1, "tx.rollback")
    client.say(1, "basic.ack", 1, False)
    client.say(1, "tx.commit")
    assert client.names()[-2:] == ["tx.rollback-ok", "tx.commit-ok"]
    assert client.session.vhost.queues["q"].core.depth().total == 0


def test_a_channel_that_ends_in_a_transaction_gives_back_what_it_had_settled() -> None:
    world = World()
    client = world.open(1)
    client.declare("q")
    client.publish("q", b"one")
    client.say(1, "tx.select")
    client.say(1, "basic.get", "q", False)
    client.say(1, "basic.ack", 1, False)
    client.gone()
    other = world.open(1)
    other.say(1, "basic.get", "q", True)
    assert other.take()[0][2][1] is True  # redelivered


def test_tx_and_confirm_exclude_each_other() -> None:
    client = World().open(1, 2)
    client.say(1, "tx.select")
    client.say(1, "confirm.select", False)
    assert client.error() == (406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", (85, 10))
    client.say(2, "confirm.select", False)
    client.say(2, "tx.select")
    assert client.error() == (406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", (90, 10))


def test_commit_without_select_is_406() -> None:
    client = World().open(1)
    client.say(1, "tx.commit")
    assert client.error() == (406, "PRECONDITION_FAILED - channel is not transactional", (90, 20))


# ----------------------------------------------------------------------------------------------- direct reply-to
REPLY_TO = "amq.rabbitmq.reply-to"


def test_a_reply_goes_straight_to_the_channel_that_asked() -> None:
    world = World()
    asking, answering = world.open(1), world.open(1)
    answering.declare("questions")
    asking.consume(REPLY_TO, "r", no_ack=True)
    asking.publish("questions", b"?", reply_to=REPLY_TO, correlation_id="c")
    asking.take()
    answering.say(1, "basic.get", "questions", True)
    from unimq.wire.amqp091 import Properties

    address = Properties(answering.take()[-1][2][-2]).get("reply_to")
    assert address.startswith(REPLY_TO + ".")
    answering.publish(address, b"!", correlation_id="c", mandatory=True)
    assert answering.names() == []
    assert asking.bodies() == [b"!"]
    asking.say(1, "channel.close", 200, "", 0, 0)
    answering.publish(address, b"late", mandatory=True)
    assert answering.names() == ["basic.return"]


def test_direct_reply_to_has_its_own_errors() -> None:
    for say, text in (
        (lambda c: c.publish("q", reply_to=REPLY_TO), "fast reply consumer does not exist"),
        (lambda c: c.consume(REPLY_TO), "reply consumer cannot acknowledge"),
        (lambda c: [c.consume(REPLY_TO, tag, no_ack=True) for tag in "ab"], "reply consumer already set"),
    ):
        client = World().open(1)
        say(client)
        assert client.error()[:2] == (406, f"PRECONDITION_FAILED - {text}")


# ----------------------------------------------------------------------------------------------------- no room
def test_publishers_are_blocked_and_go_on() -> None:
    world = World(max_bytes=200_000)
    publisher, consumer = world.open(1), world.open(1)
    consumer.declare("q")
    consumer.take()
    for _ in range(30):
        publisher.publish("q", b"x" * 10_000)
        if not publisher.line.reading:
            break
    assert publisher.take()[-1] == (0, "connection.blocked", ("low on memory",))
    assert not publisher.line.reading
    assert consumer.line.reading
    assert world.engine.budget.held_bytes <= 200_000
    consumer.say(1, "queue.purge", "q", False)
    assert publisher.names() == ["connection.unblocked"]
    assert publisher.line.reading


def test_room_made_by_time_unblocks_as_well() -> None:
    """The publisher is the only client and is not read: only the clock can let it go on."""
    with broker.run(amqp=0, max_bytes=300_000) as running:
        with pika.BlockingConnection(pika.URLParameters(running.urls["amqp"])) as connection:
            told: list[str] = []
            connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
            connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
            channel = connection.channel()
            channel.queue_declare("q", arguments={"x-message-ttl": 60_000})
            deadline = time.monotonic() + 20
            while "blocked" not in told:
                channel.basic_publish("", "q", b"x" * 10_000)
                connection.process_data_events(0.01)
                assert time.monotonic() < deadline
            running.clock.advance(61)
            while "unblocked" not in told:
                connection.process_data_events(0.05)
                assert time.monotonic() < deadline
            assert channel.queue_declare("q", passive=True).method.message_count == 0


def test_what_arrives_beyond_the_bound_is_nacked_not_held() -> None:
    world = World(max_bytes=50_000)
    client = confirming(world)
    client.publish("q", b"x" * 100_000)
    assert (1, "basic.nack", (1, False, False)) in client.take()


# ------------------------------------------------------------------------------------------------------- faults
def test_faults_drop_before_and_after() -> None:
    for action, held in (("drop-before", 1), ("drop-after", 2)):
        world = World()
        client = confirming(world)
        world.faults.add(action, "basic.publish", after=1)
        client.publish("q")
        client.publish("q")
        assert client.line.ended == "cut"
        assert world.engine.queue("q").ready == held  # type: ignore[union-attr]


def test_a_lost_confirm_is_not_covered_by_a_later_one() -> None:
    world = World()
    client = confirming(world)
    world.faults.add("lose-confirm", "basic.publish", after=1)
    for _ in range(4):
        client.publish("q")
    assert client.take() == [(1, "basic.ack", (tag, False)) for tag in (1, 3, 4)]


def test_a_refusal_has_the_code_that_was_asked_for() -> None:
    world = World()
    client = world.open(1)
    world.faults.add("refuse", "queue.declare", code=403, text="not today")
    client.declare("q")
    assert client.error() == (403, "ACCESS_REFUSED - not today", (50, 10))


def test_what_dies_of_a_commit_comes_behind_all_that_it_publishes() -> None:
    client = World().open()
    client.declare("short", max_length=0, dead_letter_exchange="", dead_letter_routing_key="long")
    client.declare("long")
    client.say(1, "tx.select")
    client.publish("short", b"dies")
    client.publish("long", b"lives")
    client.say(1, "tx.commit")
    client.take()
    client.consume("long", no_ack=True)
    assert client.bodies() == [b"lives", b"dies"]


@pytest.mark.parametrize("again", [False, True])
def test_a_commit_goes_to_the_queue_that_has_the_name_then(again: bool) -> None:
    client = World().open(1, 2)
    client.declare("q")
    client.say(1, "tx.select")
    client.publish("q", b"late", mandatory=True)
    client.say(2, "queue.delete", "q", False, False, False)
    if again:
        client.declare("q", 2)
    client.take()
    client.say(1, "tx.commit")
    assert client.names() == (["tx.commit-ok"] if again else ["basic.return", "tx.commit-ok"])
    client.say(2, "basic.get", "q", True) if again else None
    assert not again or client.take()[-1][2][-1] == b"late"


def test_a_duplicate_is_there_twice_and_confirmed_once() -> None:
    world = World()
    client = world.open()
    client.declare("q")
    client.say(1, "confirm.select", False)
    client.take()
    world.faults.add("duplicate", "basic.publish", after=1)
    for body in (b"1", b"2", b"3"):
        client.publish("q", body)
    assert client.take() == [(1, "basic.ack", (3, True))]
    client.consume("q", no_ack=True)
    assert client.bodies() == [b"1", b"2", b"2", b"3"]


def test_a_delay_holds_the_command_and_what_is_behind_it() -> None:
    world = World()
    client, other = world.open(), world.open()
    world.faults.add("delay", "queue.declare", delay_s=5)
    client.declare("late")
    client.declare("behind")
    client.session.writable_again()  # the peer reads: no reason to go on
    assert client.take() == []
    assert client.line.pauses == {"delay"}
    other.declare("meanwhile")
    assert other.names() == ["queue.declare-ok"]
    client.line.pass_time(4.9)
    assert client.take() == []
    client.line.pass_time(0.2)
    assert client.names() == ["queue.declare-ok", "queue.declare-ok"]
    assert client.line.pauses == set()
    client.declare("now")
    assert client.names() == ["queue.declare-ok"]


def test_a_delayed_command_of_a_peer_that_is_gone_is_not_carried_out() -> None:
    world = World()
    client = world.open()
    world.faults.add("delay", "queue.declare", delay_s=5)
    client.declare("never")
    client.gone()
    client.line.pass_time(6)
    assert world.engine.queue("never") is None


def test_a_delay_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="delay_s"):
        World().faults.add("delay", "basic.publish")
