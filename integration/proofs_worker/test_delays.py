"""Proofs 3 and 4: delays that are neither early nor behind each other, and a policy that changes while messages wait.

    make proofs-worker ARGS='-k "delays or policy"'

The delayed ones are sent at a steady rate: looked at is how exact a delay is, not how fast a burst of failures is worked off.

`UNIMQ_SHORT=1`: 400 messages instead of 2,000, 100 instead of 500.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

import unimq
from integration.proofs.kit import SHORT
from integration.worker.kit import Tally, running, until
from unimq import Delivery, Message, Queue, Retry, RetryLater, Worker

Name = Callable[[str], str]
Figure = Callable[[str], None]
DELAYS_S = (0.2, 1.0, 5.0)
DELAYED = 400 if SHORT else 2_000
RATE = 200.0  # messages a second
WAITING = 100 if SHORT else 500
EARLY_S = 0.005  # the delay counts from the broker's taking it, which is later than the failure: none may be earlier
OVERTAKEN_S = 1.0  # due so much later and back before: then the other one stood behind it
LATE_P99_S = 2.0  # of a machine that does other things too
pytestmark = pytest.mark.timeout(150)


def fill(mq: unimq.Client, queue: Queue, count: int) -> None:
    mq.declare(queue)
    mq.send_many(queue, [Message(b"%d" % n) for n in range(count)]).raise_for_errors()


@dataclass(frozen=True, slots=True)
class Wait:
    """One message that was asked to wait."""

    delay_s: float
    failed_at: float
    back_at: float

    @property
    def due(self) -> float:
        return self.failed_at + self.delay_s


def behind(waits: list[Wait]) -> list[Wait]:
    """Those that came back after a longer one that was due at least `OVERTAKEN_S` later."""
    found: list[Wait] = []
    for short_s, long_s in pairwise(DELAYS_S):
        long = sorted((each.due, each.back_at) for each in waits if each.delay_s >= long_s)
        earliest = [back for _, back in long]  # of those from here on
        for index in range(len(earliest) - 2, -1, -1):
            earliest[index] = min(earliest[index], earliest[index + 1])
        for each in waits:
            if each.delay_s == short_s:
                later = bisect_right(long, (each.due + OVERTAKEN_S, 0.0))
                if later < len(earliest) and earliest[later] < each.back_at:
                    found.append(each)
    return found


def test_one_behind_a_longer_one_is_found() -> None:
    assert behind([Wait(0.2, 0.0, 5.2), Wait(5.0, 0.0, 5.1)])
    assert not behind([Wait(0.2, 0.0, 0.3), Wait(5.0, 0.0, 5.1), Wait(1.0, 0.0, 1.1)])


def test_delays_are_not_early_and_the_short_are_not_behind_the_long(
    url: str, unique: Name, figure: Figure
) -> None:
    queue, tally, rng = Queue(unique("delays")), Tally(), random.Random(1)
    delays = {n: rng.choice(DELAYS_S) for n in range(DELAYED)}
    failed_at: dict[int, float] = {}
    waits: dict[int, Wait] = {}
    worker = Worker(url, declare=[queue])

    @worker.handler(queue, concurrency=8, prefetch=200, retry=Retry(immediate=0, delayed_s=DELAYS_S))
    async def work(n: int, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            failed_at[n] = time.monotonic()
            raise RetryLater(delays[n])
        waits[n] = Wait(delays[n], failed_at[n], time.monotonic())
        tally.add(n)

    with unimq.connect(url) as mq:
        mq.declare(queue)
        with running(worker), mq.sender(queue) as sender:
            began, pause = time.monotonic(), threading.Event()
            for n in range(DELAYED):
                pause.wait(max(began + n / RATE - time.monotonic(), 0))
                sender.submit(Message(b"%d" % n))
            sender.flush()
            tally.wait(lambda counts: len(counts) == DELAYED, "all are back", 90)
        mq.delete(queue)
    p99: dict[float, float] = {}
    for delay_s in DELAYS_S:
        late = sorted(each.back_at - each.due for each in waits.values() if each.delay_s == delay_s)
        p99[delay_s] = late[int(len(late) * 0.99)]
        figure(
            f"delays, {url.rsplit('@')[-1]}: {delay_s:g} s: {len(late)} messages, late by {late[0] * 1e3:.0f} ms at least, "
            f"p50 {late[len(late) // 2] * 1e3:.0f} ms, p99 {p99[delay_s] * 1e3:.0f} ms, at most {late[-1] * 1e3:.0f} ms"
        )
    early = [each for each in waits.values() if each.back_at < each.due - EARLY_S]
    assert not early, f"{len(early)} came early: {early[:3]}"
    stood = behind(list(waits.values()))
    assert not stood, f"{len(stood)} stood behind a longer one: {stood[:3]}"
    assert max(p99.values()) < LATE_P99_S


def test_the_policy_changes_while_many_wait(url: str, unique: Name, figure: Figure) -> None:
    queue, first, second = Queue(unique("policy")), Tally(), Tally()
    attempts: dict[int, int] = {}
    before = Worker(url, declare=[queue])

    @before.handler(queue, concurrency=8, prefetch=100, retry=Retry(immediate=0, delayed_s=[3]))
    async def fail(n: int) -> None:
        first.add(n)
        raise ValueError("not yet")

    after = Worker(url)

    @after.handler(queue, concurrency=8, prefetch=100, retry=Retry(immediate=2, delayed_s=[0.5, 60]))
    async def work(n: int, delivery: Delivery) -> None:
        attempts[n] = delivery.attempt
        second.add(n)

    with unimq.connect(url) as mq:
        fill(mq, queue, WAITING)
        with running(before):
            first.wait(lambda counts: len(counts) == WAITING, "all failed once")
            until(lambda: mq.stats(queue).depth == 0, "all wait for their retry")
        with running(after):
            second.wait(lambda counts: len(counts) >= WAITING, "all are handled under the new policy")
        dead = mq.dead_letters(queue).count()
        mq.delete(queue)
    figure(
        f"policy, {url.rsplit('@')[-1]}: {WAITING} waited, {len(second.counts)} handled under the new one, dead {dead}"
    )
    assert set(attempts) == set(range(WAITING))
    assert set(attempts.values()) == {2}, "the count of tries went with them"
    assert not dead
