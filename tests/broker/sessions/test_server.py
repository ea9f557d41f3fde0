"""The server on real sockets: crowds, peers that stall, time, TLS, and the real pika both ways."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest
import trustme

from unimq import broker
from unimq.broker.limits import OUTPUT_HIGH_BYTES
from unimq.broker.server import Broker
from unimq.broker.sessions.amqp091.limits import PENDING_MAX_BYTES
from unimq.wire.amqp091 import Decoder, content_frames, method_frame
from unimq.wire.amqp091.spec import PROTOCOL_HEADER

WAIT_MAX_S = 20.0


@pytest.fixture(scope="module")
def running() -> Iterator[Broker]:
    with broker.run(amqp=0) as made:
        yield made


def address(made: Broker) -> tuple[str, int]:
    parts = urlsplit(made.urls["amqp"])
    assert parts.hostname and parts.port
    return parts.hostname, parts.port


def dial(made: Broker) -> socket.socket:
    return socket.create_connection(address(made), timeout=WAIT_MAX_S)


def until(check: Callable[[], bool], what: str) -> None:
    """Asks again and again; the broker's own answers are the clock, the limit is hard."""
    deadline = time.monotonic() + WAIT_MAX_S
    while not check():
        assert time.monotonic() < deadline, f"not within {WAIT_MAX_S:g} s: {what}"
        threading.Event().wait(0.01)


def connect(made: Broker, **options: Any) -> pika.BlockingConnection:
    parameters = pika.URLParameters(made.urls["amqp"])
    for name, value in options.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


class Raw:
    """An AMQP client with an open channel 1, that reads only when told to."""

    def __init__(self, made: Broker) -> None:
        self.socket = dial(made)
        self._decoder = Decoder(expect_protocol_header=False)
        self._decoder.frame_max = 0
        self._decoder.channels = {1}
        self.send(PROTOCOL_HEADER)
        self.until("connection.start")
        self.send(method_frame(0, "connection.start-ok", {}, "PLAIN", b"\x00guest\x00guest", "en_US"))
        self.until("connection.tune")
        self.send(method_frame(0, "connection.tune-ok", 2047, 131_072, 0))
        self.send(method_frame(0, "connection.open", "/") + method_frame(1, "channel.open"))
        self.until("channel.open-ok")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, name: str) -> Any:
        while data := self.socket.recv(65_536):
            for _, found, args in self._decoder.feed(data):
                if found == name:
                    return args
        raise AssertionError(f"the line ended before {name}")

    def declare(self, queue: str) -> None:
        self.send(method_frame(1, "queue.declare", queue, False, False, False, False, False, {}))
        self.until("queue.declare-ok")


def serves(made: Broker) -> None:
    """A newcomer can declare, publish, confirm and get."""
    with connect(made) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", name, b"alive", mandatory=True)
        assert channel.basic_get(name, auto_ack=True)[2] == b"alive"


def test_blocking_pika(running: Broker) -> None:
    with connect(running) as connection:
        channel = connection.channel()
        channel.queue_declare("blocking")
        channel.confirm_delivery()
        for n in range(20):
            channel.basic_publish("", "blocking", b"%d" % n, pika.BasicProperties(headers={"n": n}))
        got = []
        for method, properties, body in channel.consume("blocking", inactivity_timeout=WAIT_MAX_S):
            assert method is not None
            got.append((properties.headers["n"], body))
            channel.basic_ack(method.delivery_tag)
            if len(got) == 20:
                break
        assert got == [(n, b"%d" % n) for n in range(20)]
        with pytest.raises(pika.exceptions.UnroutableError):
            channel.basic_publish("", "nowhere", b"", mandatory=True)


def test_select_pika_pipelines(running: Broker) -> None:
    count = 3000
    acked, got = [0], []
    failed: list[BaseException] = []

    def opened(connection: Any) -> None:
        connection.channel(
            on_open_callback=lambda channel: channel.queue_declare("select", callback=declared(channel))
        )

    def declared(channel: Any) -> Callable[[Any], None]:
        def go(_frame: Any) -> None:
            channel.confirm_delivery(confirmed)
            channel.basic_consume("select", arrived)
            for n in range(count):
                channel.basic_publish("", "select", b"%d" % n)

        return go

    def confirmed(frame: Any) -> None:
        acked[0] = frame.method.delivery_tag

    def arrived(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        got.append(int(body))
        channel.basic_ack(method.delivery_tag)
        if len(got) == count:
            channel.connection.close()

    def closed(connection: Any, error: BaseException) -> None:
        failed.append(error)
        connection.ioloop.stop()

    connection = pika.SelectConnection(
        pika.URLParameters(running.urls["amqp"]),
        on_open_callback=opened,
        on_open_error_callback=closed,
        on_close_callback=closed,
    )
    connection.ioloop.call_later(WAIT_MAX_S, connection.ioloop.stop)
    connection.ioloop.start()
    connection.ioloop.close()
    assert got == list(range(count))
    assert acked == [count]
    assert isinstance(failed[0], pika.exceptions.ConnectionClosedByClient)


def test_a_wrong_password_is_refused(running: Broker) -> None:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="403"):
        connect(running, credentials=pika.PlainCredentials("guest", "wrong"))


