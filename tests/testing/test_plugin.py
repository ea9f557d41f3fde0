"""The fixtures of the pytest plug-in, as a user's test has them."""

from __future__ import annotations

from typing import Any

import unimq
from unimq import Queue


def test_a_client_of_a_fresh_broker(unimq_client: unimq.Client) -> None:
    unimq_client.declare(Queue("q"))
    assert unimq_client.stats(Queue("q")).depth == 0


def test_a_reference_broker_with_a_clock(unimq_broker: Any) -> None:
    with unimq.connect(unimq_broker.urls["amqp"]) as mq:
        mq.declare(Queue("q"))
        mq.send(Queue("q"), unimq.Message(b"later", delay_s=30.0))
        unimq_broker.clock.advance(31.0)
        with mq.receiver(Queue("q")) as receiver:
            (delivery,) = receiver.receive(timeout_s=10.0)
            assert delivery.body == b"later"
            delivery.ack()
