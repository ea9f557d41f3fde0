"""What the native brokers share: a process of their own, ready within a limit, ended by its id.

- A broker has a temporary directory, loopback ports and a process group of its own; `stop()` leaves none of them.
- A keeper process (`_keeper.py`) stands between, so that nothing stays when the one who started the broker is killed.
- Each wait has a limit; a broker that does not come up is a `BrokerFailed` with the end of its log.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from integration.native.security import PLAIN, WORDS, Authority, Files, Variant

HOST = "127.0.0.1"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.03
STOPPED_WITHIN_S = 2.0
CONNECT_TIMEOUT_S = 1.0
PORT_ATTEMPTS = 3
LOG_TAIL_BYTES = 4_000
# Below the range from which Linux, macOS and Windows take ports for outgoing connections: a broker that is down for a moment
# must find its port free when it comes back.
PORT_RANGE = range(20_000, 32_000)

_PORT_TAKEN = ("address already in use", "eaddrinuse", "bindexception")


class BrokerFailed(Exception):
    """A broker did not do what was asked; the text ends with its log."""


class PortTaken(BrokerFailed):
    """Somebody else took a port between our look and the broker's bind."""


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on now."""
    held: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(PORT_RANGE, len(PORT_RANGE)):
            if len(held) == count:
                break
            candidate = socket.socket()
            try:
                candidate.bind((HOST, port))
            except OSError:
                candidate.close()
            else:
                held.append(candidate)
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


def accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


class Process:
    """A command in a process group of its own, behind a keeper. Started by construction."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        log: Path,
        after: Sequence[Sequence[str]] = (),
    ) -> None:
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        job = {
            "command": list(command),
            "env": dict(env),
            "cwd": str(directory),
            "log": str(log),
            "after": [list(c) for c in after],
            "remove": str(directory),
        }
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("_keeper.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C at the terminal is for us; the keeper hears of it from us.
            start_new_session=True,
            text=True,
        )
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(job) + "\n")
        self._keeper.stdin.flush()
        line = self._keeper.stdout.readline()
        if not line:
            self._keeper.wait(STOP_TIMEOUT_S)
            self._close_pipes()
            raise BrokerFailed(f"could not start {command[0]}{self.log_tail()}")
        self.group = int(line)

    def alive(self) -> bool:
        return self._keeper.poll() is None

    def log_text(self) -> str:
        """What this process, and not one before it, wrote."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def log_tail(self) -> str:
        return f"\n--- end of {self.log.name} ---\n{self.log_text()[-LOG_TAIL_BYTES:]}"

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive():
                text = self.log_text().lower()
                kind = PortTaken if any(sign in text for sign in _PORT_TAKEN) else BrokerFailed
                raise kind(
                    f"{what} ended with code {self._keeper.returncode} before it was ready{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise BrokerFailed(f"{what} was not ready after {timeout_s:g} s{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S)

    def state(self) -> str:
        """The letter of proc(5): T is stopped."""
        stat = Path(f"/proc/{self.group}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    def signal(self, number: signal.Signals) -> None:
        if not self.alive():
            raise BrokerFailed(f"the process has ended{self.log_tail()}")
        os.killpg(self.group, number)

    def stop(self, graceful_s: float = 0.0) -> None:
        """Ends the whole group; with `graceful_s` after a SIGTERM and at most that time. Safe to call twice."""
        try:
            if self.alive():
                assert self._keeper.stdin is not None
                self._keeper.stdin.write(f"stop {graceful_s}\n")
                self._keeper.stdin.flush()
        except BrokenPipeError:
            pass
        self._keeper.wait(graceful_s + STOP_TIMEOUT_S)
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            if pipe is not None:
                pipe.close()


class NativeBroker(ABC):
    """One real broker as a local process. Every subclass has this shape and nothing else must be known to use it."""

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = WORDS  # what may stand after the name, see `security.py`
    version: str

    def __init__(self, variant: Variant = PLAIN, authority: Authority | None = None) -> None:
        self.variant = variant
        self.label = f"{self.name}{variant}"
        self.url = ""
        self.files: Files | None = None  # the certificates of a variant with TLS, while it runs
        self._authority = authority
        self.start_time_s = 0.0
        self._directory: Path | None = None
        self._process: Process | None = None
        self._paused = False

    @classmethod
    @abstractmethod
    def available(cls) -> str | None:
        """None, or why this broker cannot be started here."""

    @abstractmethod
    def _prepare(self, directory: Path) -> str:
        """Chooses ports, writes the configuration; returns the URL."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _ready(self, process: Process) -> bool: ...

    def _env(self) -> dict[str, str]:
        return dict(os.environ)

    def _after(self) -> Sequence[Sequence[str]]:
        return ()

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise BrokerFailed(f"{self.name} is not started")
        return self._directory

    @property
    def process(self) -> Process:
        if self._process is None:
            raise BrokerFailed(f"{self.name} is not running")
        return self._process

    def start(self) -> str:
        """Starts with empty state; returns the URL when the broker takes connections."""
        if self._directory is not None:
            raise BrokerFailed(f"{self.name} is started already")
        began = time.monotonic()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._directory = Path(tempfile.mkdtemp(prefix=f"unimq-{self.name}-"))
            try:
                if self.variant.tls:
                    self.files = (self._authority or Authority()).equip(self._directory / "tls")
                self.url = self._prepare(self._directory)
                self.come_up()
                break
            except PortTaken:
                self.stop()
                if attempt == PORT_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
        self.start_time_s = time.monotonic() - began
        return self.url

    def stop(self) -> None:
        """Ends it and removes all it had. Nothing is asked of the broker, whose state is thrown away. Safe to call twice."""
        self.go_down(graceful=False)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = self.files = None

    def restart(self, *, graceful: bool = True) -> None:
        """Down and up again on the same port with the same data."""
        self.go_down(graceful=graceful)
        self.come_up()

    def go_down(self, *, graceful: bool = True) -> None:
        """The first half of a restart: connections are refused until `come_up()`."""
        process, self._process = self._process, None
        self._paused = False
        if process is not None:
            process.stop(graceful_s=STOP_TIMEOUT_S if graceful else 0.0)

    def come_up(self) -> None:
        if self._process is not None:
            raise BrokerFailed(f"{self.name} is running already")
        process = self._process = Process(
            self._command(),
            env=self._env(),
            directory=self.directory,
            log=self.directory / "broker.log",
            after=self._after(),
        )
        process.wait_until(lambda: self._ready(process), self.name, START_TIMEOUT_S)

    def pause(self) -> None:
        """The broker goes silent; its connections stay open."""
        self.process.signal(signal.SIGSTOP)
        self._paused = True
        deadline = time.monotonic() + STOPPED_WITHIN_S
        while self.process.state() != "T":  # the signal takes a moment to arrive
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not stop within {STOPPED_WITHIN_S:g} s of SIGSTOP")
            time.sleep(0.001)

    def resume(self) -> None:
        if self._paused:
            self.process.signal(signal.SIGCONT)
            self._paused = False

    def recover(self) -> None:
        """Running and answering again, whatever a test has done to it."""
        self.resume()
        if self._process is not None and not self._process.alive():
            self.go_down(graceful=False)
        if self._process is None:
            self.come_up()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