def test_the_clock_moves_what_expires(running: Broker) -> None:
    with connect(running) as connection:
        channel = connection.channel()
        channel.queue_declare("timed", arguments={"x-message-ttl": 60_000, "x-expires": 600_000})
        channel.basic_publish("", "timed", b"old")
        until(lambda: channel.queue_declare("timed", passive=True).method.message_count == 1, "stored")
        running.clock.advance(61)
        assert channel.queue_declare("timed", passive=True).method.message_count == 0
        running.clock.advance(601)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
            channel.queue_declare("timed", passive=True)


def test_time_passes_by_itself(running: Broker) -> None:
    """Nobody asks and nobody advances: the dead letter comes to its consumer because the loop wakes up for it."""
    with connect(running) as connection:
        channel = connection.channel()
        channel.queue_declare("late", exclusive=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "late"}
        channel.queue_declare("soon", exclusive=True, arguments=arguments)
        channel.basic_publish("", "soon", b"x", pika.BasicProperties(expiration="50"))
        method, _, body = next(channel.consume("late", auto_ack=True, inactivity_timeout=WAIT_MAX_S))
        assert method is not None and body == b"x"


# --------------------------------------------------------------------------------------------------- bad peers
def test_a_thousand_connections(running: Broker) -> None:
    before = running.call(lambda: len(running.peers))
    crowd = [dial(running) for _ in range(1000)]
    try:
        until(lambda: running.call(lambda: len(running.peers)) >= before + 1000, "1,000 connections")
        serves(running)
    finally:
        for each in crowd:
            each.close()
    until(lambda: running.call(lambda: len(running.peers)) <= before, "they are gone")


def test_a_half_written_frame_disturbs_nobody(running: Broker) -> None:
    client = Raw(running)
    client.send(struct.pack(">BHI", 1, 1, 100_000) + b"\x00\x32\x00\x0a")
    serves(running)
    client.socket.close()
    serves(running)


def largest_output(made: Broker) -> int:
    return made.call(lambda: max((peer._transport.get_write_buffer_size() for peer in made.peers), default=0))


def test_a_consumer_that_never_reads_is_not_delivered_to_without_bound(running: Broker) -> None:
    client = Raw(running)
    client.declare("unread")
    client.send(method_frame(1, "basic.consume", "unread", "t", False, True, False, False, {}))
    client.until("basic.consume-ok")
    with connect(running) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for _ in range(40):
            channel.basic_publish("", "unread", b"x" * 1_000_000)
        assert channel.queue_declare("unread", passive=True).method.message_count > 0
        assert largest_output(running) <= OUTPUT_HIGH_BYTES + PENDING_MAX_BYTES + 2_000_000
        serves(running)
        client.socket.close()
        channel.queue_delete("unread")


def test_a_slow_reader_gets_everything(running: Broker) -> None:
    client = Raw(running)
    client.declare("slow")
    with connect(running) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for n in range(300):
            channel.basic_publish("", "slow", b"%d" % n + b"y" * 50_000)
    client.send(method_frame(1, "basic.consume", "slow", "t", False, True, False, False, {}))
    client.socket.settimeout(WAIT_MAX_S)
    decoder = Decoder(expect_protocol_header=False)
    decoder.frame_max, decoder.channels = 0, {1}
    got: list[int] = []
    while len(got) < 300:
        for _, name, args in decoder.feed(client.socket.recv(8192)):
            if name == "basic.deliver":
                got.append(int(args[-1][: args[-1].index(b"y")]))
    assert got == list(range(300))
    client.socket.close()


def test_a_peer_that_asks_and_never_reads_is_not_answered_without_bound(running: Broker) -> None:
    """20,000 gets of 100 KB: 2 GB of answers to a few hundred KB of questions."""
    client = Raw(running)
    client.declare("large")
    client.send(
        method_frame(1, "basic.publish", "", "large", False, False)
        + content_frames(1, b"\x00\x00", b"z" * 100_000, 131_072)
    )
    question = method_frame(1, "basic.get", "large", False) + method_frame(1, "basic.recover-async", True)
    client.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        for _ in range(400):
            client.send(question * 1000)
    assert largest_output(running) <= OUTPUT_HIGH_BYTES + PENDING_MAX_BYTES + 200_000
    serves(running)
    client.socket.close()


