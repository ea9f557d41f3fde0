"""Channels: opening, errors and their scopes, closing from both sides."""

from __future__ import annotations

import pytest

from .kit import World


def test_a_method_on_a_channel_that_is_not_open_is_504() -> None:
    client = World().open(1)
    client.qos(1, channel=7)
    assert client.error() == (504, "CHANNEL_ERROR - expected 'channel.open'", (60, 10))


@pytest.mark.parametrize("name", ["channel.close", "channel.close-ok"])
def test_closing_what_is_not_open_is_504(name: str) -> None:
    client = World().open(1)
    client.say(9, name, *((200, "", 0, 0) if name == "channel.close" else ()))
    assert client.error()[:2] == (504, "CHANNEL_ERROR - expected 'channel.open'")


def test_opening_twice_is_504() -> None:
    client = World().open(1)
    client.say(1, "channel.open")
    assert client.error()[:2] == (504, "CHANNEL_ERROR - second 'channel.open' seen")


def test_more_channels_than_agreed_are_530() -> None:
    world = World()
    client = world.client()
    client.session.node = world.node
    client.connect()
    client.session.channel_max = 2
    for number in (1, 2, 3):
        client.say(number, "channel.open")
    code, text, _ = client.error()
    assert code == 530
    assert text == "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"


def test_a_channel_error_leaves_the_others_alone() -> None:
    client = World().open(1, 2)
    client.say(1, "basic.ack", 5, False)
    assert client.error() == (406, "PRECONDITION_FAILED - unknown delivery tag 5", (60, 80))
    client.declare("q", channel=2)
    assert client.names() == ["queue.declare-ok"]


def test_a_failed_channel_drops_all_until_close_ok_and_opens_again() -> None:
    client = World().open(1)
    client.say(1, "basic.ack", 5, False)
    client.take()
    client.declare("never")
    client.publish("q")
    assert client.take() == []
    client.say(1, "channel.close-ok")
    client.say(1, "channel.open")
    assert client.names() == ["channel.open-ok"]
    assert client.session.vhost.queues == {}


def test_both_sides_close_at_once() -> None:
    client = World().open(1)
    client.say(1, "basic.ack", 5, False)
    client.say(1, "channel.close", 200, "bye", 0, 0)
    client.say(1, "channel.close-ok")
    client.say(1, "channel.open")
    assert client.names() == ["channel.close", "channel.close-ok", "channel.open-ok"]


def test_reopening_before_close_ok_is_504() -> None:
    client = World().open(1)
    client.say(1, "basic.ack", 5, False)
    client.say(1, "channel.open")
    assert client.error()[:2] == (504, "CHANNEL_ERROR - second 'channel.open' seen")


def test_flow() -> None:
    client = World().open(1)
    client.say(1, "channel.flow", True)
    assert client.take() == [(1, "channel.flow-ok", (True,))]
    client.say(1, "channel.flow", False)
    assert client.error()[:2] == (540, "NOT_IMPLEMENTED - active=false")


@pytest.mark.parametrize("name", ["basic.qos-ok", "connection.close-ok", "queue.delete-ok"])
def test_a_method_that_makes_no_sense_on_a_channel_is_503(name: str) -> None:
    client = World().open(1)
    client.say(1, name, *((1,) if name == "queue.delete-ok" else ()))
    assert client.error()[:2] == (503, "COMMAND_INVALID - unimplemented method")


def test_a_queue_method_on_channel_0_is_504() -> None:
    client = World().open(1)
    client.declare("q", channel=0)
    assert client.error()[:2] == (504, "CHANNEL_ERROR - unexpected method in connection state running")


def test_access_is_answered_for_old_clients() -> None:
    client = World().open(1)
    client.say(1, "access.request", "/data", False, False, False, True, True)
    assert client.take() == [(1, "access.request-ok", (1,))]


def test_server_named_queues_and_the_last_one() -> None:
    client = World().open(1)
    client.say(1, "queue.declare", "", False, False, True, True, False, {})
    name = client.take()[0][2][0]
    assert name.startswith("amq.gen-")
    client.publish(name)
    client.say(1, "basic.get", "", True)
    assert client.names() == ["basic.get-ok"]


def test_no_last_queue_is_404() -> None:
    client = World().open(1)
    client.say(1, "queue.bind", "", "amq.direct", "k", False, {})
    assert client.error()[:2] == (404, "NOT_FOUND - no previously declared queue")


def test_streams_are_refused() -> None:
    client = World().open(1)
    client.declare("s", queue_type="stream")
    assert client.error()[0] == 406


def test_exclusive_queues_go_with_their_connection() -> None:
    world = World()
    owner, other = world.open(1), world.open(1)
    owner.say(1, "queue.declare", "mine", False, False, True, False, False, {})
    other.say(1, "queue.declare", "mine", True, False, False, False, False, {})
    assert other.error()[0] == 405
    owner.gone()
    third = world.open(1)
    third.say(1, "queue.declare", "mine", True, False, False, False, False, {})
    assert third.error()[:2] == (404, "NOT_FOUND - no queue 'mine' in vhost '/'")


def test_long_error_texts_fit_a_short_string() -> None:
    client = World().open(1)
    client.say(1, "queue.declare", "x" * 250, True, False, False, False, False, {})
    code, text, _ = client.error()
    assert code == 404
    assert len(text) == 255 and text.endswith("...")


def test_dialect_4_refuses_what_went() -> None:
    client = World(dialect="4").open(1, 2, 3)
    client.qos(5, whole_channel=True)
    assert client.error()[0] in (540, 541)
