"""Health is progress: bad when nothing moves that should, good when idle; and what a time limit does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import unimq
from unimq import Message, Queue, Retry
from unimq.driver import Op
from unimq.errors import AuthenticationFailed
from unimq.registry import find
from unimq.testing.running import run
from unimq.worker import Verb, Worker
from unimq.worker.probe import shifted
from unimq.worker.worker import GAVE_UP

A = Queue("a")
ONCE = Retry(immediate=0, delayed_s=[])


def fill(url: str, count: int) -> None:
    with unimq.connect(url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n) for n in range(count)]).raise_for_errors()


@contextmanager
def running(worker: Worker) -> Iterator[list[int]]:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(worker.run()), daemon=True)
    thread.start()
    try:
        yield codes
    finally:
        worker.stop()
        worker.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        pause.wait(0.005)


def ask(worker: Worker) -> tuple[int, dict[str, object]]:
    address = worker.health_address
    assert address is not None
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/healthz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_an_async_handler_over_its_time_is_cancelled_and_tried_again(unimq_url: str) -> None:
    fill(unimq_url, 2)
    cancelled = 0
    worker = Worker(unimq_url)

    @worker.handler(A, timeout_s=0.05, retry=Retry(immediate=1, delayed_s=[]))
    async def slow(body: int) -> None:
        nonlocal cancelled
        if body == 0:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled += 1
                raise

    outcomes = run(worker)
    assert cancelled == 2
    assert [outcome.verb for outcome in outcomes] == [Verb.IN_HAND, Verb.DEAD, Verb.ACKED]
    assert "slow took longer than 0.05 s" in str(outcomes.errors[0])


def test_a_handlers_own_time_out_and_cancel_are_its_own_failures(unimq_url: str) -> None:
    fill(unimq_url, 2)
    worker = Worker(unimq_url)

    @worker.handler(A, timeout_s=5, retry=ONCE)
    async def fails(body: int) -> None:
        if body == 0:
            raise TimeoutError("my own")
        task = asyncio.ensure_future(asyncio.sleep(30))
        task.cancel()
        await task

    outcomes = run(worker)
    assert str(outcomes.errors[0]) == "my own"
    assert "was cancelled from inside" in str(outcomes.errors[1])
    assert [outcome.verb for outcome in outcomes] == [Verb.DEAD, Verb.DEAD]


def test_a_sync_handler_over_its_time_is_stuck_and_settled_once(unimq_url: str) -> None:
    fill(unimq_url, 1)
    gate, begun = threading.Event(), threading.Event()
    worker = Worker(unimq_url, health_port="127.0.0.1:0")

    @worker.handler(A, timeout_s=0.1)
    def slow(body: int) -> None:
        begun.set()
        gate.wait(20)

    with running(worker):
        assert begun.wait(5)
        until(lambda: not worker.health().ok)
        status, said = ask(worker)
        assert status == 503
        assert "slow is stuck" in str(said["problems"])
        with unimq.connect(unimq_url) as mq:
            assert mq.stats(A).in_flight == 1, "nobody settles it behind the handler's back"
            gate.set()
            until(lambda: worker.health().ok)
            assert ask(worker)[0] == 200
            until(lambda: mq.stats(A).in_flight == 0)
            assert mq.stats(A).depth == 0 and mq.dead_letters(A).count() == 0


def test_idle_is_good_and_stopped_is_not(unimq_url: str) -> None:
    fill(unimq_url, 0)
    worker = Worker(unimq_url, health_port="127.0.0.1:0", health_after_s=0.5)

    @worker.handler(A)
    def work(body: int) -> None: ...

    assert not worker.health().ok
    with running(worker):
        until(lambda: worker.health().ok)
        threading.Event().wait(1.2)
        assert ask(worker)[0] == 200
    assert worker.health_address is None
    assert not worker.health().ok


def test_a_blocked_loop_is_told(unimq_url: str) -> None:
    fill(unimq_url, 1)
    gate = threading.Event()
    worker = Worker(unimq_url, health_port="127.0.0.1:0", health_after_s=0.5)

    @worker.handler(A)
    async def blocks(body: int) -> None:
        gate.wait(20)  # on the loop: nothing else runs

    with running(worker):
        until(lambda: "an async handler blocks it" in str(worker.health().problems), timeout_s=10)
        assert ask(worker)[0] == 503
        gate.set()
        until(lambda: worker.health().ok)


def test_a_dead_letter_place_that_is_gone_is_told_and_nothing_is_lost(unimq_url: str) -> None:
    """Deleted under load, then made again: no hot loop, nothing lost, health bad and good again."""
    fill(unimq_url, 3)
    broker = find("memory").broker(unimq_url)
    own = Queue("graves")
    tries = 0
    worker = Worker(unimq_url, declare=[own])

    @worker.handler(A, retry=ONCE, dead_letter=own)
    def fails(body: int) -> None:
        nonlocal tries
        tries += 1
        raise ValueError

    with unimq.connect(unimq_url) as mq, running(worker):
        until(lambda: tries == 3)
        until(lambda: len(mq.browse(own)) == 3)
        mq.delete(own)
        fill(unimq_url, 3)
        until(lambda: not worker.health().ok)
        assert "copies to queue:graves wait" in str(worker.health().problems)
        until(lambda: tries == 6)
        threading.Event().wait(0.5)
        assert tries == 6, "the handler is not called again while its copy waits"
        mq.declare(own)
        until(lambda: len(mq.browse(own)) == 3, timeout_s=20)
        until(lambda: worker.health().ok)
        assert mq.stats(A).in_flight == 0
    assert broker.places() >= {"a", "graves"}


def test_a_login_refused_for_too_long_ends_the_worker(
    unimq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(unimq_url, 0)
    broker = find("memory").broker(unimq_url)
    worker = Worker(unimq_url, auth_grace_s=0.5)

    @worker.handler(A)
    def work(body: int) -> None: ...

    with running(worker) as codes:
        until(lambda: worker.health().ok)
        shift = worker._shift
        assert shift is not None and shift.client is not None
        supervisor = shift.client._supervisor

        def refused(error: BaseException, op: Op, handed_over: bool) -> unimq.UnimqError:
            return AuthenticationFailed("user and password are refused")

        monkeypatch.setattr(supervisor, "classify", refused)
        broker.refuse()
        broker.drop_connections()
        until(lambda: codes == [GAVE_UP], timeout_s=10)


@pytest.mark.parametrize("port", ["nonsense", "localhost:http"])
def test_a_port_that_is_none_is_refused(unimq_url: str, port: str) -> None:
    worker = Worker(unimq_url, health_port=port)
    worker.handler(A)(lambda body: None)
    with pytest.raises(ValueError, match="health_port is a number or"):
        worker.run()


def test_each_process_has_a_port_of_its_own() -> None:
    assert [shifted(9000, number) for number in range(3)] == [9000, 9001, 9002]
    assert shifted("probe.example:9000", 2) == "probe.example:9002"
    assert (shifted(0, 3), shifted(None, 3)) == (0, None)
