# Generated from unimq/testing/conformance/_async/order.py by tools/unasync.py; do not edit.
"""Order and priority."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import unimq
from unimq import Delivery, Message, Queue, Retry, Worker

from ...harness import Harness
from .._check import refused
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, drain, fill, nothing, one, take, take_and_ack


def _keyed(mq: unimq.Client, queue: Queue, keys: int, per_key: int) -> None:
    """`per_key` numbered messages of each key, in turns."""
    messages = [Message(b"%d" % n, key=f"k{key}") for n in range(per_key) for key in range(keys)]
    (mq.send_many(queue, messages)).raise_for_errors()


@behaviour(45, needs=("ack", "order_per_key"))
def ordered_retry_blocks_only_its_key(h: Harness) -> None:
    """On an ordered source a failing message is tried before the next of its key; keys in other lanes go on meanwhile."""
    keys, per_key = 12, 4
    with kit.client(h) as mq:
        queue = h.queue(ordered=True)
        mq.declare(queue)
        _keyed(mq, queue, keys, per_key)
        begun: list[tuple[str, int, int]] = []
        done: dict[str, list[int]] = defaultdict(list)
        gate = kit.Gate()
        worker = Worker(mq)

        @worker.handler(queue, concurrency=4, prefetch=100, retry=Retry(immediate=2, delayed_s=[]))
        def work(n: int, delivery: Delivery) -> None:
            key = str(delivery.key)
            begun.append((key, n, delivery.attempt))
            if key == "k0" and n == 1:
                if delivery.attempt == 2:
                    gate.wait()
                if delivery.attempt < 3:
                    raise ValueError("not yet")
            done[key].append(n)

        with kit.working(worker):
            kit.eventually(
                lambda: any(len(each) == per_key for each in list(done.values())),
                h.patience_s,
                "another key is through, the failing one waits",
            )
            assert done["k0"] == [0], "the next of the key passed the failing one"
            gate.open()
            kit.eventually(
                lambda: sum(map(len, list(done.values()))) == keys * per_key, h.patience_s, "all are through"
            )
    assert [each[1:] for each in begun if each[0] == "k0"][1:5] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert all(numbers == list(range(per_key)) for numbers in done.values()), dict(done)


@behaviour(60, needs=("ack",))
def single_consumer_fifo(h: Harness) -> None:
    """One sender and one receiver: what was sent first comes first, over many batches."""
    contents = bodies(500)
    with kit.client(h) as mq:
        queue = h.queue(ordered=True) if mq.capabilities.order_per_key else h.queue()
        mq.declare(queue)
        with mq.sender(queue) as sender:
            pending = [sender.submit(Message(body, key="one")) for body in contents]
            for each in pending:
                kit.confirmed(each)
        with mq.receiver(queue) as receiver:
            assert take_and_ack(h, receiver, 500) == contents


@behaviour(61, needs=("ack", "order_per_key"))
def per_key_fifo_under_concurrency(h: Harness) -> None:
    """A worker with many hands on an ordered source handles each key's messages one after the other, in their order."""
    keys, per_key = 6, 30
    with kit.client(h) as mq:
        queue = h.queue(ordered=True)
        mq.declare(queue)
        _keyed(mq, queue, keys, per_key)
        done: dict[str, list[int]] = defaultdict(list)
        at_work: list[str] = []
        overlaps: list[str] = []
        most = [0]
        worker = Worker(mq)

        @worker.handler(queue, concurrency=4, prefetch=100, retry=Retry(immediate=1, delayed_s=[]))
        def work(n: int, delivery: Delivery) -> None:
            key = str(delivery.key)
            if key in at_work:
                overlaps.append(f"{key}:{n}")
            at_work.append(key)
            most[0] = max(most[0], len(at_work))
            kit.sleep(0.002)
            at_work.remove(key)
            if n % 10 == 3 and delivery.attempt == 1:
                raise ValueError("once")
            done[key].append(n)

        with kit.working(worker):
            kit.eventually(
                lambda: sum(map(len, list(done.values()))) == keys * per_key, h.patience_s, "all are handled"
            )
    assert not overlaps, f"two of one key at once: {overlaps}"
    wrong = [f"{key}: {numbers}" for key, numbers in done.items() if numbers != list(range(per_key))]
    assert not wrong, "; ".join(wrong)
    assert most[0] > 1, "nothing ran beside anything"


