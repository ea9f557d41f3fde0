"""What §5.4 promises of the worker, on a real RabbitMQ: delays, changed policies, replay that is killed, lost lines."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import unimq
from integration.sources import Broker
from integration.worker.kit import Tally, running, until
from unimq import Delivery, Message, Queue, Retry, RetryLater, Worker
from unimq.testing.proxy import FaultProxy
from unimq.url import parse

Name = Callable[[str], str]
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(150)
WARM = 1_000  # messages whose latency is not looked at: links open, prefetch widens
NOISE_S = 0.02  # of a machine that does other things too


def fill(mq: unimq.Client, queue: Queue, count: int) -> None:
    mq.declare(queue)
    mq.send_many(queue, [Message(b"%d" % n) for n in range(count)]).raise_for_errors()


def test_delays_are_not_early_and_the_short_are_not_behind_the_long(
    rabbitmq: Broker, unique: Name, record_property: Callable[[str, object], None]
) -> None:
    """2,000 messages with delays of 0.2, 1 and 5 s mixed."""
    queue, tally, rng = Queue(unique("delays")), Tally(), random.Random(1)
    delays = {n: rng.choice((0.2, 1.0, 5.0)) for n in range(2_000)}
    failed_at: dict[int, float] = {}
    back_at: dict[int, float] = {}
    worker = Worker(rabbitmq.url, declare=[queue])

    @worker.handler(queue, concurrency=8, prefetch=200, retry=Retry(immediate=0, delayed_s=[0.2, 1, 5]))
    async def work(n: int, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            failed_at[n] = time.monotonic()
            raise RetryLater(delays[n])
        back_at[n] = time.monotonic()
        tally.add(n)

    with unimq.connect(rabbitmq.url) as mq:
        fill(mq, queue, 2_000)
        with running(worker):
            tally.wait(lambda counts: len(counts) == 2_000, "all are back", 60)
    late = {n: back_at[n] - failed_at[n] - delays[n] for n in delays}
    early = {n: -each for n, each in late.items() if each < -0.005}
    assert not early, f"{len(early)} came early, by up to {max(early.values()):.3f} s"
    for delay_s in (0.2, 1.0, 5.0):
        group = sorted(late[n] for n in delays if delays[n] == delay_s)
        p99 = group[int(len(group) * 0.99)]
        print(
            f"delay {delay_s:g} s: {len(group)} messages, late p50 {group[len(group) // 2]:.3f} s, p99 {p99:.3f} s"
        )
        record_property(f"late_p99_{delay_s:g}", p99)
        assert p99 < 2.0, "behind others"


def test_the_policy_changes_while_500_wait(rabbitmq: Broker, unique: Name) -> None:
    queue, first, second = Queue(unique("policy")), Tally(), Tally()
    before = Worker(rabbitmq.url, declare=[queue])

    @before.handler(queue, concurrency=8, prefetch=100, retry=Retry(immediate=0, delayed_s=[3]))
    async def fail(n: int) -> None:
        first.add(n)
        raise ValueError("not yet")

    after = Worker(rabbitmq.url)

    @after.handler(queue, concurrency=8, prefetch=100, retry=Retry(immediate=2, delayed_s=[0.5, 60]))
    async def work(n: int, delivery: Delivery) -> None:
        second.add((n, delivery.attempt))

    with unimq.connect(rabbitmq.url) as mq:
        fill(mq, queue, 500)
        with running(before):
            first.wait(lambda counts: len(counts) == 500, "all failed once")
            until(lambda: mq.stats(queue).depth == 0, "all wait for their retry")
        with running(after):
            second.wait(lambda counts: len(counts) == 500, "all are handled under the new policy")
    assert {n for n, _ in second.counts} == set(range(500))
    assert {attempt for _, attempt in second.counts} == {2}, "the count of tries went with them"


REPLAY = """
import sys, unimq
from unimq import Queue
with unimq.connect(sys.argv[1]) as mq:
    print("begins", flush=True)
    print(mq.dead_letters(Queue(sys.argv[2])).replay(rate=400))
