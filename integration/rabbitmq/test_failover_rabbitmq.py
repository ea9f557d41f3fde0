"""Several hosts in a URL: one of them goes away under load. Nothing confirmed is lost; the gap is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import unimq
from integration.native import RabbitMQ
from integration.proofs.kit import SHORT
from integration.rabbitmq.load import Load, longest
from integration.sources import Broker, host_and_port
from unimq import Queue, UnimqError, broker
from unimq.errors import ConnectionFailed
from unimq.testing.proxy import FaultProxy

LIMIT_S = 150.0
GAP_MAX_S = 10.0  # to the next host, with other things running on the machine
WARM = 500  # messages confirmed before and after each loss
WARM_S = 30.0
MEMBERS = 3  # of a cluster: two of three are a quorum

pytestmark = pytest.mark.timeout(LIMIT_S, func_only=True)
Figure = Callable[[str], None]


def more(load: Load) -> None:
    """Returns when that many more are confirmed and some have come."""
    wanted, came = len(load.confirmed) + WARM, len(load.received)
    pause = threading.Event()
    for _ in range(int(WARM_S / 0.05)):
        if (len(load.confirmed) >= wanted and len(load.received) > came) or load.errors:
            return
        pause.wait(0.05)
    raise AssertionError(f"{len(load.confirmed)} of {wanted} confirmed within {WARM_S:g} s: {load}")


def judge(load: Load, what: str, figure: Figure) -> None:
    load.finish()
    assert load.findings() == []
    assert max(load.gaps_s()) < GAP_MAX_S
    figure(f"fail-over, {what}: {load}")


def test_the_check_can_fail() -> None:
    load = Load("amqp://nobody/", Queue("q"))
    load.confirmed, load.unknown = {1, 2, 3}, {4}
    load.received.update([1, 1, 2, 4, 5])
    assert load.findings() == [
        "1 confirmed and lost, the first 3",
        "1 came that were never confirmed and said not to have left",
    ]
    load.errors.append(ValueError("x"))
    assert "it ended: ValueError('x')" in load.findings()
    assert longest([1.0, 1.5, 4.0, 4.1]) == 2.5


@pytest.fixture(params=["rabbitmq"] if SHORT else ["rabbitmq", "reference"])
def one(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(name, URL) of a broker."""
    if request.param == "reference":
        with broker.run(amqp=0) as made:
            yield "reference broker", made.urls["amqp"]
        return
    real: Broker = request.getfixturevalue("rabbitmq")
    yield "RabbitMQ", real.url


def test_from_one_way_to_the_other_and_back(
    one: tuple[str, str], unique: Callable[[str], str], figure: Figure
) -> None:
    """Two ways to one broker: first the one breaks, then the other."""
    name, url = one
    host, port = host_and_port(url)
    queue = Queue(unique("failover"))
    with ExitStack() as stack:
        ways = [stack.enter_context(FaultProxy(host, port)) for _ in range(2)]
        at = f"{ways[0].host}:{ways[0].port}"
        both = ways[0].url(url).replace(at, f"{at},{ways[1].host}:{ways[1].port}")
        mq = stack.enter_context(unimq.connect(url))
        mq.declare(queue)
        load = stack.enter_context(Load(both, queue))
        more(load)
        assert ways[1].connections == 0
        for broken, whole in (ways, ways[::-1]):
            whole.heal()
            before = whole.connections
            broken.refuse()
            broken.cut()
            more(load)
            assert whole.connections > before
            assert broken.open_connections == 0
        judge(load, f"two ways to one {name}, each broken once", figure)
        mq.purge(queue)


@pytest.fixture
def cluster(missing: Callable[[str, str], None]) -> Iterator[list[RabbitMQ]]:
    if reason := RabbitMQ.available():
        missing("rabbitmq", reason)
    with ExitStack() as stack:
        first = stack.enter_context(RabbitMQ())
        others = [RabbitMQ(join=first) for _ in range(MEMBERS - 1)]
        for each in others:
            stack.callback(each.stop)
        with ThreadPoolExecutor(len(others)) as pool:
            list(pool.map(lambda node: node.start(), others))
        yield [first, *others]


def test_members_of_a_cluster_go_away(
    cluster: list[RabbitMQ], unique: Callable[[str], str], figure: Figure
) -> None:
    first, *_, last = cluster
    a_classic_queue_comes_back_with_its_member(first, last, Queue(unique("classic")))
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    queue = Queue(unique("quorum"))
    with unimq.connect(f"amqp://guest:guest@{hosts}/") as mq:
        mq.declare(queue)
        with Load(f"amqp://guest:guest@{hosts}/", queue) as load:
            more(load)
            first.go_down(
                graceful=False
            )  # the one that the clients are at, which leads the quorum queue as well
            more(load)
            judge(load, f"SIGKILL of 1 of {MEMBERS} members of a RabbitMQ cluster", figure)


def a_classic_queue_comes_back_with_its_member(here: RabbitMQ, there: RabbitMQ, queue: Queue) -> None:
    """It lies on one member alone. While that is down the broker says "not found", and means "later"."""
    with unimq.connect(there.url) as owner:
        owner.declare(queue, native={"x-queue-type": "classic"})
    with unimq.connect(here.url) as mq, mq.receiver(queue) as receiver:
        receiver.ready(timeout_s=WARM_S)
        there.rabbitmqctl("stop_app")
        with pytest.raises(ConnectionFailed, match="is there, and down") as caught:
            mq.stats(queue)
        assert caught.value.code == "queue-down"
        with pytest.raises(UnimqError):
            mq.send(queue, b"nobody takes it now", timeout_s=1.0)
        there.rabbitmqctl("start_app")
        mq.send(queue, b"hello again")
        assert received(receiver, WARM_S) == b"hello again"


def received(receiver: unimq.Receiver, timeout_s: float) -> bytes | None:
    """The next body; a link that is down meanwhile is waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            for delivery in receiver.receive(timeout_s=1.0):
                delivery.ack()
                return delivery.body
        except ConnectionFailed:
            threading.Event().wait(0.1)
    return None
