"""Lines that were survived: what no handler had begun does not pay for them."""

from __future__ import annotations

import threading

import pytest

import unimq
from unimq import Delivery, Message, Queue, Retry, testing
from unimq import headers as h
from unimq.registry import find
from unimq.testing.running import run
from unimq.worker import Worker, spared
from unimq.worker.guard import Guard, Look, crashes_of
from unimq.worker.spared import Spared

A = Queue("a")


def delivery(
    message_id: str | None, *, copies: int | None = None, count: int | None = 0, written: int = 0
) -> Delivery:
    made = testing.delivery(message_id=message_id, delivery_count=count, redelivered=count != 0)
    made.metadata.unimq = {h.CRASHES: written} | ({} if copies is None else {h.COPIES: copies})
    return made


def test_a_message_is_known_by_its_id_and_its_copies() -> None:
    them = Spared()
    them.add([delivery("m-1"), delivery("m-1"), delivery("m-2", copies=1), delivery(None)])
    assert them.times(delivery("m-1")) == 2
    assert them.times(delivery("m-2", copies=1)) == 1
    assert them.times(delivery("m-2")) == 0, "another copy of it was in no hand here"
    assert them.times(delivery(None)) == 0, "nobody knows it again"


def test_only_what_was_on_its_way_back_is_spared_when_its_settlement_is_lost() -> None:
    them = Spared()
    them.give_back(delivery("back"))
    them.add_given_back([delivery("back"), delivery("handled")])
    assert (them.times(delivery("back")), them.times(delivery("handled"))) == (1, 0)


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spared, "REMEMBERED_MAX", 3)
    them = Spared()
    for n in range(10):
        them.add([delivery(str(n))])
        them.give_back(delivery(str(n)))
    assert [n for n in range(10) if them.times(delivery(str(n)))] == [7, 8, 9]
    them.add_given_back([delivery("0"), delivery("9")])
    assert (them.times(delivery("0")), them.times(delivery("9"))) == (0, 2)


def test_the_guard_takes_it_off() -> None:
    guard = Guard(limit=3, wide=10, can_copy=True)
    guard.spared.add([delivery("m")] * 2)
    assert guard.look(delivery("m", count=3)) is Look.NORMAL
    assert guard.look(delivery("other", count=3)) is Look.CRASHED
    assert guard.count(delivery("m", count=1)) == 0
    assert guard.look(delivery("m", count=None)) is Look.NORMAL, "nothing to be counted in a copy"


def test_a_long_job_under_lines_that_are_cut_costs_no_neighbour_its_life(unimq_url: str) -> None:
    """What waits behind a handler while its line is lost more often than the limit allows is handled, and not dead."""
    broker = find("memory").broker(unimq_url)
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n) for n in range(5)]).raise_for_errors()
    worker = Worker(unimq_url)
    done: set[int] = set()
    counts: dict[int, int] = {}
    cuts = 0
    waiting = threading.Event()

    @worker.handler(A, concurrency=1, prefetch=20, retry=Retry(crashes=4))
    def work(body: int, delivery: Delivery) -> None:
        nonlocal cuts
        counts[body] = max(counts.get(body, 0), crashes_of(delivery))
        if body == 0 and cuts < 3:
            cuts += 1
            waiting.wait(0.05)  # for the others to be fetched
            broker.kill_links("receiver")
            waiting.wait(0.05)
        done.add(body)

    outcomes = run(worker, timeout_s=30)
    assert cuts == 3
    assert not outcomes.dead and done == set(range(5))
    assert counts[0] == 3, "the one that was being handled paid"
