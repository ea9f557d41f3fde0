"""Stopping: what is in hand is finished, the rest goes back, and it never takes longer than it may."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import unimq
from unimq import Message, Queue
from unimq.registry import find
from unimq.testing.running import run
from unimq.worker import Worker
from unimq.worker.stopping import TRANSITIONS, Stage, Stopping
from unimq.worker.worker import DONE, GAVE_UP, NOT_DRAINED

A = Queue("a")
ROOT = Path(__file__).resolve().parents[2]


def fill(url: str, count: int) -> None:
    with unimq.connect(url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n) for n in range(count)]).raise_for_errors()


class Running:
    """A worker in a thread: `code` once it is over."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.code: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.code = self.worker.run()
        except BaseException as error:
            self.error = error

    def join(self, timeout_s: float = 10.0) -> int | None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "it does not stop"
        return self.code


@contextmanager
def running(worker: Worker) -> Iterator[Running]:
    it = Running(worker)
    try:
        yield it
    finally:
        worker.stop()
        worker.stop()
        it.join()


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        pause.wait(0.005)


# ----------------------------------------------------------------------------------------------------------- the table
def test_every_stage_can_be_stopped_and_ends() -> None:
    for stage in Stage:
        seen = {stage}
        while True:
            onwards = {TRANSITIONS[(s, w)] for (s, w) in TRANSITIONS if s in seen} - seen
            if not onwards:
                break
            seen |= onwards
        assert Stage.STOPPED in seen
        assert (stage, "stop") in TRANSITIONS, f"stop has no answer in {stage}"


@pytest.mark.unimq_async(timeout_s=10)
async def test_the_first_stop_drains_the_second_hurries() -> None:
    stopping = Stopping()
    stopping.stop()
    assert stopping.stage is Stage.NEW, "before the start it has no effect"
    stopping.bind()
    stopping.move("start")
    stopping.move("started")
    stopping.stop()
    await asyncio.sleep(0)
    assert stopping.wanted.is_set() and not stopping.hurried.is_set()
    stopping.stop()
    await asyncio.sleep(0)
    assert stopping.hurried.is_set()


# ---------------------------------------------------------------------------------------------------------- in process
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_is_in_hand_is_finished_and_the_rest_goes_back(unimq_url: str, kind: str) -> None:
    fill(unimq_url, 50)
    begun, ended = [], []
    gate = threading.Event()
    worker = Worker(unimq_url)

    def work(body: int) -> None:
        begun.append(body)
        gate.wait(5)
        ended.append(body)

    async def work_async(body: int) -> None:
        begun.append(body)
        while not gate.is_set():
            await asyncio.sleep(0.01)
        ended.append(body)

    worker.handler(A, concurrency=3)(work if kind == "sync" else work_async)
    it = Running(worker)
    until(lambda: len(begun) == 3)
    worker.stop()
    threading.Event().wait(0.1)
    assert len(begun) == 3, "nothing new begins"
    gate.set()
    assert it.join() == DONE
    assert sorted(ended) == sorted(begun)
    with unimq.connect(unimq_url) as mq:
        stats = mq.stats(A)
    assert (stats.depth, stats.in_flight) == (47, 0)


def test_drain_s_is_the_limit_and_a_stuck_message_goes_back(unimq_url: str) -> None:
    fill(unimq_url, 1)
    begun, gate = threading.Event(), threading.Event()
    worker = Worker(unimq_url, drain_s=0.3)

    @worker.handler(A)
    def stuck(body: int) -> None:
        begun.set()
        gate.wait(20)

    it = Running(worker)
    assert begun.wait(5)
    began = time.monotonic()
    worker.stop()
    assert it.join() == NOT_DRAINED
    assert 0.3 <= time.monotonic() - began < 3
    with unimq.connect(unimq_url) as mq:
        assert mq.stats(A).depth == 1
        gate.set()  # it ends now, and its ack must find nothing to settle
        threading.Event().wait(0.1)
        assert mq.stats(A).depth == 1


