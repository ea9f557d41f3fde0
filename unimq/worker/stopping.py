"""When a worker stops: one table, and the two things that others wait for.

Rules
- `TRANSITIONS` is the whole life of a run. What is not in it is a bug and raises.
- `stop` may come from any thread and any number of times: the first drains, the second hurries (nothing more is waited for).
- A stop before the start has no effect; a stop while starting gives the start up.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from typing import Final


class Stage(enum.Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"  # nothing is fetched; what is in hand is finished
    CLOSING = "closing"  # links close, which hands back the rest
    STOPPED = "stopped"


TRANSITIONS: Final[dict[tuple[Stage, str], Stage]] = {
    (Stage.NEW, "start"): Stage.STARTING,
    (Stage.NEW, "stop"): Stage.NEW,
    (Stage.STARTING, "started"): Stage.RUNNING,
    (Stage.STARTING, "failed"): Stage.CLOSING,
    (Stage.STARTING, "stop"): Stage.CLOSING,
    (Stage.RUNNING, "failed"): Stage.DRAINING,
    (Stage.RUNNING, "stop"): Stage.DRAINING,
    (Stage.DRAINING, "stop"): Stage.DRAINING,
    (Stage.DRAINING, "failed"): Stage.DRAINING,
    (Stage.DRAINING, "drained"): Stage.CLOSING,
    (Stage.DRAINING, "time is up"): Stage.CLOSING,
    (Stage.CLOSING, "stop"): Stage.CLOSING,
    (Stage.CLOSING, "failed"): Stage.CLOSING,
    (Stage.CLOSING, "closed"): Stage.STOPPED,
    (Stage.STOPPED, "stop"): Stage.STOPPED,
    (Stage.STOPPED, "failed"): Stage.STOPPED,
}


class Stopping:
    """The stage of one run. `bind` gives it the loop whose tasks wait for `wanted` and `hurried`."""

    def __init__(self) -> None:
        self.stage = Stage.NEW
        self.error: BaseException | None = None  # the first thing that ended the run by itself
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.wanted = asyncio.Event()
        self.hurried = asyncio.Event()

    def bind(self) -> None:
        """On the loop, before anything else."""
        self._loop = asyncio.get_running_loop()

    def move(self, what: str) -> Stage:
        """Take a step; returns the stage it led *from*."""
        with self._lock:
            before = self.stage
            self.stage = TRANSITIONS[(before, what)]
            return before

    def stop(self) -> None:
        """Any thread, any number of times."""
        before = self.move("stop")
        if before is Stage.NEW or before is Stage.STOPPED:
            return
        self._tell(self.hurried if before in (Stage.DRAINING, Stage.CLOSING) else self.wanted)

    def failed(self, error: BaseException) -> None:
        """Something that only a restart can mend. Any thread."""
        with self._lock:
            if self.error is None:
                self.error = error
        self.move("failed")
        self._tell(self.wanted)

    def _tell(self, event: asyncio.Event) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:
            return  # the loop is closed: the run is over

    async def sleep(self, seconds: float) -> bool:
        """Wait, but no longer than until a stop. True when a stop is wanted."""
        try:
            async with asyncio.timeout(seconds):
                await self.wanted.wait()
        except TimeoutError:
            return False
        return True