@behaviour(62, needs=("sessions",))
def session_exclusive_holder(h: Harness) -> None:
    """A session has one holder: who asks for it meanwhile gets nothing until it is given back."""
    with kit.client(h) as mq, kit.client(h) as other:
        queue = Queue(h.unique("sessions"), ordered=True)
        mq.declare(queue)
        for body in (b"one", b"two"):
            mq.send(queue, Message(body, key="s1"))
        with mq.receiver(queue, session="s1") as holder:
            first = one(h, holder)
            with other.receiver(queue, session="s1") as waiting:
                nothing(h, waiting)
            first.ack()
            holder.flush()
        with other.receiver(queue, session="s1") as next_holder:
            assert (one(h, next_holder)).body == b"two"


@behaviour(63, needs=("sessions",))
def session_state_roundtrip(h: Harness) -> None:
    """The state that a holder of a session leaves is there for the next."""
    with kit.client(h) as mq:
        queue = Queue(h.unique("sessions"), ordered=True)
        mq.declare(queue)
        mq.send(queue, Message(b"x", key="s1"))
        for expected in (None, b"state"):
            with mq.receiver(queue, session="s1") as receiver:
                (one(h, receiver)).release()
                session: Any = getattr(receiver, "session", None)
                assert session.get_state() == expected
                session.set_state(b"state")


@behaviour(64, needs=("ack", "order_per_key"), limit_s=120)
def rebalance_no_loss_order_kept(h: Harness) -> None:
    """Members of an ordered queue come and go in the middle of it: nothing is lost, and each key is settled in order."""
    keys, per_key = 4, 25
    with kit.client(h) as mq, kit.client(h) as other:
        queue = h.queue(ordered=True)
        mq.declare(queue)
        for number in range(per_key):
            for key in range(keys):
                mq.send(queue, Message(b"%03d" % number, key=f"k{key}"))
        settled: dict[object, list[bytes]] = defaultdict(list)
        with mq.receiver(queue, prefetch=10) as leaving:
            for delivery in take(h, leaving, 10):
                settled[delivery.key].append(delivery.body or b"")
                delivery.ack()
            leaving.flush()
            # in hand, never settled: they come back
            leaving.receive(max_messages=5, timeout_s=h.quiet_s)
        with other.receiver(queue, prefetch=10) as staying:
            wanted = keys * per_key
            while sum(len(set(each)) for each in settled.values()) < wanted:
                taken = take(h, staying, 1)
                assert taken, f"{sum(map(len, settled.values()))} of {wanted} came"
                settled[taken[0].key].append(taken[0].body or b"")
                taken[0].ack()
            staying.flush()
    for name, seen in settled.items():
        firsts = list(dict.fromkeys(seen))
        assert firsts == sorted(firsts) and len(firsts) == per_key, f"{name!r}: {seen}"


@behaviour(65, needs=("priority",))
def priority_high_first(h: Harness) -> None:
    """Of what waits, the higher priority comes first; equals come in order."""
    with kit.client(h) as mq:
        queue = h.queue()
        try:
            mq.declare(queue, max_priority=9)
        except unimq.Unsupported:
            mq.declare(queue)
        for body, priority in ((b"low", 1), (b"high1", 9), (b"mid", 5), (b"high2", 9), (b"low2", 1)):
            mq.send(queue, Message(body, priority=priority))
        with mq.receiver(queue, prefetch=1) as receiver:
            seen = []
            for _ in range(5):
                delivery = one(h, receiver)
                seen.append((delivery.body, delivery.priority))
                delivery.ack()
            receiver.flush()
        assert seen == [(b"high1", 9), (b"high2", 9), (b"mid", 5), (b"low", 1), (b"low2", 1)]


@behaviour(119, needs=("ack", "order_per_key", "release"))
def ordered_refuses_what_reorders(h: Harness) -> None:
    """On an ordered queue what would reorder is refused: a delayed policy at the start, and nothing has moved."""
    with kit.client(h) as mq:
        queue = h.queue(ordered=True)
        mq.declare(queue)
        fill(mq, queue, [b"one"])
        with refused(unimq.Unsupported):
            with mq.receiver(queue, retry=Retry(delayed_s=[1])) as receiver:
                receiver.ready(h.patience_s)
        assert drain(h, mq, queue, 1) == [b"one"]


@behaviour(120, needs=("ack",))
def order_of_one_sender_kept_under_concurrency(h: Harness) -> None:
    """Many tasks or threads send by one client: each one's messages keep their order, and none is lost or doubled."""
    workers, each = 8, 50
    with kit.client(h) as mq:
        queue = a_queue(mq, h)

        def work(number: int) -> None:
            for count in range(each):
                mq.send(queue, Message(b"%02d:%03d" % (number, count), key="one"))

        kit.gather(*(lambda number=number: work(number) for number in range(workers)))
        seen = drain(h, mq, queue, workers * each)
        assert len(set(seen)) == workers * each
        for number in range(workers):
            own = [body for body in seen if body is not None and body.startswith(b"%02d:" % number)]
            assert own == sorted(own)
