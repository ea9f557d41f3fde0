"""Proof 5: the dead-letter place is deleted under load, and made again: nothing is lost, nothing runs hot, health tells.

    make proofs-worker ARGS='-k dead_place'

`UNIMQ_SHORT=1`: the place is away for 4 s instead of 12.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import unimq
from integration.proofs.kit import SHORT
from integration.proofs.raw import Raw
from integration.worker.kit import Tally, running, until
from unimq import Message, Queue, Retry, Worker

AWAY_S = 4.0 if SHORT else 12.0
RATE = 100.0  # messages a second
FATAL_EVERY = 10
PREFETCH = 400  # more than can get stuck while the place is away
CONCURRENCY = 4
TRIES_PER_S_MAX = 2.0  # back-off begins at 1 s; a hot loop is hundreds
BACK_OFF_MAX_S = 30.0
END_S = 10.0


class _Tries(logging.Handler):
    """Counts what the copier says of each try that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "could not be written" in record.getMessage()


class _Load(threading.Thread):
    """Sends `n`, at a steady rate, until told to end; what it sent is in `sent`."""

    def __init__(self, mq: unimq.Client, queue: Queue) -> None:
        super().__init__(name="load", daemon=True)
        self._mq, self._queue = mq, queue
        self._over = threading.Event()
        self.fatal = threading.Event()
        self.sent: list[int] = []
        self.doomed: list[int] = []

    def end(self) -> None:
        self._over.set()
        self.join(END_S)

    def run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(max(began + len(self.sent) / RATE - time.monotonic(), 0)):
            n = len(self.sent)
            doomed = int(self.fatal.is_set() and n % FATAL_EVERY == 0)
            self._mq.send(self._queue, Message({"n": n, "fatal": doomed}))
            self.sent.append(n)
            if doomed:
                self.doomed.append(n)


@pytest.mark.timeout(180)
def test_the_dead_letter_place_is_deleted_under_load(
    url: str, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    queue, good, calls = Queue(unique("dead-place")), Tally(), Tally()
    worker = Worker(url, declare=[queue])
    tries = _Tries()
    logging.getLogger("unimq.copies").addHandler(tries)

    @worker.handler(
        queue,
        concurrency=CONCURRENCY,
        prefetch=PREFETCH,
        retry=Retry(immediate=0, delayed_s=[]),
        fatal=KeyError,
    )
    def work(job: dict[str, int]) -> None:
        if job["fatal"]:
            calls.add(job["n"])
            raise KeyError("for good")
        good.add(job["n"])

    place = f"{queue.name}.dlq"
    with unimq.connect(url) as mq, Raw(url) as raw, ExitStack() as stack:
        mq.declare(queue)
        load = _Load(mq, queue)
        with running(worker):
            stack.callback(load.end)
            load.start()
            good.wait(lambda counts: len(counts) >= RATE, "it works")
            raw.delete(place)  # nothing lies there yet: nobody but the worker could lose anything
            load.fatal.set()
            deleted = time.monotonic()
            until(lambda: not worker.health().ok, "health is bad")
            bad_after_s = time.monotonic() - deleted
            handled = len(good.seen)
            raw.wait(AWAY_S)
            others = len(good.seen) - handled
            made = time.monotonic()
            tries_per_s = tries.count / (made - deleted)
            load.fatal.clear()
            mq.declare(queue)  # as an operator would
            if not raw.exists(place):
                mq.declare(Queue(place))
            until(lambda: worker.health().ok, "health is good again", BACK_OFF_MAX_S)
            good_after_s = time.monotonic() - made
            load.end()
            good.wait(
                lambda counts: len(counts) == len(load.sent) - len(load.doomed), "all good ones are handled"
            )
            until(lambda: raw.depth(place) >= len(load.doomed), "all others are dead")
        letters = [letter.body for letter in mq.dead_letters(queue).browse(limit=10_000)]
        mq.delete(queue)
        raw.delete(place)
    logging.getLogger("unimq.copies").removeHandler(tries)
    figure(
        f"dead place, {url.rsplit('@')[-1]}: away for {made - deleted:.1f} s: {len(load.doomed)} had to die, {len(letters)} "
        f"are dead; {tries.count} tries, {tries_per_s:.2f}/s; handlers of the dead were called {len(calls.seen)} times; others "
        f"went on with {others / AWAY_S:.0f}/s; health bad after {bad_after_s:.1f} s, good {good_after_s:.1f} s after its return"
    )
    assert len(letters) == len(load.doomed) and len(calls.seen) == len(load.doomed)
    assert len(good.seen) == len(load.sent) - len(load.doomed)
    assert tries_per_s <= TRIES_PER_S_MAX
    assert others >= RATE * AWAY_S / 2, "the others went on"
