"""The worker on a real RabbitMQ: places that are forbidden, lines that are lost. The proofs are in `proofs_worker`."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pika
import pytest

import unimq
from integration.sources import Broker
from integration.worker.kit import Tally, running, until
from unimq import Delivery, Message, Queue, Retry, Worker
from unimq.testing.proxy import FaultProxy
from unimq.url import parse

Name = Callable[[str], str]
pytestmark = pytest.mark.timeout(150)


def fill(mq: unimq.Client, queue: Queue, count: int) -> None:
    mq.declare(queue)
    mq.send_many(queue, [Message(b"%d" % n) for n in range(count)]).raise_for_errors()


@pytest.mark.parametrize(
    ("rights", "says"),
    [
        ({"configure": ".*", "write": "^(?!amq\\.default).*$"}, "amq.default"),
        ({"configure": "^$", "write": ".*"}, "right to configure"),
    ],
)
def test_a_place_that_is_forbidden_fails_at_start(
    rabbitmq: Broker, unique: Name, rights: dict[str, str], says: str
) -> None:
    """Neither the dead letters nor the delays can be written, or made: that is said before a message is handled."""
    if rabbitmq.native is None:
        pytest.skip("a user with fewer rights is made through a native broker's own control")
    queue = Queue(unique("forbidden"))
    with unimq.connect(rabbitmq.url) as mq:
        fill(mq, queue, 1)
        worker = Worker(rabbitmq.native.add_user(unique("user"), "pw", read=".*", **rights))

        @worker.handler(queue)
        def work(n: int) -> None:
            raise AssertionError("it was called")

        with pytest.raises(unimq.PermissionDenied, match=says):
            worker.run()
        assert mq.stats(queue).depth == 1


def test_lines_cut_at_random_lose_nothing(rabbitmq: Broker, unique: Name) -> None:
    queue, tally, rng = Queue(unique("cuts")), Tally(), random.Random(3)
    host, port = parse(rabbitmq.url).hosts[0]
    assert port is not None
    with FaultProxy(host, port) as proxy, unimq.connect(rabbitmq.url) as mq:
        worker = Worker(rabbitmq.url.replace(f"{host}:{port}", f"{proxy.host}:{proxy.port}"), declare=[queue])

        @worker.handler(queue, concurrency=4, retry=Retry(immediate=1, delayed_s=[0.2], crashes=10))
        def work(n: int, delivery: Delivery) -> None:
            if n % 10 == 0 and delivery.attempt == 1:
                raise ValueError("once")
            threading.Event().wait(0.005)
            tally.add(n)

        fill(mq, queue, 1_000)
        cuts = 0
        with running(worker):
            while len(tally.counts) < 1_000 and cuts < 60:
                threading.Event().wait(rng.uniform(0.2, 0.6))
                proxy.cut()
                cuts += 1
            tally.wait(lambda counts: len(counts) == 1_000, "all are handled", 60)
            until(lambda: worker.health().ok, "health is good again")
        assert mq.dead_letters(queue).count() == 0
    print(f"{cuts} cuts, {len(tally.seen) - 1_000} duplicates")
    assert len(tally.seen) - 1_000 <= cuts * 10


SUSPECTS = {40, 41, 42, 200}
PLENTY = 300


def fill_with_suspects(url: str, queue: str, *, auto_delete: bool, **arguments: str) -> None:
    """As a foreign producer: those among them have killed two processes."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, auto_delete=auto_delete, arguments=arguments)
        for n in range(PLENTY):
            headers = {"unimq-crashes": 2} if n in SUSPECTS else {}
            properties = pika.BasicProperties(delivery_mode=2, headers=headers)
            channel.basic_publish("", queue, b"%d" % n, properties, mandatory=True)


@pytest.mark.parametrize("kind", ["quorum", "classic", "classic, auto-delete"])
def test_a_suspect_waits_for_what_is_in_hand_only(rabbitmq: Broker, unique: Name, kind: str) -> None:
    """Nothing more comes while it waits; and a queue that deletes itself is never left without a consumer."""
    queue, tally = Queue(unique("suspects")), Tally()
    auto_delete = kind.endswith("auto-delete")
    arguments = {"x-queue-type": "quorum"} if kind == "quorum" else {}
    fill_with_suspects(rabbitmq.url, queue.name, auto_delete=auto_delete, **arguments)
    worker = Worker(rabbitmq.url)

    @worker.handler(queue, concurrency=2, prefetch=10)
    def work(n: int) -> None:
        tally.add(n)

    with running(worker):
        tally.wait(lambda counts: len(counts) == PLENTY, "all are handled")
    order = [what for what, _ in tally.seen]
    assert sorted(order) == list(range(PLENTY)), "each once"
    if not auto_delete:
        assert order.index(40) <= 40 + 2 * 10, "it paid for what came later"
