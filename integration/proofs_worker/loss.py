"""The loss proof: fill a queue, kill the workers, then compare sent, handled and dead. Raw pika only: nothing of unimq.

Rules
- Everything random comes from one seed. Every process starts with an empty home and working directory.
- A round ends when the queue and its delay places are empty and nothing is in a worker's hands, or at its limit.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240.0
KILL_EVERY_S = 2.0
LOOK_S = 0.1
QUIET_S = 2.0  # empty for so long, and nobody is killed meanwhile
WORKERS = 2
QUORUM_ARGUMENTS = {"x-queue-type": "quorum"}


@dataclass
class Report:
    """What was found; `wrong` is empty when the promise held."""

    queue: str
    sent: dict[int, str]
    handled: Counter[int] = field(default_factory=Counter)
    dead: dict[int, list[str]] = field(default_factory=dict)
    kills: int = 0
    own_deaths: int = 0
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        return sum(count - 1 for count in self.handled.values()) + sum(
            len(each) - 1 for each in self.dead.values()
        )

    def __str__(self) -> str:
        kinds = Counter(self.sent.values())
        reasons = Counter(reason for each in self.dead.values() for reason in each)
        return (
            f"{self.queue}: sent {len(self.sent)} {dict(kinds)}, handled {len(self.handled)}, dead {len(self.dead)} "
            f"{dict(reasons)}, duplicates {self.duplicates}, kills {self.kills}, own deaths {self.own_deaths}, "
            f"{self.took_s:.0f} s; {'; '.join(self.wrong) or 'all well'}"
        )


def kinds(count: int, rng: random.Random, killers: int = 3) -> dict[int, str]:
    """10 % transient, 1 % for good (half of them fatal), `killers`, one of them the first of all."""
    made = dict.fromkeys(range(count), "good")
    others = rng.sample(range(1, count), count // 10 + count // 100 + killers - 1)
    for n in others[: count // 10]:
        made[n] = "transient"
    for index, n in enumerate(others[count // 10 : count // 10 + count // 100]):
        made[n] = ("exhausted", "fatal")[index % 2]
    for n in [0, *others[count // 10 + count // 100 :]]:
        made[n] = "killer"
    return made


class Proof:
    def __init__(self, url: str, queue: str, folder: Path, *, seed: int, count: int, prefetch: int) -> None:
        self._url = url
        self._queue = queue
        self._folder = folder
        self._rng = random.Random(seed)
        self._prefetch = prefetch
        self._results = folder / "handled"
        self._results.touch()
        self._workers: list[subprocess.Popen[bytes]] = []
        self.report = Report(queue, kinds(count, self._rng))

    def run(self, *, quorum: bool) -> Report:
        began = time.monotonic()
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel = connection.channel()
            self._fill(channel, quorum=quorum)
            try:
                self._kill_until_done(connection)
            finally:
                for worker in self._workers:
                    worker.kill()
                    worker.wait(10)
            self._compare(connection)
        finally:
            connection.close()
        self.report.took_s = time.monotonic() - began
        return self.report

    def _fill(self, channel: Any, *, quorum: bool) -> None:
        channel.confirm_delivery()
        channel.queue_declare(self._queue, durable=True, arguments=QUORUM_ARGUMENTS if quorum else None)
        for n, kind in self.report.sent.items():
            body = json.dumps({"n": n, "kind": kind}).encode()
            properties = pika.BasicProperties(delivery_mode=2, message_id=f"m-{n}")
            channel.basic_publish("", self._queue, body, properties, mandatory=True)

    def _start(self) -> subprocess.Popen[bytes]:
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self._folder))
        environment = {
            **os.environ,
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}",
        }
        log = (self._folder / "workers.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "integration.proofs_worker.victim", self._url, self._queue, str(self._results)],
                cwd=home, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def _kill_until_done(self, connection: Any) -> None:
        deadline = time.monotonic() + LIMIT_S
        next_kill = time.monotonic() + KILL_EVERY_S
        quiet_since: float | None = None
        while True:
            self._workers = [worker for worker in self._workers if not self._died(worker)]
            while len(self._workers) < WORKERS:
                self._workers.append(self._start())
            now = time.monotonic()
            if self._accounted() and self._depth(connection) == 0:
                quiet_since = quiet_since or now
                if now - quiet_since >= QUIET_S:
                    break
            else:
                quiet_since = None
                if now >= next_kill:
                    next_kill = now + KILL_EVERY_S
                    victim = self._rng.choice(self._workers)
                    victim.send_signal(signal.SIGKILL)
                    victim.wait(10)
                    self.report.kills += 1
                    self._workers.remove(victim)
            if now >= deadline:
                self.report.wrong.append(f"not done after {LIMIT_S:g} s: depth {self._depth(connection)}")
                break
            connection.sleep(LOOK_S)
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            if (code := worker.wait(20)) != 0:
                self.report.wrong.append(f"a worker ended with {code} at SIGTERM")
        self._workers = []

    def _died(self, worker: subprocess.Popen[bytes]) -> bool:
        code = worker.poll()
        if code is None:
            return False
        self.report.own_deaths += 1
        if code != -signal.SIGKILL:
            self.report.wrong.append(f"a worker ended by itself with {code}")
        return True

    def _accounted(self) -> bool:
        """Whether all that can be handled were."""
        wanted = {n for n, kind in self.report.sent.items() if kind in ("good", "transient")}
        return wanted <= set(self._handled())

    def _handled(self) -> Counter[int]:
        return Counter(
            int(line.split()[0]) for line in self._results.read_text().splitlines() if line.strip()
        )

    def _depth(self, connection: Any) -> int:
        """Ready in the queue and in its delay places; what is in hand shows when it comes back."""
        total = 0
        for name in (self._queue, *(f"{self._queue}.retry.{ms}" for ms in (500, 1000))):
            channel = connection.channel()
            try:
                total += channel.queue_declare(name, passive=True).method.message_count
                channel.close()
            except pika.exceptions.ChannelClosedByBroker:
                continue  # nobody had to wait there yet
        return total

    def _compare(self, connection: Any) -> None:
        report = self.report
        report.handled = self._handled()
        channel = connection.channel()
        while True:
            method, properties, body = channel.basic_get(f"{self._queue}.dlq", auto_ack=True)
            if method is None:
                break
            reason = str((properties.headers or {}).get("unimq-reason"))
            report.dead.setdefault(json.loads(body)["n"], []).append(reason)
        wanted = {"exhausted": "exhausted", "fatal": "fatal", "killer": "crashed"}
        for n, kind in report.sent.items():
            reasons = set(report.dead.get(n, ()))
            if kind in wanted:
                if reasons != {wanted[kind]}:
                    report.wrong.append(
                        f"{n} ({kind}) should be dead as {wanted[kind]}, is {reasons or 'not'}"
                    )
            elif reasons:
                report.wrong.append(f"{n} ({kind}) is innocent, and dead as {reasons}")
            elif not report.handled[n]:
                report.wrong.append(f"{n} ({kind}) is lost")
        allowed = (report.kills + report.own_deaths) * self._prefetch
        if report.duplicates > allowed:
            report.wrong.append(f"{report.duplicates} duplicates, {allowed} allowed")

    def clean(self) -> None:
        """Delete what the proof made."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        for name in (self._queue, f"{self._queue}.dlq", *(f"{self._queue}.retry.{ms}" for ms in (500, 1000))):
            channel.queue_delete(name)
        connection.close()
        for home in self._folder.glob("home-*"):
            shutil.rmtree(home, ignore_errors=True)
