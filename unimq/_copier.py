"""Copies on their way to one place: a sender link of its own, a queue, and patience.

Rules (§5.4)
- A copy that cannot be written is tried again with back-off (`BACK_OFF_FIRST_S` to `BACK_OFF_MAX_S`), for as long as its
  source is still ours: nothing is settled before the next place has it. Never a hot loop.
- One `forward` is out at a time; what comes meanwhile leaves together with the next.
- An unknown outcome is written again under the same id: a duplicate where the broker does not detect it, never a loss.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .driver import BatchResult, Copy, Op, Place, SenderLink
from .errors import Closed, UnimqError

if TYPE_CHECKING:
    from ._batcher import Classify
    from ._ticker import Ticker

BACK_OFF_FIRST_S: Final = 1.0
BACK_OFF_MAX_S: Final = 60.0
FORWARD_MAX_PER_CALL: Final = 256
_log = logging.getLogger("unimq.copies")

Written = Callable[[Copy, UnimqError | None], None]


class Copier:
    """Bounded by the receiver's prefetch: each copy is of an unsettled delivery. `wanted` says whether one still is."""

    def __init__(
        self,
        place: Place,
        *,
        classify: Classify,
        ticker: Ticker,
        wanted: Callable[[Copy], bool],
        drive: Callable[[], None] | None = None,
    ) -> None:
        self.place = place
        self.classify = classify
        self._ticker = ticker
        self._wanted = wanted
        self._drive = drive
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Copy, Written]] = deque()
        self._out = False
        self._resting = False
        self._back_off_s = BACK_OFF_FIRST_S
        self._link: SenderLink | None = None
        self._closed = False
        self.last_error: UnimqError | None = None

    @property
    def link(self) -> SenderLink | None:
        return self._link

    @property
    def stuck(self) -> int:
        """Copies that wait because the last try failed."""
        return len(self._waiting) if self.last_error is not None else 0

    def write(self, copy: Copy, done: Written) -> None:
        self._waiting.append((copy, done))
        self._pump()

    def attach(self, link: SenderLink) -> None:
        with self._lock:
            self._link = link
            self._resting = False
        self._pump()

    def detach(self, error: UnimqError | None = None) -> None:
        with self._lock:
            self._link = None
            if error is not None:
                self.last_error = error

    @property
    def busy(self) -> bool:
        return self._out or bool(self._waiting)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
        for copy, done in waiting:
            done(
                copy, Closed(f"closed before the copy to {self.place} was written; its source is not settled")
            )

    def _pump(self) -> None:
        while True:
            with self._lock:
                if self._out or self._resting or self._closed or self._link is None:
                    return
                batch: list[tuple[Copy, Written]] = []
                unwanted: list[tuple[Copy, Written]] = []
                while self._waiting and len(batch) < FORWARD_MAX_PER_CALL:
                    item = self._waiting.popleft()
                    (batch if self._wanted(item[0]) else unwanted).append(item)
                link = self._link
                self._out = bool(batch)
            for copy, done in unwanted:
                done(copy, Closed("its source went back to the broker before the copy was written"))
            if not batch:
                return

            def landed(result: BatchResult, batch: list[tuple[Copy, Written]] = batch) -> None:
                self._landed(batch, result)

            link.forward([copy for copy, _ in batch], landed)
            if self._drive is not None:
                self._drive()
            if self._out:
                return

    def _landed(self, batch: list[tuple[Copy, Written]], result: BatchResult) -> None:
        failures = result.failures or {}
        pause_s = 0.0
        with self._lock:
            again = [item for index, item in enumerate(batch) if index in failures]
            self._waiting.extendleft(reversed(again))
            self._out = False
            if again:
                first = failures[min(failures)]
                self.last_error = self.classify(first.error, Op.SEND, first.handed_over)
                self._resting = True
                pause_s, self._back_off_s = self._back_off_s, min(self._back_off_s * 2, BACK_OFF_MAX_S)
            else:
                self.last_error = None
                self._back_off_s = BACK_OFF_FIRST_S
        if again:
            _log.warning(
                "%d copies to %s could not be written, next try in %g s: %s",
                len(again), self.place, pause_s, self.last_error,
            )  # fmt: skip
            self._ticker.after(pause_s, self._rested)
        for index, (copy, done) in enumerate(batch):
            if index not in failures:
                done(copy, None)
        self._pump()

    def _rested(self) -> None:
        with self._lock:
            self._resting = False
        self._pump()
