"""A suspect that comes among others, over the wire: it waits for what is in hand, and for nothing that comes later."""

from __future__ import annotations

import pika
import pytest

from unimq import Queue, Retry
from unimq.broker.server import Broker
from unimq.testing.running import run
from unimq.worker import Worker

MESSAGES = 300
AT = 40
PREFETCH = 10
SUSPECT = pika.BasicProperties(delivery_mode=2, headers={"unimq-crashes": 2})
PLAIN = pika.BasicProperties(delivery_mode=2)
KINDS = {"quorum": {"x-queue-type": "quorum"}, "classic": {}}


def fill(url: str, queue: str, suspects: set[int], *, auto_delete: bool = False, **arguments: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, auto_delete=auto_delete, arguments=arguments)
        for n in range(MESSAGES):
            channel.basic_publish("", queue, b"%d" % n, SUSPECT if n in suspects else PLAIN, mandatory=True)


def handled_once_each(url: str, concurrency: int = 2) -> list[int]:
    """In their order."""
    seen: list[int] = []
    worker = Worker(url)

    @worker.handler(Queue("q"), concurrency=concurrency, prefetch=PREFETCH, retry=Retry(crashes=5))
    def work(n: int) -> None:
        seen.append(n)

    run(worker, until=MESSAGES, timeout_s=30)
    assert sorted(seen) == list(range(MESSAGES))
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_suspect_waits_for_what_is_in_hand_only(unimq_broker: Broker, kind: str) -> None:
    url = unimq_broker.urls["amqp"]
    fill(url, "q", {AT}, **KINDS[kind])
    seen = handled_once_each(url)
    assert AT - PREFETCH <= seen.index(AT) <= AT + 2 * PREFETCH, "it paid for what came later"


@pytest.mark.parametrize("kind", KINDS)
def test_further_suspects_go_back_and_all_are_handled(unimq_broker: Broker, kind: str) -> None:
    url = unimq_broker.urls["amqp"]
    suspects = {*range(AT, AT + 8), 200}
    fill(url, "q", suspects, **KINDS[kind])
    seen = handled_once_each(url, concurrency=4)
    assert seen.index(AT) < AT + 2 * PREFETCH < max(seen.index(n) for n in suspects)


def test_a_queue_that_deletes_itself_is_not_left_without_a_consumer(unimq_broker: Broker) -> None:
    url = unimq_broker.urls["amqp"]
    fill(url, "q", {AT, AT + 1, 200}, auto_delete=True)
    handled_once_each(url)
