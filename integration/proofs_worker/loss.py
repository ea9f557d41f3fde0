"""The loss proof: workers that are killed and cut off at random while they empty a queue. `account.py` judges.

Rules
- Everything random comes from one seed. Every process starts with an empty home and working directory.
- Each worker has a proxy of its own between itself and the broker, which makes the way longer (`DELAY_S`), so that there is
  always something under way, and cuts: all its connections at once, one in the middle of a frame, or the publishing one alone.
- Killed and cut off are workers that have handled something, or have had `BEGIN_S` for it: on a busy machine a worker may need
  longer than 2 s to begin, and one that never works proves nothing.
- A round ends when all are handled or dead and nothing waits, when nothing moved for `STALL_S`, or at its limit.
  `stall_s` is for a queue that is empty: what is missing then is in somebody's hands, or lost.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pika

from integration.proofs_worker.account import Account, Report, kinds
from integration.proofs_worker.victim import CRASHES, DELAYS_S, PREFETCH
from unimq.testing._proxy_link import Cut
from unimq.testing.proxy import FaultProxy

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
KILL_EVERY_S = 2.0
BEGIN_S = 15.0
CUT_EVERY_S = (0.5, 2.0)
CUT_AFTER_BYTES = 2_000
# a fresh publishing connection has been opened, and its places asked for, when so much has gone through
PUBLISHER_CUT_BYTES = (1_500, 4_000)
DELAY_S = 0.005
LOOK_S = 0.2
DEATHS_SPARE = 4  # a killer, than the limit allows: a duplicate of one has a count of its own
LAST_WORDS = 3  # lines
QUIET_S = 1.0  # all is done, and stays so
STALL_S = 60.0
STOP_S = 20.0  # a worker ends well inside its own bounds of 10 s each to drain, close the receiver and close the client


def limit_s(count: int) -> float:
    """Generous: the machine may be doing other things."""
    return 120.0 + count * 0.08


@dataclass
class Slot:
    """Where one worker runs; its proxy stays, the worker is replaced."""

    proxy: FaultProxy
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    since: float = 0.0
    armed: list[Cut] = field(default_factory=list)

    def at_work(self, handlers: set[int]) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        return self.process.pid in handlers or time.monotonic() - self.since >= BEGIN_S

    def last_words(self) -> str:
        lines = self.log.read_text("utf-8", "replace").strip().splitlines() if self.log is not None else []
        return " / ".join(lines[-LAST_WORDS:])


class Proof:
    """One round; `run` once. `bug` is planted in the workers (`bugs.py`)."""

    def __init__(
        self, url: str, queue: str, folder: Path, *, seed: int, count: int, killers: int = 3, bug: str = "",
        stall_s: float = STALL_S, delay_s: float = DELAY_S,
    ) -> None:  # fmt: skip
        self._url = url
        self._folder = folder
        self._rng = random.Random(seed)
        self._bug = bug
        self._stall_s = stall_s
        self._delay_s = delay_s
        self._limit_s = limit_s(count)
        self._results = folder / "handled"
        self._cut_now = 0
        self._slots: list[Slot] = []
        self._next_kill = self._next_cut = 0.0
        self.report = Report(queue, seed, kinds(count, self._rng, killers))
        self._deaths_max = killers * (CRASHES + DEATHS_SPARE)
        self._account = Account(url, self.report, self._results, tuple(round(s * 1000) for s in DELAYS_S))

    def run(self, *, quorum: bool) -> Report:
        began = time.monotonic()
        self._account.fill(quorum=quorum)
        try:
            host = pika.URLParameters(self._url)
            for _ in range(WORKERS):
                slot = Slot(FaultProxy(host.host, host.port).start())
                slot.proxy.delay(self._delay_s)
                self._slots.append(slot)
            self._until_done(began + self._limit_s)
            self._stop_workers()
        finally:
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
                    slot.process.wait(STOP_S)
                slot.proxy.close()
        self.report.cuts = self._cut_now + sum(cut.fired for slot in self._slots for cut in slot.armed)
        self._account.compare(PREFETCH, CRASHES)
        self.report.took_s = time.monotonic() - began
        return self.report

    def clean(self) -> None:
        self._account.clean()
        for home in self._folder.glob("home-*"):
            shutil.rmtree(home, ignore_errors=True)

    # ---------------------------------------------------------------------------------------------------- the round
    def _until_done(self, deadline: float) -> None:
        self._next_kill = time.monotonic() + KILL_EVERY_S
        self._next_cut = time.monotonic() + self._rng.uniform(*CUT_EVERY_S)
        seen: object = None
        since = time.monotonic()
        while True:
            self._replace_the_dead()
            left, now = self._account.left(), time.monotonic()
            if (left, self.report.own_deaths) != seen:
                seen, since = (left, self.report.own_deaths), now
            if left == (0, 0, 0):
                if now - since >= QUIET_S:
                    return
            elif reason := self._gives_up(now, since, deadline, left[1]):
                self.report.wrong.append(f"{reason}: not handled, ready, not dead: {left}")
                return
            else:
                self._harm(now)
            self._account.wait(LOOK_S)

    def _harm(self, now: float) -> None:
        if now < min(self._next_kill, self._next_cut):
            return
        handlers = self._account.handlers()
        at_work = [slot for slot in self._slots if slot.at_work(handlers)]
        if at_work and now >= self._next_kill:
            self._next_kill = now + KILL_EVERY_S
            victim = self._rng.choice(at_work)
            self._kill(victim)
            at_work.remove(victim)
        if at_work and now >= self._next_cut:
            self._next_cut = now + self._rng.uniform(*CUT_EVERY_S)
            self._cut(self._rng.choice(at_work))

    def _gives_up(self, now: float, since: float, deadline: float, ready: int) -> str:
        if self.report.own_deaths > self._deaths_max:
            return f"workers died by themselves {self.report.own_deaths} times"
        stall_s = STALL_S if ready else self._stall_s
        if now - since >= stall_s:
            return f"nothing moved for {stall_s:g} s"
        return "the time was up" if now >= deadline else ""

    def _kill(self, slot: Slot) -> None:
        assert slot.process is not None
        slot.process.send_signal(signal.SIGKILL)
        slot.process.wait(STOP_S)
        slot.process = None
        self.report.kills += 1

    def _cut(self, slot: Slot) -> None:
        bytes_ahead = self._rng.randint(1, CUT_AFTER_BYTES)
        match self._rng.choice(("all", "client", "server", "publisher")):
            case "client":
                slot.armed.append(slot.proxy.cut_after(client_bytes=bytes_ahead, live=True))
            case "server":
                slot.armed.append(slot.proxy.cut_after(server_bytes=bytes_ahead, live=True))
            case "publisher":  # the first of the next two connections
                self._cut_now += slot.proxy.cut() > 0
                ahead = self._rng.randint(*PUBLISHER_CUT_BYTES)
                slot.armed.append(slot.proxy.cut_after(client_bytes=ahead, connection=1))
            case _:
                self._cut_now += slot.proxy.cut() > 0

    def _replace_the_dead(self) -> None:
        for slot in self._slots:
            code = None if slot.process is None else slot.process.poll()
            if code is not None:
                self.report.own_deaths += 1
                if code != -signal.SIGKILL:
                    self.report.wrong.append(f"a worker ended by itself with {code}: {slot.last_words()}")
            if slot.process is None or code is not None:
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self._folder))
        environment = {
            **os.environ, "HOME": str(home), "TMPDIR": str(home), "UNIMQ_PROOF_BUG": self._bug,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}",
        }  # fmt: skip
        command = [sys.executable, "-m", "integration.proofs_worker.victim", slot.proxy.url(self._url)]
        slot.log = home / "log"
        slot.since = time.monotonic()
        with slot.log.open("wb") as log:
            slot.process = subprocess.Popen(
                [*command, self.report.queue, str(self._results)],
                cwd=home,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def _stop_workers(self) -> None:
        """They are idle now, and must end well."""
        for slot in self._slots:
            slot.proxy.heal()
            if slot.process is not None:
                slot.process.terminate()
        for slot in self._slots:
            if slot.process is None:
                continue
            try:
                code = slot.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.report.wrong.append(f"a worker did not end within {STOP_S:g} s of SIGTERM")
                continue
            if code != 0:
                self.report.wrong.append(f"a worker ended with {code} at SIGTERM")
            slot.process = None
