"""The whole conformance suite on the reference broker's AMQP 0-9-1, through the RabbitMQ adapter and the real pika."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pika
import pytest
import trustme

from unimq import Queue, broker
from unimq.broker.engine.errors import AmqpError
from unimq.broker.server import Broker
from unimq.testing.conformance import Harness, conformance_tests, through_proxy


def break_channels(running: Broker) -> None:
    """Every channel that consumes is closed by the broker; the connections live on."""
    for peer in running.peers:
        for channel in list(peer.session.channels.values()):
            if channel.consumers:
                channel.fail(AmqpError(406, "closed by a test"), "basic.ack")
                peer.flush_soon()


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker whose certificate nobody trusts; its URL does not say whom to trust."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    with broker.run(amqp=0, tls_cert=str(folder / "cert.pem"), tls_key=str(folder / "key.pem")) as running:
        yield running.urls["amqp"].partition("?")[0]


@pytest.fixture(scope="module")
def harness(strange: str) -> Iterator[Harness]:
    with broker.run(amqp=0) as running:
        url = running.urls["amqp"]

        def foreign_send(queue: Queue, body: bytes, headers: Mapping[str, str]) -> None:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                properties = pika.BasicProperties(headers=dict(headers))
                channel.basic_publish("", queue.name, body, properties, mandatory=True)

        def foreign_receive(queue: Queue) -> tuple[bytes, Mapping[str, Any]]:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                method, properties, body = connection.channel().basic_get(queue.name, auto_ack=True)
                assert method is not None, "the queue is empty"
                return body, properties.headers or {}

        yield Harness(
            url=url,
            label="reference broker as",
            clock=running.clock,
            quiet_s=0.2,
            delay_s=5.0,
            break_link=lambda _client, _receiver: running.call(lambda: break_channels(running)),
            proxy=through_proxy(url, 5672),
            foreign_send=foreign_send,
            foreign_receive=foreign_receive,
            restart=running.restart,
            untrusted_tls_url=strange,
            bad_login_url=url.replace("guest:guest@", "guest:wrong-marked-password@"),
            cycles=5,
        )


test_conformance = conformance_tests()
