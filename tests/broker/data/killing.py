"""A broker process that is killed again and again while clients publish and consume, and what must be there at the end.

Rules
- The broker is a process of its own; it is killed with SIGKILL at a moment that a seed chooses, counted in confirmed messages,
  and started again on the same port with the same directory. The clients are there all the time.
- Every message has a number. It goes to two queues: `classic`, whose reader rejects every seventh into `dead`, and `quorum`.
- A number whose confirm has come must be seen by the readers of both queues, a rejected one by that of `dead` as well.
  It may be seen more than once; that is counted.
- Every wait has a limit; what was not reached by then is a finding.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from .victim import NO_BUG

REPOSITORY: Final = Path(__file__).parents[3]
READY_MAX_S: Final = 20.0
ROUND_MAX_S: Final = 60.0
# Once nobody publishes: nothing new seen for so long, and what is still missing is lost.
QUIET_S: Final = 10.0
STOP_MAX_S: Final = 20.0
LOOK_S: Final = 0.005
REJECT_EVERY: Final = 7
# Confirmed messages between two kills, at least and at most.
KILL_AFTER: Final = (20, 300)

EXCHANGE, CLASSIC, QUORUM, DEAD = "kill.x", "kill.classic", "kill.quorum", "kill.dead"


class Process:
    """`unimq broker --data`; see `victim.py`."""

    def __init__(self, directory: Path, bug: str = NO_BUG) -> None:
        self._bug = bug
        self._directory = directory
        self._ready = directory / "ready.json"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        line = [
            sys.executable, "-m", "tests.broker.data.victim", self._bug, "--amqp", str(self._port),
            "--data", str(self._directory / "data"), "--ready-file", str(self._ready),
        ]  # fmt: skip
        with (self._directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=REPOSITORY
            )
        deadline = time.monotonic() + READY_MAX_S
        while not self._ready.exists():
            assert self._process.poll() is None, "the broker did not start again"
            assert time.monotonic() < deadline, f"the broker was not ready within {READY_MAX_S:g} s"
            threading.Event().wait(LOOK_S)
        self.url = json.loads(self._ready.read_text("utf-8"))["amqp"]
        self._port = urlsplit(self.url).port or 0

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(STOP_MAX_S)
            assert process.stdin is not None
            process.stdin.close()


class Ledger:
    """What the clients saw. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = iter(range(1 << 62))
        self.published: set[int] = set()
        self.confirmed: set[int] = set()
        self.seen: dict[str, Counter[int]] = {name: Counter() for name in (CLASSIC, QUORUM, DEAD)}

    def next_number(self) -> int:
        with self._lock:
            number = next(self._numbers)
            self.published.add(number)
            return number

    def confirm(self, number: int) -> None:
        with self._lock:
            self.confirmed.add(number)

    def see(self, queue: str, number: int) -> None:
        with self._lock:
            self.seen[queue][number] += 1

    def missing(self) -> dict[str, list[int]]:
        """queue → what was confirmed and has not been seen there."""
        with self._lock:
            rejected = {number for number in self.confirmed if is_rejected(number)}
            wanted = {CLASSIC: self.confirmed, QUORUM: self.confirmed, DEAD: rejected}
            return {
                name: gone for name, all_ in wanted.items() if (gone := sorted(all_ - self.seen[name].keys()))
            }

    def strangers(self) -> dict[str, list[int]]:
        """Seen, and never published."""
        with self._lock:
            return {
                n: strange
                for n, seen in self.seen.items()
                if (strange := sorted(seen.keys() - self.published))
            }

    def sightings(self) -> int:
        with self._lock:
            return sum(seen.total() for seen in self.seen.values())

    def doubles(self) -> int:
        with self._lock:
            return sum(seen.total() - len(seen) for seen in self.seen.values())


def is_rejected(number: int) -> bool:
    return number % REJECT_EVERY == 0


class Load(Protocol):
    """Clients of one kind, on threads of their own."""

    errors: list[BaseException]  # what ended one of the threads

    def start(self, url: str, ledger: Ledger) -> None:
        """Declares what there is to be, then publishers and readers begin."""

    def stop_publishing(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(slots=True)
class Outcome:
    rounds: int = 0
    published: int = 0
    confirmed: int = 0
    doubles: int = 0
    missing: dict[str, list[int]] = field(default_factory=dict)
    strangers: dict[str, list[int]] = field(default_factory=dict)

    def __str__(self) -> str:
        lost = {name: len(gone) for name, gone in self.missing.items()} or 0
        return (
            f"{self.rounds} kills, {self.published} published, {self.confirmed} confirmed, lost {lost}, "
            f"seen twice {self.doubles}"
        )


def killed_under_load(
    process: Process, load: Load, *, rounds: int, seed: int, quiet_s: float = QUIET_S
) -> Outcome:
    chance = random.Random(seed)
    ledger = Ledger()
    outcome = Outcome()
    process.start()
    try:
        load.start(process.url, ledger)
        for _ in range(rounds):
            goal = len(ledger.confirmed) + chance.randint(*KILL_AFTER)
            await_confirmed(ledger, goal, load)
            process.kill()
            process.start()
            outcome.rounds += 1
        load.stop_publishing()
        await_the_last(ledger, quiet_s)
    finally:
        try:
            load.stop()
        finally:
            process.kill()
    outcome.published, outcome.confirmed = len(ledger.published), len(ledger.confirmed)
    outcome.missing, outcome.strangers, outcome.doubles = (
        ledger.missing(),
        ledger.strangers(),
        ledger.doubles(),
    )
    return outcome


def await_confirmed(ledger: Ledger, goal: int, load: Load) -> None:
    deadline = time.monotonic() + ROUND_MAX_S
    while len(ledger.confirmed) < goal:
        assert not load.errors, load.errors
        assert time.monotonic() < deadline, f"{goal} were not confirmed within {ROUND_MAX_S:g} s"
        threading.Event().wait(LOOK_S)


def await_the_last(ledger: Ledger, quiet_s: float) -> None:
    sightings, since = -1, 0.0
    while ledger.missing():
        now = time.monotonic()
        if ledger.sightings() != sightings:
            sightings, since = ledger.sightings(), now
        elif now - since > quiet_s:
            return
        threading.Event().wait(LOOK_S)
