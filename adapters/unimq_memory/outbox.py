"""Calls out of the driver: never under its lock, and never one upon another on the same stack.

Rules
- Whoever holds the lock appends calls; they are made once it is released, in that order, on that thread.
- A call made while another one is being made on the same thread waits for it: a chain of sends from within `done`, however
  long, stays flat.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

Call = Callable[[], object]
_log = logging.getLogger("unimq.memory")


class _Waiting(threading.local):
    calls: deque[Call] | None = None


_here = _Waiting()


def make(calls: Iterable[Call]) -> None:
    waiting = _here.calls
    if waiting is not None:
        waiting.extend(calls)
        return
    waiting = _here.calls = deque(calls)
    try:
        while waiting:
            call = waiting.popleft()
            try:
                call()
            # the contract says that it never raises; the calls behind it must be made all the same
            except Exception:
                _log.exception("a callback failed")
    finally:
        _here.calls = None
