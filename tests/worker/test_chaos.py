"""Everything at once, by a seed: handlers that fail, links and lines that break, a worker that is stopped and started.

What must hold whatever happens: every message is handled or dead, and the dead are exactly those that had to die.
"""

from __future__ import annotations

import random
import threading

import pytest

import unimq
from unimq import Delivery, Message, Queue, Retry
from unimq.registry import find
from unimq.testing import run
from unimq.worker import Worker

A, B = Queue("a"), Queue("b")
MESSAGES = 200
FAULTS = ("links", "lines", "restart", "stop", "unconfirmed")


@pytest.mark.parametrize("seed", range(6))
def test_every_message_is_handled_or_dead(unimq_url: str, seed: int) -> None:
    rng = random.Random(seed)
    broker = find("memory").broker(unimq_url)
    kinds = [
        rng.choices(("good", "transient", "fatal", "exhausted"), (80, 14, 3, 3))[0] for _ in range(MESSAGES)
    ]
    handled: set[int] = set()
    lock = threading.Lock()
    broken, over = threading.Event(), threading.Event()

    def work(n: int, delivery: Delivery) -> int:
        if kinds[n] == "fatal":
            raise LookupError("for good")
        if kinds[n] == "exhausted" or (kinds[n] == "transient" and delivery.attempt <= 2):
            raise ValueError("once more")
        with lock:
            handled.add(n)
        return n

    async def work_async(n: int, delivery: Delivery) -> int:
        return work(n, delivery)

    def worker() -> Worker:
        made = Worker(unimq_url, drain_s=5)
        # every fault here counts as a crash
        policy = Retry(immediate=1, delayed_s=[0.05, 0.05], crashes=1_000)
        made.handler(
            A,
            concurrency=rng.randint(1, 6),
            prefetch=rng.randint(1, 30),
            retry=policy,
            fatal=LookupError,
            to=B,
        )(work if seed % 2 else work_async)
        return made

    def break_things() -> None:
        faults = random.Random(seed + 1_000)
        for _ in range(25):
            over.wait(faults.uniform(0.0, 0.05))
            fault = faults.choice(FAULTS)
            if fault == "links":
                broker.kill_links(faults.choice(("sender", "receiver", None)))
            elif fault == "lines":
                broker.drop_connections()
            elif fault == "restart":
                broker.restart()
            elif fault == "unconfirmed":
                broker.drop_in_next_batch()
            else:
                running.stop()
        broken.set()
        while not over.wait(0.02):
            running.stop()

    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.declare(B)
        mq.send_many(A, [Message(b"%d" % n, message_id=f"m{n}") for n in range(MESSAGES)]).raise_for_errors()
    running = worker()
    breaker = threading.Thread(target=break_things, daemon=True)
    breaker.start()
    try:
        while not broken.is_set():  # a stop that the breaker asked for ends a run: the next one goes on
            running.run()
            running = worker()
    finally:
        over.set()
        breaker.join(10)
    run(running, timeout_s=30)
    with unimq.connect(unimq_url) as mq:
        dead = {int(letter.body or b""): letter.reason for letter in mq.dead_letters(A).browse(limit=1_000)}
        sent = {each.decode(int) for each in mq.browse(B, limit=10_000)}
        assert mq.stats(A).depth == 0
    must_die = {n: kinds[n] for n in range(MESSAGES) if kinds[n] in ("fatal", "exhausted")}
    assert dead == must_die
    assert handled == set(range(MESSAGES)) - must_die.keys()
    assert sent == handled, "what was acknowledged was sent on before"
