"""Handshake, logins, heartbeats and the end of a connection: the table of `connection.py`."""

from __future__ import annotations

import pytest

from unimq.wire.amqp091 import method_frame
from unimq.wire.amqp091.spec import HEARTBEAT_FRAME, PROTOCOL_HEADER
from unimq.wire.amqp091.table import encode_table

from .kit import World


def test_another_protocol_is_shown_ours() -> None:
    for header in (b"AMQP\x00\x01\x00\x00", b"GET / HTTP/1.1\r\n"):
        client = World().client()
        client.send(header)
        assert b"".join(client.session.out) == PROTOCOL_HEADER
        assert client.line.ended == "closed"


def test_start_says_what_rabbitmq_says() -> None:
    client = World().client()
    client.send(PROTOCOL_HEADER)
    ((_, name, (major, minor, properties, mechanisms, locales)),) = client.take()
    assert (name, major, minor, mechanisms, locales) == (
        "connection.start",
        0,
        9,
        b"AMQPLAIN PLAIN",
        b"en_US",
    )
    assert properties["product"] == "RabbitMQ"
    assert properties["version"].startswith("3.")
    assert properties["capabilities"]["publisher_confirms"] is True


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b"\x00guest\x00guest"),
        ("AMQPLAIN", encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]),
    ],
)
def test_logins(mechanism: str, response: bytes) -> None:
    client = World().client()
    client.send(PROTOCOL_HEADER)
    client.login(mechanism, response)
    assert client.take()[-1] == (0, "connection.tune", (2047, 131_072, 60))


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_a_wrong_password_is_403_for_who_understands_it(mechanism: str) -> None:
    wrong = (
        b"\x00guest\x00wrong" if mechanism == "PLAIN" else encode_table({"LOGIN": "x", "PASSWORD": "y"})[4:]
    )
    client = World().client()
    client.send(PROTOCOL_HEADER)
    client.login(mechanism, wrong)
    code, text, _ = client.error()
    assert code == 403
    assert text == (
        f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
        "For details see the broker logfile."
    )


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b"nonsense"),
        ("AMQPLAIN", b"\xff\xff"),
        ("EXTERNAL", b""),
        ("SCRAM", b""),
        ("PLAIN", b"\x00a\x00b"),
    ],
)
def test_other_failed_logins_end_the_line(mechanism: str, response: bytes) -> None:
    client = World().client(authentication_failure_close=False)
    client.send(PROTOCOL_HEADER)
    client.take()
    client.login(mechanism, response)
    assert client.take() == []
    assert client.line.ended == "closed"


def test_external_takes_the_certificates_name() -> None:
    client = World().client(certificate_name="other")
    client.send(PROTOCOL_HEADER)
    assert client.take()[0][2][3] == b"EXTERNAL AMQPLAIN PLAIN"
    client.login("EXTERNAL", b"")
    assert client.names() == ["connection.tune"]
    assert client.session.user == "other"


def test_a_certificate_for_no_user_is_403() -> None:
    client = World().client(certificate_name="nobody here")
    client.send(PROTOCOL_HEADER)
    client.login("EXTERNAL", b"")
    assert client.error()[0] == 403


@pytest.mark.parametrize(
    "tune", [(2047, 0, 0), (2047, 4095, 0), (2047, 200_000, 0), (0, 131_072, 0), (2048, 131_072, 0)]
)
def test_a_tuning_beyond_what_was_proposed_ends_the_line(tune: tuple[int, int, int]) -> None:
    client = World().client()
    client.send(PROTOCOL_HEADER)
    client.login()
    client.say(0, "connection.tune-ok", *tune)
    assert client.line.ended == "closed"


def test_an_unknown_vhost_is_530() -> None:
    client = World().client()
    client.connect("nowhere")
    assert client.error() == (530, "NOT_ALLOWED - vhost nowhere not found", (10, 40))


def test_vhosts_are_apart() -> None:
    world = World(vhosts=("/", "other"))
    world.open().declare("q")
    there = world.client()
    there.connect("other")
    there.say(1, "channel.open")
    there.say(1, "queue.declare", "q", True, False, False, False, False, {})
    assert there.error()[:2] == (404, "NOT_FOUND - no queue 'q' in vhost 'other'")


def test_a_handshake_that_does_not_go_on_is_cut() -> None:
    client = World().client()
    client.send(PROTOCOL_HEADER[:3])
    client.line.pass_time(10.1)
    assert client.line.ended == "cut"


def test_methods_in_the_wrong_state() -> None:
    early = World().client()
    early.send(PROTOCOL_HEADER)
    early.take()
    early.say(0, "connection.open", "/")
    assert early.line.ended == "closed"
    running = World().open()
    running.say(0, "connection.open", "/")
    assert running.error() == (504, "CHANNEL_ERROR - unexpected method in connection state running", (10, 40))


def test_close_is_answered_and_ends_the_line() -> None:
    client = World().open()
    client.say(0, "connection.close", 200, "bye", 0, 0)
    assert client.names() == ["connection.close-ok"]
    assert client.line.ended == "closed"


def test_after_an_error_only_close_ok_counts() -> None:
    client = World().open()
    client.say(1, "basic.qos", 7, 0, False)
    assert client.error()[0] == 540
    client.declare("never")
    client.send(b"garbage that is no frame")
    assert client.take() == []
    goodbye = method_frame(0, "connection.close-ok")
    client.send(goodbye[:5])
    assert client.line.ended is None
    client.send(goodbye[5:])
    assert client.line.ended == "closed"


def test_a_peer_that_never_says_close_ok_is_closed_after_a_while() -> None:
    client = World().open()
    client.send(b"\x09" * 20)
    assert client.error()[0] == 501
    client.line.pass_time(30.1)
    assert client.line.ended == "closed"


def test_heartbeats_are_sent_when_idle() -> None:
    world = World()
    client = world.client()
    client.connect(heartbeat_s=10)
    client.take()
    client.line.pass_time(5.0)
    assert client.names() == ["heartbeat"]


def test_a_silent_peer_is_cut_and_one_that_beats_is_not() -> None:
    world = World()
    silent, alive = world.client(), world.client()
    for client in (silent, alive):
        client.connect(heartbeat_s=10)
    for _ in range(10):
        silent.line.pass_time(4.0)
        alive.line.pass_time(4.0)
        alive.send(HEARTBEAT_FRAME)
    assert (silent.line.ended, alive.line.ended) == ("cut", None)


def test_a_slow_reader_that_still_reads_is_not_cut() -> None:
    """We do not read it while it does not take what we wrote: its reading is its sign of life."""
    slow, dead = World().client(), World().client()
    for client in (slow, dead):
        client.connect(heartbeat_s=10)
        client.line.pause_reading("output")
        client.line.waiting = 1_000_000
        client.line.writable = False
    for _ in range(20):
        slow.line.waiting -= 1000
        slow.line.pass_time(5.0)
        dead.line.pass_time(5.0)
    assert (slow.line.ended, dead.line.ended) == (None, "cut")


def test_update_secret_is_answered() -> None:
    client = World().open()
    client.say(0, "connection.update-secret", b"anything", "token renewed")
    assert client.names() == ["connection.update-secret-ok"]


def test_a_fault_of_ours_ends_one_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    unlucky, other = world.open(), world.open()

    def broken(*_args: object, **_named: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(unlucky.session.channels[1], "receive", broken)
    unlucky.declare("q")
    assert unlucky.error()[:2] == (541, "INTERNAL_ERROR")
    other.declare("q")
    assert other.names() == ["queue.declare-ok"]
