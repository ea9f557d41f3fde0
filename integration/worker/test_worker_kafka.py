"""A worker on a real Kafka whose process dies: a message that kills it ends in the dead letters, and its neighbours do not.

Rules
- The worker is the loss proof's victim, a process of its own with an empty home; it is started again whenever it died.
- Kafka counts no deliveries: what one process knew, the next one has from the broker alone.
- Its group misses a member that vanished for as long as its session lasts (45 s); a static member is back at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import unimq
from integration.proofs_worker.victim import CRASHES
from integration.sources import Broker
from unimq import Message, Queue

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = 120
LIMIT_S = 120.0
KILL_EVERY_S = (2.0, 5.0)
STATIC_MEMBER = "?group_instance_id=victim"
LOOK_S = 0.2
pytestmark = pytest.mark.timeout(LIMIT_S + 60)


class Victims:
    """One worker at a time; the next one knows nothing that is not at the broker."""

    def __init__(self, url: str, queue: Queue, folder: Path) -> None:
        self._command = [sys.executable, "-m", "integration.proofs_worker.victim", url, queue.name]
        self._folder = folder
        self.results = folder / "handled"
        self.results.touch()
        self.deaths = 0
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Start one where there is none."""
        process = self._process
        if process is not None and process.poll() is not None:
            assert process.returncode == -signal.SIGKILL, self._last_words()
            self.deaths += 1
            self._process = None
        if self._process is None:
            self._start()

    def _start(self) -> None:
        self._count += 1
        home = self._folder / f"home-{self._count}"
        home.mkdir()
        environment = {
            **os.environ, "HOME": str(home), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}",
        }  # fmt: skip
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, str(self.results)], cwd=home, env=environment, stdout=log, stderr=log
            )

    def _last_words(self) -> str:
        return (self._folder / f"home-{self._count}" / "log").read_text("utf-8", "replace")[-2_000:]

    def kill(self) -> None:
        """From outside; not one of the deaths."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def stop(self) -> int | None:
        if self._process is None:
            return None
        self._process.terminate()
        try:
            return self._process.wait(30)
        finally:
            self._process.kill()

    def handled(self) -> Counter[int]:
        return Counter(int(line.split()[0]) for line in self.results.read_text().splitlines())


@pytest.mark.parametrize("killed_too", [False, True], ids=["by-messages", "and-from-outside"])
def test_a_message_that_kills_its_process_dies_alone(
    kafka: Broker, unique: Callable[[str], str], tmp_path: Path, killed_too: bool
) -> None:
    queue = Queue(unique("crash"))
    rng = random.Random(7)
    kinds = dict.fromkeys(range(MESSAGES), "good") | {0: "killer", MESSAGES // 2: "killer"}
    victims = Victims(kafka.url + STATIC_MEMBER, queue, tmp_path)
    innocent = {n for n, kind in kinds.items() if kind == "good"}
    kills = 0
    with unimq.connect(kafka.url) as mq:
        mq.declare(queue, partitions=2)
        messages = [Message({"n": n, "kind": kind}, key=str(n)) for n, kind in kinds.items()]
        mq.send_many(queue, messages).raise_for_errors()
        deadline = time.monotonic() + LIMIT_S
        next_kill = time.monotonic() + rng.uniform(*KILL_EVERY_S)
        try:
            while True:
                victims.look()
                dead = mq.dead_letters(queue).count() or 0
                if victims.handled().keys() >= innocent and dead >= len(kinds) - len(innocent):
                    break
                assert time.monotonic() < deadline, (
                    f"{len(victims.handled())} handled, {dead} dead, {victims.deaths} deaths, {kills} kills"
                )
                if killed_too and time.monotonic() >= next_kill:
                    victims.kill()
                    kills += 1
                    next_kill = time.monotonic() + rng.uniform(*KILL_EVERY_S)
                time.sleep(LOOK_S)
        finally:
            code = victims.stop()
        letters = mq.dead_letters(queue).browse()
    found = sorted((letter.reason, json.loads(letter.body or b"")["kind"]) for letter in letters)
    print(f"{victims.deaths} deaths, {kills} kills, {found}, handled {victims.handled().total()}")
    assert set(found) == {("crashed", "killer")} and len(found) == 2
    assert code == 0
    assert victims.deaths <= 2 * CRASHES, "each is tried so often at most"
