"""Several processes of one worker: fork first, then nothing but watch.

Rules
- The parent makes no client, no loop and no thread: it forks, waits, replaces who died, and passes signals on.
- A child that cannot start (its own error, not a signal) ends the family: it would fail again. One that died is replaced,
  after a pause that grows while children die young.
- The family's exit code is the worst of its children's.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from ..errors import UnimqError, Unsupported

CANNOT_START: Final = 2
PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 10.0
YOUNG_S: Final = 10.0
LOOK_S: Final = 0.05
_log = logging.getLogger("unimq.worker")


class Family:
    """`child(number)` runs one worker and returns its exit code."""

    def __init__(self, count: int, child: Callable[[int], int]) -> None:
        self._count = count
        self._child = child
        self._living: dict[int, tuple[int, float]] = {}  # pid → (number, born)
        self._stops = 0
        self._worst = 0

    def stop(self) -> None:
        """Any thread or signal handler."""
        self._stops += 1
        for pid in list(self._living):
            _kill(pid, signal.SIGTERM)

    def run(self) -> int:
        if not hasattr(os, "fork"):
            raise Unsupported("processes= needs fork, which this system has not: start several workers")
        if threading.active_count() > 1:
            raise Unsupported("processes= forks: call run() before anything starts a thread or a client")
        before = self._take_signals()
        try:
            for number in range(self._count):
                self._fork(number)
            pause_s = PAUSE_FIRST_S
            while self._living:
                found, status = os.waitpid(-1, os.WNOHANG)
                if found == 0:
                    time.sleep(LOOK_S)  # a signal cuts it short; nothing else happens in this process
                    continue
                number, born = self._living.pop(found, (-1, 0.0))
                if number < 0:
                    continue
                code = os.waitstatus_to_exitcode(status)
                if self._stops or code == 0:
                    self._worst = max(self._worst, code if code >= 0 else 1)
                    continue
                if code == CANNOT_START:
                    self._worst = CANNOT_START
                    self.stop()
                    continue
                pause_s = (
                    min(pause_s * 2, PAUSE_MAX_S) if time.monotonic() - born < YOUNG_S else PAUSE_FIRST_S
                )
                _log.error("process %d ended with %d and is replaced in %.1f s", found, code, pause_s)
                self._rest(pause_s)
                if not self._stops:
                    self._fork(number)
            return self._worst
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stops and time.monotonic() < until:
            time.sleep(LOOK_S)

    def _take_signals(self) -> dict[int, Any]:
        def heard(number: int, frame: FrameType | None) -> None:
            self.stop()

        if threading.current_thread() is not threading.main_thread():
            return {}
        before: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, heard)
        return before

    def _fork(self, number: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._living[pid] = (number, time.monotonic())
            if self._stops:
                _kill(pid, signal.SIGTERM)
            return
        code = CANNOT_START
        try:
            self._living.clear()
            code = self._child(number)
        except UnimqError as error:
            print(f"unimq: {error}", file=sys.stderr)
        except BaseException:  # the child ends here, whatever it is; its parent must not go on twice
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it just ended
