"""Proof 2: one poison message among 10,000 good ones, tried again for 30 s, does not slow the others.

    make proofs-worker ARGS='-k poison'

Rules
- The handler works for `WORK_S`, so that 10,000 messages at half of the measured capacity last as long as the poison's retries.
- Three runs are one round: without, with it, and without it once more. The last is the control: what two equal runs differ by
  is the machine's. Three rounds; medians are compared with the worse of the two that are equal. Where those differ by more than
  the limit itself, the machine is too busy to tell: the figures say so, and only the number of tries is judged.
- Latency: from before the send until the handler begins. What comes before the links are warm is not looked at.

`UNIMQ_SHORT=1`: one round of 900, with retries for 2 s, and 20 ms of noise are let through.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import pytest

import unimq
from integration.proofs.kit import SHORT
from integration.worker.kit import running, until
from unimq import Message, Queue, Retry, Worker

GOOD = 900 if SHORT else 10_000
ROUNDS = 1 if SHORT else 3
DELAYS_S = (0.5, 1.5) if SHORT else (1.0, 2.0, 5.0, 10.0, 12.0)
WARM = 100  # messages: links open, prefetch widens
WORK_S = 0.006
CONCURRENCY = 4
PREFETCH = 50
CAPACITY_RUN = 600 if SHORT else 3_000
LIMIT = 1.5
NEAR_S = 0.1
NOISE_S = 0.02 if SHORT else 0.0
WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    p50_s: float
    p99_s: float
    rate: float
    tries: int  # of the poison
    near_p50_s: float  # of those that began within `NEAR_S` after one of them


@pytest.mark.timeout(900)
def test_one_poison_message_does_not_slow_the_others(
    url: str, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    capacity = _capacity(url, unique("capacity"))
    rate = capacity / 2
    runs: dict[str, list[Run]] = {"without": [], "with": [], "control": []}
    for _ in range(ROUNDS):
        for arm, made in runs.items():
            made.append(_run(url, unique("poison"), rate, poison=arm == "with"))
    p99 = {arm: median(each.p99_s for each in made) for arm, made in runs.items()}
    equal = max(p99["without"], p99["control"])
    for arm, made in runs.items():
        rates = "/".join(f"{each.rate:.0f}" for each in made)
        figure(
            f"poison, {url.rsplit('@')[-1]}: {arm}: p50 {_ms(each.p50_s for each in made)}, "
            f"p99 {_ms(each.p99_s for each in made)}, {rates} messages/s, poison tried {[each.tries for each in made]} times"
        )
    figure(
        f"poison, {url.rsplit('@')[-1]}: capacity {capacity:.0f}/s, sent {rate:.0f}/s; p99 with it is "
        f"{p99['with'] / p99['without']:.2f} of without; two equal ones: {p99['control'] / p99['without']:.2f}"
    )
    figure(
        f"poison, {url.rsplit('@')[-1]}: p50 of those within {NEAR_S:g} s after a try of the poison: "
        f"{_ms(each.near_p50_s for each in runs['with'])}"
    )
    stages = 1 + len(DELAYS_S)
    assert all(each.tries == 3 * stages for each in runs["with"]), "all its tries fell into the run"
    apart = equal / min(p99["without"], p99["control"])
    if apart > LIMIT:
        figure(
            f"poison, {url.rsplit('@')[-1]}: inconclusive: two equal runs differ by {apart:.1f}; p99 is not judged"
        )
        return
    assert p99["with"] < equal * LIMIT + NOISE_S
    assert median(each.rate for each in runs["with"]) > 0.95 * median(each.rate for each in runs["without"])


def _ms(seconds: Iterable[float]) -> str:
    return "/".join(f"{each * 1e3:.1f}" for each in seconds) + " ms"


def _capacity(url: str, name: str) -> float:
    queue = Queue(name)
    ended: list[float] = []
    worker = Worker(url)

    @worker.handler(queue, concurrency=CONCURRENCY, prefetch=PREFETCH)
    def work(body: bytes) -> None:
        time.sleep(WORK_S)
        ended.append(time.monotonic())

    with unimq.connect(url) as mq:
        mq.declare(queue)
        mq.send_many(queue, [Message(b"%d" % n) for n in range(CAPACITY_RUN)]).raise_for_errors()
        with running(worker):
            until(lambda: len(ended) == CAPACITY_RUN, "all are handled", WAIT_S)
        mq.delete(queue)
    return (CAPACITY_RUN - WARM) / (ended[-1] - ended[WARM])


def _run(url: str, name: str, rate: float, *, poison: bool) -> Run:
    queue = Queue(name)
    sent_at: list[float] = []
    late: list[tuple[float, float]] = []  # when it began, how late
    tries: list[float] = []
    worker = Worker(url, declare=[queue])

    @worker.handler(
        queue, concurrency=CONCURRENCY, prefetch=PREFETCH, retry=Retry(immediate=2, delayed_s=DELAYS_S)
    )
    def work(n: int) -> None:
        now = time.monotonic()
        if n < 0:
            tries.append(now)
        else:
            late.append((now, now - sent_at[n]))
        time.sleep(WORK_S)
        if n < 0:
            raise ValueError("poison")

    pause = threading.Event()
    with unimq.connect(url) as mq:
        mq.declare(queue)
        with running(worker), mq.sender(queue) as sender:
            began = time.monotonic()
            for n in range(GOOD):
                if poison and n == WARM:
                    sender.submit(Message(b"-1"))
                pause.wait(max(began + n / rate - time.monotonic(), 0))
                sent_at.append(time.monotonic())
                sender.submit(Message(b"%d" % n))
            sender.flush()
            until(lambda: len(late) == GOOD, "all are handled", WAIT_S)
            if poison:
                until(lambda: len(tries) == 3 * (1 + len(DELAYS_S)), "all tries are made", WAIT_S)
        mq.delete(queue)
    warm = sorted(each for _, each in late[WARM:])
    moments = [moment for moment, _ in late[WARM:]]
    speed = (len(moments) - 1) / (moments[-1] - moments[0])
    near = [each for moment, each in late[WARM:] if any(0 <= moment - tried <= NEAR_S for tried in tries)]
    return Run(median(warm), warm[int(len(warm) * 0.99)], speed, len(tries), median(near or [0.0]))
