"""Consuming: prefetch, settling, recovery, cancelling, a peer that does not read."""

from __future__ import annotations

import pytest

from .kit import Client, World


def filled(count: int, world: World | None = None, **arguments: object) -> Client:
    client = (world or World()).open(1, 2)
    client.declare("q", **arguments)
    for n in range(count):
        client.publish("q", b"%d" % n)
    client.take()
    return client


def test_consume_ok_comes_before_the_first_delivery() -> None:
    client = filled(2)
    client.consume("q")
    assert client.names() == ["basic.consume-ok", "basic.deliver", "basic.deliver"]


def test_prefetch_is_per_consumer() -> None:
    client = filled(10)
    client.qos(2)
    client.consume("q", "a")
    client.consume("q", "b")
    assert client.bodies() == [b"0", b"1", b"2", b"3"]
    client.say(1, "basic.ack", 1, False)
    assert client.bodies() == [b"4"]


def test_prefetch_of_the_channel_is_shared() -> None:
    client = filled(10)
    client.qos(3, whole_channel=True)
    client.consume("q", "a")
    client.consume("q", "b")
    assert len(client.bodies()) == 3
    client.say(1, "basic.ack", 3, True)
    assert len(client.bodies()) == 3
    client.qos(5, whole_channel=True)
    assert len(client.bodies()) == 2


def test_prefetch_does_not_bind_without_acknowledgement() -> None:
    client = filled(100)
    client.qos(1)
    client.consume("q", no_ack=True)
    assert len(client.bodies()) == 100


def test_ack_multiple_and_zero() -> None:
    client = filled(5)
    client.consume("q")
    client.take()
    client.say(1, "basic.ack", 3, True)
    assert sorted(client.session.channels[1].unacked) == [4, 5]
    client.say(1, "basic.ack", 0, True)
    client.say(1, "basic.ack", 0, True)
    assert client.take() == []
    assert client.session.vhost.queues["q"].core.depth().total == 0


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("basic.ack", (9, False)),
        ("basic.ack", (9, True)),
        ("basic.nack", (9, False, True)),
        ("basic.reject", (9, True)),
    ],
)
def test_an_unknown_tag_is_406(name: str, args: tuple[object, ...]) -> None:
    client = filled(1)
    client.say(1, name, *args)
    assert client.error()[:2] == (406, "PRECONDITION_FAILED - unknown delivery tag 9")


def test_multiple_up_to_a_settled_tag_is_406() -> None:
    client = filled(3)
    client.consume("q")
    client.take()
    client.say(1, "basic.nack", 2, False, False)
    client.say(1, "basic.ack", 2, True)
    assert client.error()[:2] == (406, "PRECONDITION_FAILED - unknown delivery tag 2")


def test_requeued_messages_come_back_where_they_were() -> None:
    client = filled(5)
    client.qos(3)
    client.consume("q")
    client.take()
    client.say(1, "basic.cancel", "t", False)
    client.say(1, "basic.nack", 3, True, True)
    client.take()
    for _ in range(5):
        client.say(1, "basic.get", "q", True)
    got = [args for _, _, args in client.take()]
    assert [each[-1] for each in got] == [b"0", b"1", b"2", b"3", b"4"]
    assert [each[1] for each in got] == [True, True, True, False, False]


def test_reject_without_requeue_goes_to_the_dead_letters() -> None:
    world = World()
    client = world.open(1)
    client.declare("dead")
    client.declare("q", dead_letter_exchange="", dead_letter_routing_key="dead")
    client.publish("q", b"bad")
    client.consume("q")
    client.say(1, "basic.reject", 1, False)
    client.say(1, "basic.get", "dead", True)
    assert client.take()[-1][2][-1] == b"bad"


def test_a_message_expires_when_the_clock_says_so() -> None:
    world = World()
    client = world.open(1)
    client.declare("dead")
    client.declare("q", dead_letter_exchange="", dead_letter_routing_key="dead", message_ttl=1000)
    client.publish("q", b"old")
    world.advance(1.1)
    client.say(1, "basic.get", "dead", True)
    assert client.take()[-1][1] == "basic.get-ok"


def test_recover_brings_everything_back_here() -> None:
    client = filled(2)
    client.consume("q")
    client.take()
    client.say(1, "basic.recover", True)
    assert client.names() == ["basic.recover-ok", "basic.deliver", "basic.deliver"]
    client.say(1, "basic.recover", False)
    assert client.error()[:2] == (540, "NOT_IMPLEMENTED - requeue=false")


def test_qos_in_bytes_is_not_there() -> None:
    client = World().open(1)
    client.say(1, "basic.qos", 100, 0, False)
    assert client.error()[:2] == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (100)")


def test_a_tag_cannot_be_used_twice() -> None:
    client = filled(0)
    client.consume("q")
    client.consume("q")
    assert client.error()[:2] == (530, "NOT_ALLOWED - attempt to reuse consumer tag 't'")


def test_deleting_the_queue_cancels_its_consumers() -> None:
    client = filled(0)
    client.consume("q")
    client.take()
    client.say(2, "queue.delete", "q", False, False, False)
    assert client.names() == ["queue.delete-ok", "basic.cancel"]
    client.say(1, "basic.cancel", "t", False)
    assert client.names() == ["basic.cancel-ok"]


def test_who_does_not_understand_a_cancel_is_not_told() -> None:
    world = World()
    client = world.open(1, consumer_cancel_notify=False)
    client.declare("q")
    client.consume("q")
    client.take()
    client.say(1, "queue.delete", "q", False, False, False)
    assert client.names() == ["queue.delete-ok"]