def test_a_line_that_is_cut_gives_back_what_it_held(running: Broker) -> None:
    client = Raw(running)
    client.declare("held")
    client.send(
        method_frame(1, "basic.publish", "", "held", False, False) + content_frames(1, b"\x00\x00", b"m", 0)
    )
    client.send(method_frame(1, "basic.consume", "held", "t", False, False, False, False, {}))
    client.until("basic.deliver")
    client.socket.close()
    with connect(running) as connection:
        channel = connection.channel()
        method, _, body = next(channel.consume("held", auto_ack=True, inactivity_timeout=WAIT_MAX_S))
        assert method.redelivered and body == b"m"


# -------------------------------------------------------------------------------------------------------- TLS
@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = ca.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    with broker.run(
        amqp=0,
        users={"guest": "guest", "robot": "none of a password"},
        tls_cert=str(folder / "cert.pem"),
        tls_key=str(folder / "key.pem"),
        tls_client_ca=str(folder / "ca.pem"),
        tls_ca=str(folder / "ca.pem"),
    ) as made:
        yield made


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def secured(made: Broker, context: ssl.SSLContext, credentials: Any) -> pika.ConnectionParameters:
    host, port = address(made)
    return pika.ConnectionParameters(
        host,
        port,
        credentials=credentials,
        ssl_options=pika.SSLOptions(context, host),
        socket_timeout=WAIT_MAX_S,
    )


def test_tls(secure: Broker, ca: trustme.CA) -> None:
    assert secure.urls["amqp"].startswith("amqps://") and "ca=" in secure.urls["amqp"]
    parameters = secured(secure, trusting(ca), pika.PlainCredentials("guest", "guest"))
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare("tls")
        channel.basic_publish("", "tls", b"x" * 1_000_000)
        assert len(channel.basic_get("tls", auto_ack=True)[2]) == 1_000_000


def test_tls_with_a_strange_ca_is_refused_by_the_client(secure: Broker) -> None:
    parameters = secured(secure, trusting(trustme.CA()), pika.PlainCredentials("guest", "guest"))
    with pytest.raises(ssl.SSLCertVerificationError):
        pika.BlockingConnection(parameters)


def test_external_needs_a_certificate(secure: Broker, ca: trustme.CA) -> None:
    with_certificate = trusting(ca)
    ca.issue_cert(common_name="robot").configure_cert(with_certificate)
    parameters = secured(secure, with_certificate, pika.credentials.ExternalCredentials())
    with pika.BlockingConnection(parameters):
        users = secure.call(lambda: [peer.session.user for peer in secure.peers])  # type: ignore[union-attr]
        assert "robot" in users
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(secured(secure, trusting(ca), pika.credentials.ExternalCredentials()))


# ------------------------------------------------------------------------------------------------------ its life
def test_two_brokers_live_side_by_side_and_end() -> None:
    with broker.run(amqp=0) as first, broker.run(amqp=0) as second:
        with connect(first) as connection:
            connection.channel().queue_declare("only-here")
        with connect(second) as connection, pytest.raises(pika.exceptions.ChannelClosedByBroker):
            connection.channel().queue_declare("only-here", passive=True)
        gone = address(second)
    with pytest.raises(OSError):
        socket.create_connection(gone, timeout=WAIT_MAX_S)
    second.close()


def test_a_restart_keeps_what_is_durable_and_nothing_else() -> None:
    with broker.run(amqp=0) as made:
        with connect(made) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("durable", durable=True)
            channel.queue_declare("passing")
            channel.exchange_declare("fleeting")
            for mode in (1, 2):
                channel.basic_publish("", "durable", b"%d" % mode, pika.BasicProperties(delivery_mode=mode))
            made.restart()
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                connection.process_data_events(WAIT_MAX_S)
        with connect(made) as connection:
            for look in ("passing", "fleeting"):
                channel = connection.channel()
                with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
                    declare = channel.queue_declare if look == "passing" else channel.exchange_declare
                    declare(look, passive=True)
            channel = connection.channel()
            assert [channel.basic_get("durable", auto_ack=True)[2] for _ in range(2)] == [b"2", None]


def test_a_port_in_use_is_said() -> None:
    with broker.run(amqp=0) as first, pytest.raises(OSError):
        broker.run(amqp=address(first)[1])


def test_an_unknown_listener_is_a_mistake_of_the_caller() -> None:
    for options in ({"amqp": None}, {"smtp": 0}):
        with pytest.raises(TypeError, match="amqp"):
            broker.run(**options)
