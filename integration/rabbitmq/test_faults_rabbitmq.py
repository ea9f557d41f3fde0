"""The driver when things break: logins, silent hosts, cuts, alarms, rights. A broker of the module's own where it is hurt."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika.exceptions import AMQPError

from integration.native import RabbitMQ
from integration.rabbitmq.seam import Events, Result, batch, connect, declare, depth, send, settle, take
from integration.sources import Broker, host_and_port
from unimq import Queue, Retry, Subscription, Topic
from unimq.driver import Blocked, Lost, Op, Password, ReceiverOptions, SenderOptions, Unblocked
from unimq.errors import AuthenticationFailed, ConnectionFailed, NotFound, PermissionDenied, UnimqError
from unimq.testing.proxy import FaultProxy
from unimq.url import UrlError
from unimq_rabbitmq import ADAPTER

Name = Callable[[str], str]


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("unimq-rabbitmq")]


def failed_connect(url: str, **options: Any) -> tuple[UnimqError, float]:
    started = time.monotonic()
    with pytest.raises(Exception) as caught:  # the library's own, whatever it is
        connect(url, **options)
    took_s = time.monotonic() - started
    assert ours() == []
    return ADAPTER.classify(caught.value, op=Op.CONNECT, handed_over=False), took_s


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that accepts and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def proxied(rabbitmq: Broker) -> Iterator[FaultProxy]:
    with FaultProxy(*host_and_port(rabbitmq.url)) as proxy:
        yield proxy


# ------------------------------------------------------------------------------------------------------- connecting
def test_a_wrong_password_fails_at_once_and_hides_itself(rabbitmq: Broker) -> None:
    hosts = rabbitmq.url.partition("@")[2].rstrip("/")
    fault, took_s = failed_connect(f"amqp://guest:marked-secret@{hosts},127.0.0.1:1/")
    assert isinstance(fault, AuthenticationFailed)
    assert took_s < 3.0
    assert "marked-secret" not in f"{fault!r} {fault} {fault.cause!r}"


def test_a_credential_is_asked(rabbitmq: Broker) -> None:
    host = rabbitmq.url.partition("@")[2]
    connection = connect(f"amqp://{host}", credential=lambda: Password("guest", "guest"))
    connection.close(5.0)


def test_a_missing_vhost_is_not_found(rabbitmq: Broker) -> None:
    fault, _ = failed_connect(rabbitmq.url + "nowhere")
    assert isinstance(fault, NotFound)


@pytest.mark.parametrize("path", ["", "/", "/%2F"])
def test_vhosts_are_read_as_pika_reads_them(rabbitmq: Broker, path: str) -> None:
    connect(rabbitmq.url.rstrip("/") + path).close(5.0)


def test_a_silent_host_is_given_up_within_the_bound(silent: str) -> None:
    fault, took_s = failed_connect(f"amqp://{silent}/", connect_timeout_s=1.0)
    assert isinstance(fault, ConnectionFailed)
    assert took_s < 2.5


def test_the_next_host_is_tried(rabbitmq: Broker, silent: str) -> None:
    host = rabbitmq.url.partition("@")[2].rstrip("/")
    started = time.monotonic()
    connect(f"amqp://guest:guest@127.0.0.1:1,{silent},{host}/", connect_timeout_s=3.0).close(5.0)
    assert time.monotonic() - started < 3.5


def test_what_is_not_known_is_refused_by_name(rabbitmq: Broker) -> None:
    for url, options, word in (
        (rabbitmq.url + "?nope=1", {}, "nope"),
        (rabbitmq.url, {"native": {"hearbeat": 1}}, "hearbeat"),
        (rabbitmq.url, {"native": {"heartbeat": "often"}}, "heartbeat"),
        (rabbitmq.url + "?mechanism=NTLM", {}, "NTLM"),
    ):
        with pytest.raises(UrlError, match=word):
            connect(url, **options)


# ------------------------------------------------------------------------------------------------------------- cuts
def test_a_cut_completes_everything_then_says_lost_once(
    rabbitmq: Broker, proxied: FaultProxy, unique: Name
) -> None:
    events = Events()
    connection = connect(proxied.url(rabbitmq.url), events)
    queue = Queue(unique("cut"))
    declare(connection, queue)
    sender = connection.sender(queue, SenderOptions())
    assert send(sender, [b"x"] * 5).failures is None
    receiver = connection.receiver(queue, ReceiverOptions())
    taken = take(receiver, 5)
    proxied.silence()
    sent, settled, flushed = Result(), Result(), Result()
    sender.submit(batch([b"y"] * 3), sent)
    receiver.settle(taken[:2], _ack(), settled)
    receiver.flush(flushed)
    proxied.cut()
    failures = sent.get().failures
    assert set(failures) == {0, 1, 2}
    assert all(failed.handed_over for failed in failures.values())
    assert list(settled.get().lost) == taken[:2]
    flushed.get()
    assert events.wait(Lost).link is None
    with pytest.raises(AMQPError):
        receiver.receive(1, 1.0)
    late, last = Result(), Result()
    assert sender.submit(batch([b"z"]), late) == 1
    assert late.get().failures[0].handed_over is False
    receiver.settle(taken[2:], _ack(), last)
    assert list(last.get().lost) == taken[2:]
    connection.close(2.0)
    assert [event for event in events if isinstance(event, Lost)] == [events.wait(Lost)]
    assert ours() == []


def test_close_is_bounded_when_the_peer_is_silent(
    rabbitmq: Broker, proxied: FaultProxy, unique: Name
) -> None:
    connection = connect(proxied.url(rabbitmq.url))
    queue = Queue(unique("silent"))
    declare(connection, queue)
    sender, receiver = (
        connection.sender(queue, SenderOptions()),
        connection.receiver(queue, ReceiverOptions()),
    )
    assert send(sender, [b"x"]).failures is None
    taken = take(receiver, 1)
    proxied.silence()
    sent, settled = Result(), Result()
    sender.submit(batch([b"y"]), sent)
    receiver.settle(taken, _ack(), settled)
    started = time.monotonic()
    connection.close(2.0)
    assert time.monotonic() - started < 6.0
    assert sent.get(1.0).failures[0].handed_over
    assert list(settled.get(1.0).lost) == taken
    assert ours() == []


def test_a_half_open_peer_is_found_by_its_heartbeat(rabbitmq: Broker, proxied: FaultProxy) -> None:
    events = Events()
    connection = connect(proxied.url(rabbitmq.url) + "?heartbeat=1", events)
    proxied.silence()
    assert events.wait(Lost, 15.0).link is None
    connection.close(1.0)


def test_the_peer_is_lost_while_somebody_waits_in_receive(
    rabbitmq: Broker, proxied: FaultProxy, unique: Name
) -> None:
    connection = connect(proxied.url(rabbitmq.url))
    queue = Queue(unique("waiting"))
    declare(connection, queue)
    receiver = connection.receiver(queue, ReceiverOptions())
    threading.Timer(0.2, proxied.cut).start()
    started = time.monotonic()
    with pytest.raises(AMQPError):
        receiver.receive(1, 10.0)
    assert time.monotonic() - started < 5.0
    connection.close(1.0)


def test_settlements_before_a_barrier_are_not_lost_with_the_line(
    rabbitmq: Broker, proxied: FaultProxy, unique: Name
) -> None:
    connection = connect(proxied.url(rabbitmq.url))
    queue = Queue(unique("barrier"))
    declare(connection, queue)
    assert send(connection.sender(queue, SenderOptions()), [b"x"] * 10).failures is None
    receiver = connection.receiver(queue, ReceiverOptions())
    assert list(settle(receiver, take(receiver, 10)[:7]).lost) == []
    proxied.cut()
    connection.close(1.0)
    direct = connect(rabbitmq.url)
    assert depth(direct, queue, 3) == 3
    direct.close(5.0)


def test_many_cycles_leave_nothing(rabbitmq: Broker, unique: Name) -> None:
    queue = Queue(unique("cycles"))
    for _ in range(10):
        connection = connect(rabbitmq.url)
        declare(connection, queue)
        send(connection.sender(queue, SenderOptions()), [b"x"])
        take(connection.receiver(queue, ReceiverOptions()), 1)
        connection.close(5.0)
        connection.close(5.0)
    assert ours() == []


# --------------------------------------------------------------------------------------------- the broker is hurt
def test_an_alarm_blocks_and_unblocks(own_rabbitmq: RabbitMQ, unique: Name) -> None:
    events = Events()
    connection = connect(own_rabbitmq.url, events)
    queue = Queue(unique("alarm"))
    declare(connection, queue)
    sender, receiver = (
        connection.sender(queue, SenderOptions()),
        connection.receiver(queue, ReceiverOptions()),
    )
    assert send(sender, [b"before"]).failures is None
    own_rabbitmq.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
    try:
        trigger = Result()
        sender.submit(batch([b"trigger"]), trigger)
        assert "memory" in events.wait(Blocked).reason
        late, patient = Result(), Result()
        assert sender.submit(batch([b"late"], deadline_s=0.3), late) == 1
        assert sender.submit(batch([b"patient"], deadline_s=60), patient) == 1
        assert late.get(5.0).failures[0].handed_over is False
        settle(receiver, take(receiver, 1))  # the consuming side is not blocked
        assert not patient.done
    finally:
        own_rabbitmq.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    events.wait(Unblocked)
    assert patient.get().failures is None
    assert trigger.get().failures is None
    assert sorted(d.body or b"" for d in take(receiver, 2)) == [b"patient", b"trigger"]
    connection.close(5.0)


def test_the_broker_closes_all_connections(own_rabbitmq: RabbitMQ, unique: Name) -> None:
    events = Events()
    connection = connect(own_rabbitmq.url, events)
    queue = Queue(unique("closed"))
    declare(connection, queue)
    connection.receiver(queue, ReceiverOptions())
    own_rabbitmq.rabbitmqctl("close_all_connections", "maintenance")
    lost = events.wait(Lost)
    assert isinstance(ADAPTER.classify(lost.error, op=Op.RECEIVE, handed_over=False), ConnectionFailed)
    connection.close(2.0)


def test_without_configure_rights_all_but_declaring_works(own_rabbitmq: RabbitMQ, unique: Name) -> None:
    owner = connect(own_rabbitmq.url)
    sub = Subscription(Topic(unique("t")), "s")
    plan = ADAPTER.plan(sub, Retry(delayed_s=(0.2,)), owner.facts)
    owner.declare(plan.topology, verify_only=False)
    poor = connect(own_rabbitmq.add_user(unique("poor"), "pw"))
    receiver = poor.receiver(sub, ReceiverOptions())
    assert send(poor.sender(sub.topic, SenderOptions()), [b"x"]).failures is None
    assert send(poor.sender(plan.retry(0.2), SenderOptions()), [b"later"]).failures is None
    settle(receiver, take(receiver, 2))
    assert poor.stats(sub).depth == 0
    with pytest.raises(Exception, match="ACCESS_REFUSED") as caught:
        declare(poor, Queue(unique("no")))
    fault = ADAPTER.classify(caught.value, op=Op.DECLARE, handed_over=False)
    assert isinstance(fault, PermissionDenied)
    assert "configure" in str(fault)
    for connection in (poor, owner):
        connection.close(5.0)


def _ack() -> Any:
    from unimq.driver import Ack

    return Ack()
