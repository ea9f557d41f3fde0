"""Calls `Done`s one after another, never one inside another, from whichever thread comes first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Completions:
    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._running = threading.Lock()

    def add(self, done: Callable[[Any], None], result: Any) -> None:
        self._queue.append((done, result))

    def run(self) -> None:
        """Call what is queued. From inside a `Done` (or beside another thread's `run`) it returns at once: whoever runs
        looks again after letting go, so nothing is left behind."""
        while self._queue and self._running.acquire(blocking=False):
            try:
                while self._queue:
                    done, result = self._queue.popleft()
                    done(result)
            finally:
                self._running.release()
