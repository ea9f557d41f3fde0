"""Proof 7: SIGTERM under load, while reconnecting and with a stuck handler; a second signal hurries.

    make proofs-worker ARGS='-k stop'

Each is a process of its own (`clerk.py`). Measured: the time to its exit, its exit code, what was handed back. What is handed
back is ready at the broker, at once, and nothing of it was ever begun.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import unimq
from integration.proofs_worker.clerk import CONCURRENCY
from integration.sources import host_and_port
from integration.worker.kit import until
from unimq import Message, Queue
from unimq.testing.proxy import FaultProxy
from unimq.worker.worker import DONE, NOT_DRAINED

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = 400
WORK_S = 0.05
DRAIN_S = 3.0
LONG_DRAIN_S = 60.0
EXIT_S = 3.0  # beyond what was to be waited for: closing links, a busy machine
LIMIT_S = 30.0
pytestmark = pytest.mark.timeout(120)
Figure = Callable[[str], None]


@dataclass
class Clerk:
    """The process, what it has written, and the queue it reads."""

    mq: unimq.Client
    queue: Queue
    results: Path
    process: subprocess.Popen[bytes]

    def seen(self, what: str) -> list[int]:
        lines = [line.split() for line in self.results.read_text().splitlines()]
        return [int(line[1]) for line in lines if line[0] == what]

    def depth(self) -> int:
        return self.mq.stats(self.queue).depth or 0

    def signalled(self, *signals: int, pause_s: float = 0.0) -> float:
        """Seconds from the last of them to the exit."""
        for number in signals[:-1]:
            self.process.send_signal(number)
            time.sleep(pause_s)  # not a wait for anything: the second signal comes while the first is obeyed
            assert self.process.poll() is None, "it ended before the second signal"
        began = time.monotonic()
        self.process.send_signal(signals[-1])
        self.process.wait(LIMIT_S)
        return time.monotonic() - began


Start = Callable[..., Clerk]


@pytest.fixture
def start(url: str, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Start]:
    """`start(sleeps, drain_s, through)`: the queue filled, the clerk at work on it."""
    with unimq.connect(url) as mq:
        made: list[Clerk] = []

        def go(sleeps_s: list[float | None], drain_s: float, through: FaultProxy | None = None) -> Clerk:
            queue = Queue(unique("stop"))
            mq.declare(queue)
            jobs = [Message({"n": n, "sleep_s": sleep_s}) for n, sleep_s in enumerate(sleeps_s)]
            mq.send_many(queue, jobs).raise_for_errors()
            results = tmp_path / "results"
            results.touch()
            environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"}
            reached = url if through is None else through.url(url)
            command = [
                sys.executable,
                "-m",
                "integration.proofs_worker.clerk",
                reached,
                queue.name,
                str(results),
            ]
            with (tmp_path / "log").open("ab") as log:
                process = subprocess.Popen([*command, str(drain_s)], env=environment, stdout=log, stderr=log)
            made.append(Clerk(mq, queue, results, process))
            return made[0]

        try:
            yield go
        finally:
            for clerk in made:
                clerk.process.kill()
                clerk.process.wait(LIMIT_S)
                mq.delete(clerk.queue)


@pytest.fixture
def proxy(url: str) -> Iterator[FaultProxy]:
    with FaultProxy(*host_and_port(url)) as proxy:
        yield proxy


def test_stop_under_load(start: Start, url: str, figure: Figure) -> None:
    clerk = start([WORK_S] * MESSAGES, DRAIN_S)
    until(lambda: len(clerk.seen("handled")) >= MESSAGES // 4, "it works")
    took_s = clerk.signalled(signal.SIGTERM)
    handled, begun = clerk.seen("handled"), clerk.seen("begun")
    until(lambda: clerk.depth() == MESSAGES - len(handled), "the rest is back")
    _show(figure, url, "under load", clerk, took_s)
    assert clerk.process.returncode == DONE
    assert took_s < WORK_S + EXIT_S
    assert sorted(handled) == sorted(set(handled)) == sorted(begun), "what was begun was finished, once"


def test_stop_while_reconnecting(start: Start, url: str, proxy: FaultProxy, figure: Figure) -> None:
    clerk = start([WORK_S] * MESSAGES, DRAIN_S, proxy)
    until(lambda: len(clerk.seen("handled")) >= MESSAGES // 8, "it works")
    proxy.refuse()
    proxy.cut()
    time.sleep(0.5)  # what is in hand ends, and it tries to connect again and again
    took_s = clerk.signalled(signal.SIGTERM)
    handled = set(clerk.seen("handled"))
    until(lambda: clerk.depth() >= MESSAGES - len(handled), "the rest is back")
    _show(figure, url, "while reconnecting", clerk, took_s)
    assert clerk.process.returncode == DONE
    assert took_s < EXIT_S
    assert clerk.depth() <= MESSAGES - len(handled) + 2 * CONCURRENCY + PREFETCH_UNHEARD


def test_stop_with_a_stuck_handler(start: Start, url: str, figure: Figure) -> None:
    clerk = start([None, *[WORK_S] * (MESSAGES - 1)], DRAIN_S)
    until(lambda: len(clerk.seen("handled")) >= MESSAGES // 8, "the others go on")
    took_s = clerk.signalled(signal.SIGTERM)
    handled = clerk.seen("handled")
    until(lambda: clerk.depth() == MESSAGES - len(handled), "the rest is back, and the stuck one")
    _show(figure, url, f"with a stuck handler, drain_s={DRAIN_S:g}", clerk, took_s)
    assert clerk.process.returncode == NOT_DRAINED
    assert DRAIN_S <= took_s < DRAIN_S + EXIT_S
    assert 0 not in handled


def test_a_second_signal_hurries(start: Start, url: str, figure: Figure) -> None:
    clerk = start([None, *[WORK_S] * (MESSAGES - 1)], LONG_DRAIN_S)
    until(lambda: len(clerk.seen("handled")) >= MESSAGES // 8, "the others go on")
    took_s = clerk.signalled(signal.SIGTERM, signal.SIGTERM, pause_s=1.0)
    handled = clerk.seen("handled")
    until(lambda: clerk.depth() == MESSAGES - len(handled), "the rest is back, and the stuck one")
    _show(figure, url, f"second signal, stuck handler, drain_s={LONG_DRAIN_S:g}", clerk, took_s)
    assert clerk.process.returncode == NOT_DRAINED
    assert took_s < EXIT_S
    assert 0 not in handled


PREFETCH_UNHEARD = 20  # acknowledged while the line was already gone: these come again


def _show(figure: Figure, url: str, what: str, clerk: Clerk, took_s: float) -> None:
    handled = clerk.seen("handled")
    figure(
        f"stop, {url.rsplit('@')[-1]}: {what}: exit {clerk.process.returncode} after {took_s:.2f} s; {len(handled)} handled, "
        f"{clerk.depth()} handed back or never fetched, begun and not finished {len(set(clerk.seen('begun')) - set(handled))}"
    )