"""


def test_a_replay_of_1000_killed_half_way_loses_none(rabbitmq: Broker, unique: Name) -> None:
    queue = Queue(unique("replay"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"}
    with unimq.connect(rabbitmq.url) as mq:
        fill(mq, queue, 1_000)
        with mq.receiver(queue, prefetch=500) as receiver:
            left = 1_000
            while left:
                for delivery in receiver.receive(500, timeout_s=10):
                    delivery.dead_letter("fatal")
                    left -= 1
            receiver.flush()
        dead = mq.dead_letters(queue)
        assert dead.count() == 1_000
        command = [sys.executable, "-c", REPLAY, rabbitmq.url, queue.name]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            until(lambda: (mq.stats(queue).depth or 0) >= 300, "some are back")
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        until(lambda: (dead.count() or 0) > 0, "the rest comes back to its place")
        dead.replay()
        assert dead.count() == 0
        bodies: list[bytes | None] = []
        with mq.receiver(queue, prefetch=500) as receiver:
            while found := receiver.receive(500, timeout_s=2):
                bodies += [delivery.body for delivery in found]
                receiver.ack(found)
    assert set(bodies) == {b"%d" % n for n in range(1_000)}
    print(f"replay killed half way: {len(bodies) - 1_000} duplicates")
    assert len(bodies) <= 1_000 + 100


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


def test_one_poison_message_does_not_slow_the_others(
    rabbitmq: Broker, unique: Name, record_property: Callable[[str, object], None]
) -> None:
    """10,000 good ones at half of what the worker can do, with and without one that is tried again for 30 s and more.
    Three interleaved runs of each; the medians of the p99 are compared."""
    capacity = _rate(rabbitmq.url, unique("capacity"), 4_000)
    p99: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        for poison in (False, True):
            p99[poison].append(_latency(rabbitmq.url, unique("poison"), capacity / 2, poison=poison))
    without, with_it = sorted(p99[False])[1], sorted(p99[True])[1]
    print(f"capacity {capacity:.0f}/s; p99 without {_ms(p99[False])}, with {_ms(p99[True])}")
    record_property("p99_ratio", with_it / without)
    assert with_it < without * 1.5 + NOISE_S


def _ms(seconds: list[float]) -> str:
    return " ".join(f"{each * 1e3:.1f}" for each in seconds) + " ms"


def _rate(url: str, name: str, count: int) -> float:
    queue, tally = Queue(name), Tally()
    worker = Worker(url)

    @worker.handler(queue, prefetch=200)
    async def work(body: bytes) -> None:
        tally.add(body)

    with unimq.connect(url) as mq:
        fill(mq, queue, count)
        with running(worker):
            tally.wait(lambda counts: len(counts) == count, "all are handled")
    return (count - 1) / (tally.seen[-1][1] - tally.seen[0][1])


def _latency(url: str, name: str, rate: float, *, poison: bool, count: int = 10_000) -> float:
    queue, tally = Queue(name), Tally()
    sent_at: dict[bytes, float] = {}
    late: list[float] = []
    worker = Worker(url, declare=[queue])

    @worker.handler(queue, prefetch=200, retry=Retry(immediate=2, delayed_s=[1, 2, 5, 10, 30]))
    async def work(body: bytes) -> None:
        if body == b"poison":
            raise ValueError("poison")
        late.append(time.monotonic() - sent_at[body])
        tally.add(body)

    with unimq.connect(url) as mq:
        mq.declare(queue)
        with running(worker), mq.sender(queue) as sender:
            began = time.monotonic()
            for n in range(count):
                body = b"%d" % n
                if poison and n == WARM:
                    sender.submit(b"poison")
                ahead = began + n / rate - time.monotonic()
                if ahead > 0.001:
                    threading.Event().wait(ahead)
                sent_at[body] = time.monotonic()
                sender.submit(body)
            sender.flush()
            tally.wait(lambda counts: len(counts) == count, "all are handled", 60)
    warm = sorted(late[WARM:])
    return warm[int(len(warm) * 0.99)]
