"""The same worker in memory, on the reference broker and on every real broker, nothing but the URL differs: retries, delays,
dead letters, replay, stopping. What each did is one line a broker (`pytest -s`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unimq
import unimq.broker
from integration.proofs_worker.victim import CRASHES
from integration.sources import Broker
from integration.worker.kit import Tally, running, until
from unimq import Delivery, Message, Queue, Retry, Worker

Name = Callable[[str], str]
ROOT = Path(__file__).resolve().parents[2]
OURS = ("memory", "reference")
REAL = ("rabbitmq", "kafka", "artemis", "classic")
DELAY_S = 0.5
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    with unimq.broker.run(amqp=0) as running:
        yield running.urls["amqp"]


@pytest.fixture
def place(request: pytest.FixtureRequest, unimq_url: str, real_broker: Callable[[str], Broker]) -> str:
    """The URL of the broker that the parameter names."""
    if request.param == "memory":
        return unimq_url
    if request.param == "reference":
        return str(request.getfixturevalue("reference"))
    return real_broker(request.param).url


@pytest.fixture
def called(request: pytest.FixtureRequest) -> str:
    """What the parameter calls it: the reference broker says that it is a RabbitMQ."""
    return str(request.node.callspec.params["place"])


everywhere = pytest.mark.parametrize("place", [*OURS, *REAL], indirect=True)


@pytest.mark.parametrize("kind", ["sync", "async"])
@everywhere
def test_retry_delay_dead_letter_and_replay(place: str, called: str, unique: Name, kind: str) -> None:
    url, queue = place, Queue(unique("worker"))
    tally = Tally()
    worker = Worker(url, declare=[queue], drain_s=10)
    mended = threading.Event()

    second_failed_at = [0.0]

    def work(n: int, delivery: Delivery) -> None:
        if n == 2 and delivery.attempt <= 2:
            second_failed_at[0] = time.monotonic()
            raise ConnectionError("passes")
        if n == 3 and not mended.is_set():
            raise ValueError("stays")
        if n == 4:
            raise KeyError("for good")
        tally.add((n, delivery.attempt))

    async def work_async(n: int, delivery: Delivery) -> None:
        work(n, delivery)

    policy = Retry(immediate=1, delayed_s=[DELAY_S])
    worker.handler(queue, concurrency=4, retry=policy, fatal=KeyError)(work if kind == "sync" else work_async)
    with unimq.connect(url) as mq:
        mq.declare(queue)
        dead = mq.dead_letters(queue)
        with running(worker) as run:
            bodies = [Message(b"%d" % n, message_id=f"m{n}") for n in range(30)] + [Message(b"no number")]
            mq.send_many(queue, bodies).raise_for_errors()
            tally.wait(lambda counts: len(counts) >= 28, "all that can be handled")
            until(lambda: len(dead.browse()) == 3, "three dead letters")
        assert run.code == 0
        assert tally.counts[2, 3] == 1, "handled at its third try, after a delay"
        assert {n for n, _ in tally.counts} == set(range(30)) - {3, 4}
        letters = {letter.body: letter for letter in dead.browse()}
        assert {body: letter.reason for body, letter in letters.items()} == {
            b"3": "exhausted", b"4": "fatal", b"no number": "undecodable",
        }  # fmt: skip
        assert letters[b"3"].attempts == 4 and letters[b"3"].error_type == "builtins.ValueError"
        assert letters[b"3"].delivery.message_id == "m3"
        mended.set()
        assert dead.replay(where=lambda letter: letter.reason == "exhausted") == 1
        with running(worker):
            tally.wait(lambda counts: counts[3, 1] == 1, "the replayed one, begun anew")
        until(lambda: len(dead.browse()) == 2, "the others stay")
        found = mq.capabilities.found or "in this process"
    (back_at,) = [at for what, at in tally.seen if what == (2, 3)]
    late_s = back_at - second_failed_at[0] - DELAY_S
    assert late_s > -0.05, "it came early"
    reasons = ", ".join(sorted(str(letter.reason) for letter in letters.values()))
    print(
        f"\n{called} ({found}), {kind}: 28 of 31 handled, one of them at its third try {late_s:+.2f} s after its delay of "
        f"{DELAY_S:g} s; 3 dead ({reasons}), 1 of them replayed and handled; stopped in {run.stop_took_s:.2f} s"
    )


@everywhere
def test_a_stop_under_load_hands_back_what_was_not_begun(place: str, called: str, unique: Name) -> None:
    url, queue = place, Queue(unique("stop"))
    tally = Tally()
    worker = Worker(url, declare=[queue], drain_s=10)

    @worker.handler(queue, concurrency=4)
    def slow(n: int) -> None:
        threading.Event().wait(0.02)
        tally.add(n)

    with unimq.connect(url) as mq:
        mq.declare(queue)
        mq.send_many(queue, [Message(b"%d" % n) for n in range(300)]).raise_for_errors()
        with running(worker) as first:
            tally.wait(lambda counts: len(counts) >= 40, "some are handled")
        assert first.code == 0
        assert first.stop_took_s < 5
        handled = len(tally.seen)
        assert handled < 300
        with running(worker):
            tally.wait(lambda counts: len(counts) == 300, "the others, by the next one")
        found = mq.capabilities.found or "in this process"
    assert len(tally.seen) == 300, "a clean stop leaves no duplicates"
    print(
        f"\n{called} ({found}): stopped under load in {first.stop_took_s:.2f} s with {handled} of 300 handled, "
        f"{300 - handled} handed back and handled by the next, none twice"
    )


@pytest.mark.parametrize("place", ["reference", "rabbitmq", "artemis", "classic"], indirect=True)
def test_a_message_that_kills_its_process_dies_and_its_neighbours_do_not(
    place: str, unique: Name, tmp_path: Path
) -> None:
    """First in a full prefetch; every process starts with an empty home."""
    url, queue = place, Queue(unique("crash"))
    results = tmp_path / "handled"
    results.touch()
    deaths = 0
    with unimq.connect(url) as mq:
        mq.declare(queue)
        kinds = {n: "killer" if n == 0 else "good" for n in range(40)}
        mq.send_many(queue, [Message({"n": n, "kind": kind}) for n, kind in kinds.items()]).raise_for_errors()
        dead = mq.dead_letters(queue)

        def handled() -> set[int]:
            return {int(line.split()[0]) for line in results.read_text().splitlines()}

        while deaths < CRASHES + 2:
            process = start_victim(url, queue.name, results, tmp_path)
            try:
                until(
                    lambda p=process: p.poll() is not None or len(dead.browse()) == 1,
                    "it dies, or its message",
                    40,
                )
                if process.poll() is None:
                    until(lambda: len(handled()) == 39, "the others are handled")
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(20) == 0
                    break
                assert process.returncode == -signal.SIGKILL
                deaths += 1
            finally:
                process.kill()
                process.wait(10)
        (letter,) = dead.browse()
    assert deaths == CRASHES
    assert letter.reason == "crashed" and b'"killer"' in (letter.body or b"")
    assert handled() == set(range(1, 40))


def start_victim(url: str, queue: str, results: Path, folder: Path) -> subprocess.Popen[bytes]:
    home = Path(tempfile.mkdtemp(prefix="home-", dir=folder))
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"}
    command = [sys.executable, "-m", "integration.proofs_worker.victim", url, queue, str(results)]
    with (folder / "victims.log").open("ab") as log:
        return subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
