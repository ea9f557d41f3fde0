"""`unimq.testing.run`: it returns when the work is done, says what was missing when it is not, and moves the clock."""

from __future__ import annotations

import threading

import pytest

import unimq
from unimq import Delivery, Message, Queue, Retry
from unimq.registry import find
from unimq.testing import run
from unimq.worker import BadHandler, Worker

A, B = Queue("a"), Queue("b")


def fill(url: str, address: Queue, count: int) -> None:
    with unimq.connect(url) as mq:
        mq.declare(address)
        mq.send_many(address, [Message(b"%d" % n) for n in range(count)]).raise_for_errors()


def test_idle_follows_what_a_handler_sends_on(unimq_url: str) -> None:
    fill(unimq_url, A, 20)
    seen: list[int] = []
    worker = Worker(unimq_url, declare=[B])

    @worker.handler(A, to=B)
    def on_a(n: int) -> int:
        return n

    @worker.handler(B, retry=Retry(immediate=0, delayed_s=[86_400]))
    async def on_b(n: int, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise ValueError("tomorrow")
        seen.append(n)

    outcomes = run(worker)
    assert sorted(seen) == list(range(20))
    assert (len(outcomes.handled), len(outcomes.retried), len(outcomes.dead)) == (40, 20, 0)
    assert {type(error) for error in outcomes.errors} == {ValueError}


def test_nothing_to_do_is_idle(unimq_url: str) -> None:
    fill(unimq_url, A, 0)
    worker = Worker(unimq_url)
    worker.handler(A)(on_bytes)
    assert len(run(worker)) == 0


def on_bytes(body: bytes) -> None: ...


def test_until_a_number_are_over(unimq_url: str) -> None:
    fill(unimq_url, A, 30)
    worker = Worker(unimq_url)
    worker.handler(A, prefetch=1)(on_bytes)
    outcomes = run(worker, until=3)
    assert 3 <= outcomes.finished <= 30
    with unimq.connect(unimq_url) as mq:
        assert mq.stats(A).depth == 30 - outcomes.finished


def test_a_time_out_says_what_is_still_there(unimq_url: str) -> None:
    fill(unimq_url, A, 2)
    gate = threading.Event()
    worker = Worker(unimq_url, drain_s=0.1)

    @worker.handler(A)
    def stuck(body: bytes) -> None:
        gate.wait(20)

    with pytest.raises(TimeoutError, match=r"not idle: .*handled=0.*queue:a"):
        run(worker, timeout_s=0.3)
    gate.set()


def test_a_start_that_fails_is_raised(unimq_url: str) -> None:
    with pytest.raises(BadHandler):
        run(Worker(unimq_url))


def test_the_clock_knows_what_is_due(unimq_url: str) -> None:
    clock = find("memory").broker(unimq_url).clock
    assert clock.until_due_s() is None
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send(A, Message(b"x", delay_s=100))
        left = clock.until_due_s()
        assert left is not None and 99 < left <= 100
        clock.advance(left)
        assert mq.stats(A).depth == 1
        assert clock.until_due_s() is None


def test_a_prefetch_can_be_changed_while_it_is_open(unimq_url: str) -> None:
    from unimq.driver import Prefetching

    fill(unimq_url, A, 30)
    with unimq.connect(unimq_url) as mq, mq.receiver(A, prefetch=1) as receiver:
        first = receiver.receive(30, timeout_s=5)
        assert len(first) == 1
        link = receiver._intake.link
        assert isinstance(link, Prefetching)
        link.set_prefetch(10)
        more = receiver.receive(30, timeout_s=5)
        assert len(more) == 9
        link.set_prefetch(1)
        receiver.ack([*first, *more[:5]])
        assert receiver.receive(30, timeout_s=0.05) == [], "still more in hand than it may have"
        receiver.ack(more[5:])
        assert len(receiver.receive(30, timeout_s=5)) == 1
