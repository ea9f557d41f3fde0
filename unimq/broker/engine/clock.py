"""Time, injected.

Rules
- `now()` is seconds since the epoch and never goes back.
- A clock that follows real time lives outside the engine; in here time moves when somebody moves it.
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now(self) -> float: ...


class ManualClock:
    """Stands still until `advance` is called."""

    __slots__ = ("_now_s",)

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"time only moves forward, not by {seconds!r} s")
        self._now_s += seconds
