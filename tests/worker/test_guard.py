"""The crash limit: who is suspect, who is dead, and that the innocent are not."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unimq
from unimq import Delivery, Message, Queue, Retry
from unimq import headers as h
from unimq.delivery import Metadata
from unimq.driver import ReceiverOptions
from unimq.registry import find
from unimq.testing import TestDelivery, _Desk
from unimq.testing.running import run
from unimq.worker import Verb, Worker
from unimq.worker.guard import CALM, NARROW, SUSPECT, Guard, Look, crashes_of
from unimq_memory.connection import MemoryConnection
from unimq_memory.fields import MemoryDelivery
from unimq_memory.receiver import MemoryReceiver

A = Queue("a")


def delivery(count: int | None, *, redelivered: bool = False, written: int | None = None) -> Delivery:
    unimq_headers = {} if written is None else {h.CRASHES: written}
    fields = Metadata(delivery_count=count, redelivered=redelivered, unimq=unimq_headers)
    return TestDelivery(b"", fields, _Desk(A, None))  # type: ignore[arg-type]


def test_the_count_is_the_brokers_and_what_was_written() -> None:
    assert crashes_of(delivery(0)) == 0
    assert crashes_of(delivery(3, redelivered=True)) == 3
    assert crashes_of(delivery(1, redelivered=True, written=2)) == 3
    assert crashes_of(delivery(None)) == 0
    assert crashes_of(delivery(None, redelivered=True)) == 1
    assert crashes_of(delivery(None, redelivered=True, written=3)) == 4


def test_it_opens_narrow_and_widens_with_the_first_fresh_one() -> None:
    guard = Guard(limit=5, wide=20, can_copy=True)
    assert guard.prefetch == NARROW
    assert guard.look(delivery(1, redelivered=True)) is Look.NORMAL
    assert guard.prefetch == NARROW
    for _ in range(CALM - 1):
        assert guard.look(delivery(0)) is Look.NORMAL
        assert guard.prefetch == NARROW, "where there is one there are more"
    guard.look(delivery(0))
    assert guard.prefetch == 20
    assert guard.look(delivery(1, redelivered=True)) is Look.NORMAL
    assert guard.prefetch == 20
    assert guard.look(delivery(SUSPECT, redelivered=True)) is Look.SUSPECT
    assert guard.prefetch == NARROW
    guard.reopened()
    assert guard.prefetch == NARROW


def test_a_fresh_start_is_wide_with_the_first_message() -> None:
    guard = Guard(limit=5, wide=20, can_copy=True)
    guard.look(delivery(0))
    assert guard.prefetch == 20


def test_where_nobody_counts_it_is_counted_in_copies() -> None:
    guard = Guard(limit=3, wide=20, can_copy=True)
    assert guard.look(delivery(None)) is Look.NORMAL
    assert guard.look(delivery(None, redelivered=True)) is Look.RECOUNT
    assert guard.look(delivery(None, written=1)) is Look.NORMAL
    assert guard.look(delivery(None, written=2)) is Look.SUSPECT
    assert guard.look(delivery(None, redelivered=True, written=1)) is Look.RECOUNT
    assert guard.look(delivery(None, redelivered=True, written=2)) is Look.CRASHED


def test_where_order_counts_and_nobody_counts_there_is_no_copy() -> None:
    guard = Guard(limit=3, wide=20, can_copy=False)
    assert guard.look(delivery(None, redelivered=True)) is Look.NORMAL


@given(
    count=st.none() | st.integers(0, 30),
    redelivered=st.booleans(),
    written=st.none() | st.integers(0, 30),
    limit=st.integers(1, 10),
    can_copy=st.booleans(),
)
def test_nobody_is_handled_at_the_limit(
    count: int | None, redelivered: bool, written: int | None, limit: int, can_copy: bool
) -> None:
    guard = Guard(limit=limit, wide=10, can_copy=can_copy)
    each = delivery(count, redelivered=redelivered, written=written)
    look = guard.look(each)
    assert (look is Look.CRASHED) == (crashes_of(each) >= limit)
    if look is Look.SUSPECT or crashes_of(each):
        assert guard.prefetch == NARROW


# ------------------------------------------------------------------------- on a broker: a lost line stands for a crash
@pytest.mark.parametrize("killer_at", [0, 7])
def test_a_message_that_kills_its_link_dies_and_its_neighbours_do_not(unimq_url: str, killer_at: int) -> None:
    broker = find("memory").broker(unimq_url)
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n) for n in range(20)]).raise_for_errors()
    calls: list[int] = []
    lock = threading.Lock()
    worker = Worker(unimq_url)

    @worker.handler(A, concurrency=4, prefetch=20, retry=Retry(crashes=5))
    def work(body: int) -> None:
        with lock:
            calls.append(body)
        if body == killer_at:
            broker.drop_connections()  # everything in hand goes back, counted

    outcomes = run(worker, timeout_s=30)
    assert calls.count(killer_at) == 5
    assert {outcome.delivery.body for outcome in outcomes.dead} == {b"%d" % killer_at}
    assert [outcome.reason for outcome in outcomes.dead] == ["crashed"]
    with unimq.connect(unimq_url) as mq:
        (letter,) = mq.dead_letters(A).browse()
        assert (letter.reason, letter.body) == ("crashed", b"%d" % killer_at)
        assert letter.description is not None and "5 times" in letter.description
        assert mq.stats(A).depth == 0
    assert set(calls) == set(range(20))


def test_suspects_run_alone(unimq_url: str) -> None:
    """What came back twice is handled with nothing else in hand; the others wait, or went back out of its reach."""
    broker = find("memory").broker(unimq_url)
    rng = random.Random(7)
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n) for n in range(30)]).raise_for_errors()
    lock = threading.Lock()
    in_hand: set[int] = set()
    not_alone: list[tuple[int, set[int]]] = []
    cuts = 0
    worker = Worker(unimq_url)

    @worker.handler(A, concurrency=5, prefetch=10, retry=Retry(crashes=20))
    def work(body: int, delivery: Delivery) -> None:
        nonlocal cuts
        with lock:
            in_hand.add(body)
            if crashes_of(delivery) >= SUSPECT and len(in_hand) > 1:
                not_alone.append((body, set(in_hand)))
            cut = cuts < 12 and rng.random() < 0.3
            cuts += cut
        if cut:
            broker.kill_links("receiver")
        with lock:
            in_hand.discard(body)

    outcomes = run(worker, timeout_s=30)
    assert cuts == 12
    assert not outcomes.dead
    # a handler whose link died under it may still be at it when its message is here again: that one is the same message
    assert [each for each in not_alone if each[1] - {each[0]}] == []


def test_ordered_suspects_wait_their_turn(unimq_url: str) -> None:
    broker = find("memory").broker(unimq_url)
    ordered = Queue("o", ordered=True)
    with unimq.connect(unimq_url) as mq:
        mq.declare(ordered)
        mq.send_many(ordered, [Message(b"%d" % n, key=f"k{n % 3}") for n in range(30)]).raise_for_errors()
    done: list[int] = []
    cuts = 0
    lock = threading.Lock()
    worker = Worker(unimq_url)

    @worker.handler(ordered, concurrency=3, retry=Retry(delayed_s=[], crashes=4))
    def work(body: int) -> None:
        nonlocal cuts
        with lock:
            done.append(body)
        if body == 10:
            cuts += 1
            broker.kill_links("receiver")

    outcomes = run(worker, timeout_s=30)
    assert [(outcome.reason, outcome.delivery.body) for outcome in outcomes.dead] == [("crashed", b"10")]
    assert cuts == 4
    last = {body: index for index, body in enumerate(done)}
    for key in range(3):
        finals = [last[body] for body in range(key, 30, 3)]
        firsts = [done.index(body) for body in range(key, 30, 3)]
        assert firsts == sorted(firsts), "a key's messages are first seen in their order"
        assert finals == sorted(finals)
    assert outcomes.all[-1].verb is Verb.ACKED


def test_the_link_of_an_ordered_source_is_opened_anew_to_widen(
    unimq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second consumer beside the first would let another process, or a message given back, pass what is in hand."""
    changed: list[int] = []
    opened: list[int] = []
    inner = MemoryConnection.receiver

    def opening(connection: MemoryConnection, source: Any, options: ReceiverOptions) -> Any:
        opened.append(options.prefetch)
        return inner(connection, source, options)

    monkeypatch.setattr(MemoryReceiver, "prefetch_keeps_order", False)
    monkeypatch.setattr(MemoryReceiver, "set_prefetch", lambda _link, count: changed.append(count))
    monkeypatch.setattr(MemoryConnection, "receiver", opening)
    ordered = Queue("o", ordered=True)
    with unimq.connect(unimq_url) as mq:
        mq.declare(ordered)
        mq.send_many(ordered, [Message(b"%d" % n, key=f"k{n % 3}") for n in range(30)]).raise_for_errors()
    done: list[int] = []
    worker = Worker(unimq_url)

    @worker.handler(ordered, concurrency=3, prefetch=20)
    def work(body: int) -> None:
        done.append(body)

    run(worker)
    assert opened == [1, 20] and not changed
    assert all([n for n in done if n % 3 == key] == list(range(key, 30, 3)) for key in range(3)), done