def test_an_async_handler_beyond_the_drain_is_cancelled_and_its_message_goes_back(unimq_url: str) -> None:
    fill(unimq_url, 1)
    begun, cancelled = threading.Event(), threading.Event()
    worker = Worker(unimq_url, drain_s=0.2)

    @worker.handler(A)
    async def slow(body: int) -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    it = Running(worker)
    assert begun.wait(5)
    worker.stop()
    assert it.join() == NOT_DRAINED
    assert cancelled.is_set()
    with unimq.connect(unimq_url) as mq:
        assert mq.stats(A).depth == 1
        assert mq.dead_letters(A).count() == 0


def test_a_second_stop_hurries(unimq_url: str) -> None:
    fill(unimq_url, 1)
    begun, gate = threading.Event(), threading.Event()
    worker = Worker(unimq_url, drain_s=60)

    @worker.handler(A)
    def stuck(body: int) -> None:
        begun.set()
        gate.wait(20)

    it = Running(worker)
    assert begun.wait(5)
    began = time.monotonic()
    worker.stop()
    worker.stop()
    assert it.join() == NOT_DRAINED
    assert time.monotonic() - began < 3
    gate.set()


def test_stop_while_it_waits_for_the_broker(unimq_url: str) -> None:
    broker = find("memory").broker(unimq_url)
    broker.refuse()
    worker = Worker(unimq_url, wait_for_broker_s=60)
    worker.handler(A)(lambda_like)
    it = Running(worker)
    until(lambda: worker._shift is not None and worker._shift.stopping.stage is Stage.STARTING)
    threading.Event().wait(0.3)
    began = time.monotonic()
    worker.stop()
    assert it.join() == DONE
    assert time.monotonic() - began < 3


def lambda_like(body: bytes) -> None: ...


def test_it_waits_for_a_broker_that_is_late(unimq_url: str) -> None:
    fill(unimq_url, 3)
    find("memory").broker(unimq_url).refuse(2)
    worker = Worker(unimq_url)
    worker.handler(A)(lambda_like)
    assert len(run(worker, timeout_s=10).handled) == 3


def test_a_broker_that_never_comes_is_an_error_at_start(unimq_url: str) -> None:
    find("memory").broker(unimq_url).refuse()
    worker = Worker(unimq_url, wait_for_broker_s=0.5)
    worker.handler(A)(lambda_like)
    with pytest.raises(unimq.ConnectionFailed):
        worker.run()


def test_stop_while_reconnecting(unimq_url: str) -> None:
    fill(unimq_url, 1)
    broker = find("memory").broker(unimq_url)
    worker = Worker(unimq_url, health_after_s=0.2)
    worker.handler(A)(lambda_like)
    it = Running(worker)
    until(lambda: worker.health().ok)
    broker.refuse()
    broker.drop_connections()
    until(lambda: not worker.health().ok)
    assert any("not reachable" in problem for problem in worker.health().problems)
    began = time.monotonic()
    worker.stop()
    assert it.join() == DONE
    assert time.monotonic() - began < 3


def test_it_comes_back_after_a_reconnect(unimq_url: str) -> None:
    fill(unimq_url, 5)
    broker = find("memory").broker(unimq_url)
    seen: list[bytes] = []
    worker = Worker(unimq_url)

    @worker.handler(A)
    def work(body: bytes) -> None:
        seen.append(body)

    with running(worker):
        until(lambda: len(seen) == 5)
        broker.restart()
        fill(unimq_url, 5)
        until(lambda: len(seen) >= 10)
        until(lambda: worker.health().ok)


def test_a_source_that_is_gone_for_good_ends_the_worker(unimq_url: str) -> None:
    """With topology="assume" nobody makes it again: only a restart can mend that, so the process must end."""
    fill(unimq_url, 1)
    with unimq.connect(unimq_url, topology="assume") as mine, unimq.connect(unimq_url) as mq:
        worker = Worker(mine)
        worker.handler(A)(lambda_like)
        it = Running(worker)
        until(lambda: worker.health().ok)
        mq.delete(A)
        assert it.join() == GAVE_UP
        assert mine.health().ok, "a client that was given is not closed"
        mine.declare(Queue("other"))


