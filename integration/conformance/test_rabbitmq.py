"""The whole conformance suite on a real RabbitMQ, and what a user without configure rights gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pika
import pytest

from integration.sources import Broker, host_and_port
from unimq import Queue
from unimq.testing.conformance import Harness, conformance_tests, through_proxy


@pytest.fixture(scope="module")
def harness(rabbitmq: Broker) -> Harness:
    url, native = rabbitmq.url, rabbitmq.native

    def foreign_send(queue: Queue, body: bytes, headers: Mapping[str, str]) -> None:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(
                "", queue.name, body, pika.BasicProperties(headers=dict(headers)), mandatory=True
            )

    def foreign_receive(queue: Queue) -> tuple[bytes, Mapping[str, Any]]:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            method, properties, body = connection.channel().basic_get(queue.name, auto_ack=True)
            assert method is not None, "the queue is empty"
            return body, properties.headers or {}

    return Harness(
        url=url,
        proxy=through_proxy(url, host_and_port(url)[1]),
        restart=None if native is None else native.restart,
        foreign_send=foreign_send,
        foreign_receive=foreign_receive,
        bad_login_url=url.replace("guest:guest@", "guest:wrong-marked-password@"),
        cycles=20,
    )


test_conformance = conformance_tests()
