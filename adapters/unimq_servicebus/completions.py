"""Callbacks of the core's, one after another, never nested and never under a lock of ours.

Rules
- Whoever finds nobody calling becomes the caller, and calls until the queue is empty; anybody else only adds. A `Done`
  that submits to a dead link therefore gets its answer after it has returned, at any depth.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

_log = logging.getLogger("unimq.servicebus")
R = TypeVar("R")


class Completions:
    """One per link."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], object]] = deque()
        self._calling = False

    def add(self, done: Callable[[R], object], result: R) -> None:
        self._queue.append(partial(done, result))

    def run(self) -> None:
        """Call what was added. Never with a lock of ours held."""
        while True:
            with self._lock:
                if self._calling or not self._queue:
                    return
                self._calling = True
                call = self._queue.popleft()
            try:
                call()
            # a callback's error is not ours: it must not end an owner thread; it goes to the log
            except Exception:
                _log.exception("a callback raised")
            finally:
                with self._lock:
                    self._calling = False