def test_a_line_that_is_lost_gives_everything_back_in_order() -> None:
    world = World()
    client = filled(6, world)
    client.consume("q")
    client.take()
    client.gone()
    other = world.open(1)
    other.consume("q", no_ack=True)
    assert other.bodies() == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_failed_channel_gives_back_what_it_held() -> None:
    client = filled(3)
    client.consume("q")
    client.take()
    client.say(1, "basic.ack", 99, False)
    client.consume("q", "second", channel=2)
    assert client.bodies() == [b"0", b"1", b"2"]


def test_nothing_is_delivered_to_a_peer_that_does_not_read() -> None:
    world = World()
    client = filled(0, world)
    client.consume("q", no_ack=True)
    client.take()
    client.line.writable = False
    sender = world.open(1)
    for n in range(200):
        sender.publish("q", b"%d" % n)
    assert client.bodies() == []
    client.line.writable = True
    client.session.writable_again()
    assert client.bodies() == [b"%d" % n for n in range(200)]


def test_an_exclusive_consumer_is_alone() -> None:
    client = filled(0)
    client.consume("q", exclusive=True)
    client.consume("q", "second", channel=2)
    assert client.error()[:2] == (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")


def test_consumer_priorities() -> None:
    client = filled(0)
    client.consume("q", "low")
    client.consume("q", "high", channel=2, priority=5)
    client.take()
    client.publish("q")
    assert [(channel, name) for channel, name, _ in client.take()] == [(2, "basic.deliver")]


def test_large_bodies_are_cut_into_frames() -> None:
    world = World()
    client = world.client()
    client.connect()
    client.session.frame_max = client.session.decoder.frame_max = 131_072
    client.say(1, "channel.open")
    client.declare("q")
    client.publish("q", b"z" * 1_000_000)
    client.consume("q", no_ack=True)
    assert client.bodies() == [b"z" * 1_000_000]


# ------------------------------------------------------------------------------- the prefetch of the whole channel
def test_a_prefetch_for_consumers_lifts_that_of_the_channel() -> None:
    client = filled(5)
    client.qos(1, whole_channel=True)
    client.consume("q", "a")
    assert client.bodies() == [b"0"]
    client.qos(0)
    assert client.bodies() == [b"1", b"2", b"3", b"4"]


def test_what_is_got_counts_against_the_channel_only_if_it_is_there_when_the_bound_comes() -> None:
    client = filled(6)
    client.say(1, "basic.get", "q", False)
    client.qos(2, whole_channel=True)
    client.say(1, "basic.get", "q", False)
    client.take()
    client.consume("q")
    assert client.bodies() == [b"2"]
    client.say(1, "basic.ack", 1, False)  # got: makes no room
    assert client.bodies() == []
    client.say(1, "basic.ack", 3, False)
    assert client.bodies() == [b"3"]


def test_a_full_channel_gets_nothing_without_acknowledgement_either() -> None:
    client = filled(3)
    client.qos(1, whole_channel=True)
    client.consume("q", "a")
    assert client.bodies() == [b"0"]
    client.consume("q", "b", no_ack=True)
    assert client.bodies() == []


def test_a_quorum_queue_does_not_know_the_prefetch_of_the_channel() -> None:
    client = filled(0, queue_type="quorum")
    client.consume("q")
    client.qos(1, whole_channel=True)
    for n in range(3):
        client.publish("q", b"%d" % n)
    assert client.bodies() == [b"0", b"1", b"2"]


def test_several_queues_are_settled_by_name_and_what_was_got_first() -> None:
    client = World().open(1, 2)
    client.declare("dead")
    for name in ("b", "a"):
        client.declare(name, dead_letter_exchange="", dead_letter_routing_key="dead")
        client.publish(name, name.encode() + b"1")
        client.publish(name, name.encode() + b"2")
    client.qos(1)
    client.consume("a", "c")
    client.say(1, "basic.get", "b", False)
    client.say(1, "basic.get", "a", False)
    client.take()
    client.say(1, "basic.nack", 0, True, False)
    client.take()
    client.consume("dead", "d", no_ack=True)
    assert client.bodies() == [b"a2", b"a1", b"b1"]


def test_a_channel_is_found_full_only_when_something_is_there_for_it() -> None:
    client = filled(2)
    client.consume("q", "urgent", priority=5)
    client.take()
    client.qos(2, whole_channel=True)
    client.consume("q", "other", channel=2)
    client.say(1, "basic.recover", True)
    assert [args[0] for number, name, args in client.take() if name == "basic.deliver"] == ["urgent"] * 2
    client.publish("q", b"2", channel=2)  # it is full now, and so it goes to the other
    client.take()
    client.say(1, "basic.recover", True)
    assert [args[0] for number, name, args in client.take() if name == "basic.deliver"] == ["other"] * 2


def test_under_a_prefetch_of_the_channel_no_queue_is_left_behind() -> None:
    client = World().open(1)
    queues = ("a", "b", "c")
    for queue in queues:
        client.declare(queue)
        for _ in range(20):
            client.publish(queue, queue.encode())
    client.qos(1, whole_channel=True)
    for queue in queues:
        client.consume(queue, queue)
    got = client.bodies()
    for tag in range(1, 20):
        client.say(1, "basic.ack", tag, False)
        got += client.bodies()
    assert len(got) == 20
    assert set(got) == {b"a", b"b", b"c"}