@pytest.mark.unimq_async(timeout_s=20)
async def test_inside_a_loop(unimq_url: str) -> None:
    """As in an ASGI application: on the loop that is there, no signals, and it may begin anew."""
    fill(unimq_url, 0)
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    worker = Worker(unimq_url)

    @worker.handler(A)
    async def work(body: bytes) -> None:
        assert asyncio.get_running_loop() is loop
        seen.put_nowait(body)

    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    for round_ in range(2):
        async with worker, unimq.connect_async(unimq_url) as mq:
            assert signal.getsignal(signal.SIGTERM) is before
            await mq.send(A, b"%d" % round_)
            assert await seen.get() == b"%d" % round_
            assert worker.health().ok
        assert not worker.health().ok


@pytest.mark.unimq_async(timeout_s=20)
async def test_with_an_async_client_of_ones_own(unimq_url: str) -> None:
    fill(unimq_url, 1)
    seen = asyncio.Event()
    async with unimq.connect_async(unimq_url) as mq:
        worker = Worker(mq)

        @worker.handler(A)
        async def work(body: bytes, client: unimq.AsyncClient) -> None:
            assert client is mq
            seen.set()

        async with worker:
            await seen.wait()
        await mq.send(A, b"still open")


@pytest.mark.unimq_async(timeout_s=20)
async def test_two_brokers_in_one_process(unimq_url: str) -> None:
    """A worker for each, side by side on one loop; here what comes from one is carried on to the other."""
    other = f"{unimq_url}-other"
    fill(unimq_url, 1)
    fill(other, 0)
    carried = asyncio.Event()
    async with unimq.connect_async(other) as there:
        here, beyond = Worker(unimq_url), Worker(there)

        @here.handler(A)
        async def carry(body: bytes) -> None:
            await there.send(A, body)

        @beyond.handler(A)
        async def work(body: bytes) -> None:
            carried.set()

        async with here, beyond:
            await carried.wait()
    unimq.testing.reset(other)


def test_pause_and_resume(unimq_url: str) -> None:
    fill(unimq_url, 3)
    seen: list[bytes] = []
    worker = Worker(unimq_url)

    @worker.handler(A)
    def work(body: bytes) -> None:
        seen.append(body)

    with running(worker):
        until(lambda: len(seen) == 3)
        worker.pause(work)
        threading.Event().wait(0.05)
        fill(unimq_url, 3)
        threading.Event().wait(0.2)
        assert len(seen) == 3
        assert worker.health().ok
        worker.resume(work)
        until(lambda: len(seen) == 6)
        with pytest.raises(ValueError, match="is no handler of this worker"):
            worker.pause(print)


def test_it_does_not_run_twice_at_once(unimq_url: str) -> None:
    worker = Worker(unimq_url)
    worker.handler(A)(lambda_like)
    with running(worker):
        until(lambda: worker.health().ok)
        with pytest.raises(unimq.UnimqError, match="runs already"):
            worker.run()


def test_no_thread_is_left(unimq_url: str) -> None:
    def names() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("unimq")}

    fill(unimq_url, 10)
    before = names()
    worker = Worker(unimq_url, health_port="127.0.0.1:0")
    worker.handler(A, concurrency=4)(lambda_like)
    for _ in range(5):
        run(worker)
    until(lambda: names() <= before)


# ----------------------------------------------------------------------------------------------------- by signal
SCRIPT = """
import signal, sys, threading, time
import unimq
from unimq import Queue, Retry
from unimq.worker import Worker

worker = Worker("memory://signals", drain_s={drain_s}, declare=[Queue("a")])

@worker.handler(Queue("a"))
def work(body: bytes) -> None:
    print("begun", flush=True)
    time.sleep({takes_s})
    print("ended", flush=True)

def feed():
    with unimq.connect("memory://signals") as mq:
        mq.declare(Queue("a"))
        mq.send(Queue("a"), b"1")
threading.Thread(target=feed, daemon=True).start()
sys.exit(worker.run())
"""


def script(**values: float) -> subprocess.Popen[str]:
    code = textwrap.dedent(SCRIPT).format(**values)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number: signal.Signals) -> None:
    with script(drain_s=10, takes_s=0.5) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=15)
        assert (process.returncode, out) == (DONE, "ended\n"), err


def test_a_second_signal_hurries_a_stuck_one() -> None:
    with script(drain_s=60, takes_s=60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.3)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=15)
        assert process.returncode == NOT_DRAINED, err
        assert time.monotonic() - began < 5