@pytest.mark.parametrize("counts", [True, False])
def test_a_link_that_cannot_change_its_prefetch_is_opened_anew(
    unimq_url: str, monkeypatch: pytest.MonkeyPatch, counts: bool
) -> None:
    """The same promise by other means, and also where the broker does not count deliveries."""
    monkeypatch.setattr("unimq.worker.tap.Prefetching", type("CanNot", (), {}))
    if not counts:
        read = MemoryDelivery._read

        def uncounted(self: MemoryDelivery) -> Metadata:
            meta = read(self)
            meta.delivery_count = None
            return meta

        monkeypatch.setattr(MemoryDelivery, "_read", uncounted)
    broker = find("memory").broker(unimq_url)
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n) for n in range(40)]).raise_for_errors()
    calls: list[int] = []
    lock = threading.Lock()
    worker = Worker(unimq_url)

    @worker.handler(A, concurrency=4, prefetch=20, retry=Retry(crashes=5))
    def work(body: int) -> None:
        with lock:
            calls.append(body)
        if body == 3:
            broker.drop_connections()

    outcomes = run(worker, timeout_s=30)
    assert [(each.reason, each.delivery.body) for each in outcomes.dead] == [("crashed", b"3")]
    assert calls.count(3) == 5
    assert set(calls) == set(range(40))
