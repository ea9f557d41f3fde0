"""Each real broker with its own client library: it takes a message and gives it back, and comes back after a fault."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.native import BrokerFailed, NativeBroker, RabbitMQ
from integration.native._process import free_ports
from integration.sources import Broker, probe

LIMIT_S = 20.0
RESTARTS_S = 180.0
SILENCE_S = 0.3


def test_rabbitmq(rabbitmq: Broker, unique: Callable[[str], str]) -> None:
    assert _rabbitmq_round_trip(rabbitmq.url, unique("up")) == b"hello"


def test_kafka(kafka: Broker, unique: Callable[[str], str]) -> None:
    assert _kafka_round_trip(kafka.url, unique("up")) == b"hello"


def test_artemis(artemis: Broker, unique: Callable[[str], str]) -> None:
    anycast = {"destination-type": "ANYCAST"}
    assert _stomp_round_trip(artemis.url, unique("up"), anycast, {"subscription-type": "ANYCAST"}) == "hello"


def test_artemis_is_a_fresh_one_without_prefixes(artemis: Broker, unique: Callable[[str], str]) -> None:
    # Without an anycastPrefix "/queue/x" is an address of that very name.
    name = "/queue/" + unique("up")
    anycast = {"destination-type": "ANYCAST"}
    assert _stomp_round_trip(artemis.url, name, anycast, {"subscription-type": "ANYCAST"}) == "hello"


def test_classic(classic: Broker, unique: Callable[[str], str]) -> None:
    assert _stomp_round_trip(classic.url, "/queue/" + unique("up"), {}, {}) == "hello"


def test_classic_has_its_scheduler(classic: Broker, unique: Callable[[str], str]) -> None:
    began = time.monotonic()
    delayed = {"AMQ_SCHEDULED_DELAY": "500"}
    assert _stomp_round_trip(classic.url, "/queue/" + unique("up"), delayed, {}) == "hello"
    assert time.monotonic() - began >= 0.45


@pytest.mark.timeout(RESTARTS_S, func_only=True)
@pytest.mark.parametrize("name", ["rabbitmq", "kafka", "artemis", "classic"])
def test_restart_keeps_the_port_and_pause_keeps_the_connection(
    name: str, own_broker: Callable[[str], NativeBroker]
) -> None:
    broker = own_broker(name)
    where = urlsplit(broker.url)
    assert where.hostname is not None
    address = (where.hostname, where.port)
    for graceful in (True, False):
        broker.go_down(graceful=graceful)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, LIMIT_S).close()
        broker.come_up()
        probe(broker.url)
    broker.pause()
    with socket.create_connection(address, LIMIT_S) as sock:
        sock.sendall(b"CONNECT\n\n\0")
        sock.settimeout(SILENCE_S)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    broker.resume()
    probe(broker.url)


def test_rabbitmq_user_without_the_right_to_configure(own_rabbitmq: RabbitMQ) -> None:
    import pika
    from pika.exceptions import ChannelClosedByBroker

    url = own_rabbitmq.add_user("sender", "secret")
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.queue_declare("forbidden")


def test_rabbitmq_keeps_durable_messages_over_a_restart(
    own_rabbitmq: RabbitMQ, unique: Callable[[str], str]
) -> None:
    name = unique("durable")
    with _pika_channel(own_rabbitmq.url) as channel:
        channel.confirm_delivery()
        channel.queue_declare(name, durable=True)
        channel.basic_publish("", name, b"kept", _persistent(), mandatory=True)
    own_rabbitmq.restart()
    with _pika_channel(own_rabbitmq.url) as channel:
        assert channel.basic_get(name, auto_ack=True)[2] == b"kept"


def test_rabbitmqctl_that_fails_says_why(own_rabbitmq: RabbitMQ) -> None:
    assert "guest" in own_rabbitmq.rabbitmqctl("list_users")
    with pytest.raises(BrokerFailed, match="nobody"):
        own_rabbitmq.rabbitmqctl("delete_user", "nobody")


def test_a_url_that_nobody_answers_is_an_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ConnectionRefusedError):
        probe(f"amqp://127.0.0.1:{port}/")


def test_a_url_of_another_broker_is_an_error(rabbitmq: Broker) -> None:
    port = urlsplit(rabbitmq.url).port
    # It answers in its own words and closes; which of the two is seen first is the network's.
    with pytest.raises(ConnectionError):
        probe(f"stomp://127.0.0.1:{port}/")


def test_a_silent_url_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        probe(f"amqp://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=SILENCE_S)


# -- the clients themselves -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _pika_channel(url: str) -> Iterator[Any]:
    import pika

    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        yield connection.channel()


def _persistent() -> Any:
    import pika

    return pika.BasicProperties(delivery_mode=2)


def _rabbitmq_round_trip(url: str, name: str) -> bytes:
    with _pika_channel(url) as channel:
        channel.confirm_delivery()
        channel.queue_declare(name)
        channel.basic_publish("", name, b"hello", mandatory=True)
        body = channel.basic_get(name, auto_ack=True)[2]
        channel.queue_delete(name)
        assert isinstance(body, bytes)
        return body


def _kafka_round_trip(url: str, name: str) -> bytes:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": urlsplit(url).netloc}
    admin = AdminClient(servers)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(LIMIT_S)
    producer = Producer({**servers, "enable.idempotence": True})
    producer.produce(name, b"hello")
    assert producer.flush(LIMIT_S) == 0
    consumer = Consumer({**servers, "group.id": name, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([name])
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                body = message.value()
                assert isinstance(body, bytes)
                return body
    finally:
        consumer.close()
    raise AssertionError(f"nothing came within {LIMIT_S:g} s")


def _stomp_round_trip(url: str, name: str, send: dict[str, str], subscribe: dict[str, str]) -> str:
    import stomp

    where = urlsplit(url)
    came: queue.Queue[str] = queue.Queue()

    class Listener(stomp.ConnectionListener):  # type: ignore[misc]
        def on_message(self, frame: Any) -> None:
            came.put(frame.body)

        def on_error(self, frame: Any) -> None:
            came.put(f"ERROR {frame.headers} {frame.body}")

    connection = stomp.Connection12([(where.hostname, where.port)])
    connection.set_listener("test", Listener())
    connection.connect(where.username, where.password, wait=True)
    try:
        connection.subscribe(name, id="1", ack="auto", headers=subscribe)
        connection.send(name, "hello", headers=send)
        return came.get(timeout=LIMIT_S)
    finally:
        connection.disconnect()
