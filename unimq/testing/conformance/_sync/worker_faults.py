# Generated from unimq/testing/conformance/_async/worker_faults.py by tools/unasync.py; do not edit.
"""A worker among faults: a broker that restarts, a message that kills its process, a stop at a bad moment.

Rules
- A line that is cut with messages in hand is what a dying process is to its broker; real processes are killed where an
  adapter's own tests can start them.
"""

from __future__ import annotations

import time

from unimq import Delivery, Retry, Worker

from ...harness import Harness
from .._check import within
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, dead, drain_all, fill, nothing, until

CRASHES = 3
# a broker that moves what is due by itself may try again only after minutes, when its own queue was not up yet
RESTART_PATIENCE_S = 200.0
DRAIN_S = 5.0
CLOSE_S = 12.0  # the worker's own bound for closing its links, and some


class Boom(Exception):
    """What a handler raises here."""


@behaviour(38, needs=("ack", "retry_delay"), hooks=("restart",), limit_s=500)
def attempts_survive_broker_restart(h: Harness) -> None:
    """A message that waits for its retry while the broker restarts comes back, and its tries are counted on."""
    assert h.restart is not None
    restart = h.restart
    seen: list[int] = []
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"again"])
    for attempt in (1, 2, 3):
        with kit.client(h) as mq:
            worker = Worker(mq)

            @worker.handler(queue, retry=Retry(immediate=0, delayed_s=[h.delay_s, h.delay_s]))
            def work(body: bytes, delivery: Delivery) -> None:
                seen.append(delivery.attempt)
                if delivery.attempt < 3:
                    raise Boom("not yet")

            with kit.working(worker):  # its end is the end of what it settled
                until(
                    h,
                    lambda count=attempt: len(seen) >= count,  # type: ignore[misc]
                    f"try {attempt}",
                    extra_s=0 if attempt == 1 else RESTART_PATIENCE_S,
                )
        if attempt < 3:
            kit.elsewhere(restart)
    assert seen == [1, 2, 3]
    with kit.client(h) as mq:
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(85, needs=("ack",), limit_s=90)
def drain_within_deadline(h: Harness) -> None:
    """A worker that stops finishes what is in hand and hands back the rest, whole; a stuck handler does not hold it up."""
    contents = bodies(20)
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, contents)
        begun: list[bytes] = []
        done: list[bytes] = []
        gate = kit.Gate()
        graceful = Worker(mq, drain_s=DRAIN_S)

        @graceful.handler(queue, concurrency=2, prefetch=10)
        def work(body: bytes) -> None:
            begun.append(body)
            gate.wait()
            done.append(body)

        with kit.working(graceful):
            kit.eventually(lambda: len(begun) == 2, h.patience_s, "two are in hand")
            graceful.stop()
            gate.open()
        assert sorted(done) == sorted(begun), "what was in hand was not finished"
        stuck: list[bytes] = []
        never = kit.Gate()
        hurried = Worker(mq, drain_s=0.5)

        @hurried.handler(queue)
        def wait(body: bytes) -> None:
            stuck.append(body)
            never.wait()

        with within(0.5 + CLOSE_S + h.patience_s, "starting a worker and stopping it with a stuck handler"):
            with kit.working(hurried):
                kit.eventually(lambda: bool(stuck), h.patience_s, "one is stuck")
        seen = drain_all(h, mq, queue, set(contents) - set(done))
        never.open()
    lost = set(contents) - set(done) - set(seen)
    twice = [body for body in seen if body in done or seen.count(body) > 1]
    assert not lost and not twice, f"lost: {lost}, twice: {twice}, of {len(done)} handled before"


@behaviour(135, needs=("ack", "crash_limit", "dead_letter"), hooks=("proxy",), limit_s=120)
def message_that_kills_its_process_dies_alone(h: Harness) -> None:
    """A message that takes its line down each time is dead after `crashes`, `crashed`; its neighbours in hand are handled."""
    assert h.proxy is not None
    contents = bodies(40)
    killer = contents[5]
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            fill(mq, queue, contents)
            calls: list[bytes] = []
            done: set[bytes] = set()
            worker = Worker(mq)

            @worker.handler(
                queue, concurrency=4, prefetch=20, retry=Retry(immediate=0, delayed_s=[], crashes=CRASHES)
            )
            def work(body: bytes, delivery: Delivery) -> None:
                calls.append(body)
                if body == killer:
                    line.cut()
                    kit.eventually(lambda: delivery.lock_lost, h.patience_s, "its lock is lost")
                done.add(body)

            with kit.working(worker):
                kit.eventually(lambda: done >= set(contents), h.patience_s * 3, "all were called")
                (letter,) = dead(h, mq, queue)
                innocent = set(contents) - {killer}
                kit.eventually(
                    lambda: worker.health().ok and innocent <= done, h.patience_s, "the others are handled"
                )
    assert letter.reason == "crashed" and letter.body == killer
    assert calls.count(killer) == CRASHES, f"{calls.count(killer)} calls of the killer"
    with kit.client(h) as mq:
        with mq.receiver(queue) as receiver:
            nothing(h, receiver)


@behaviour(136, needs=("ack",), hooks=("proxy",), limit_s=90)
def worker_stops_while_reconnecting(h: Harness) -> None:
    """A worker whose broker is gone stops within its bound, and what it had in hand comes again."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            fill(mq, queue, bodies(5))
            seen: list[bytes] = []
            never = kit.Gate()
            worker = Worker(mq, drain_s=0.5)

            @worker.handler(queue, concurrency=2)
            def work(body: bytes) -> None:
                seen.append(body)
                never.wait()

            began = 0.0
            with kit.working(worker):
                kit.eventually(lambda: len(seen) == 2, h.patience_s, "two are in hand")
                line.refuse()
                line.cut()
                kit.sleep(0.5)  # into the back-off
                began = time.monotonic()
            took_s = time.monotonic() - began
            assert took_s < 0.5 + CLOSE_S, f"stopping while reconnecting took {took_s:.1f} s"
            never.open()
            line.heal()
    with kit.client(h) as mq:
        assert sorted(set(drain_all(h, mq, queue, set(bodies(5))))) == bodies(5)
