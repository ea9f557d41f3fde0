"""Delays where a place has one delay only: the policy's own and the common ladder. Pure; shared by adapters.

Rules
- A delay takes the shortest place that is not shorter; beyond the longest it is `Unsupported`.
- Places are named by whole milliseconds, so that the same delay is the same place in every version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .errors import Unsupported

_MIN, _H, _D = 60.0, 3600.0, 86400.0
LADDER_S: Final = (
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0,
    1 * _MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 30 * _MIN,
    1 * _H, 2 * _H, 6 * _H, 12 * _H, 24 * _H, 7 * _D,
)  # fmt: skip


def rung(delay_s: float, own_s: Iterable[float] = ()) -> float:
    """The delay of the place that a wish for `delay_s` takes: one of `own_s` (a policy's) or of the ladder."""
    fitting = [step for step in (*own_s, *LADDER_S) if step >= delay_s - 1e-9]
    if not fitting:
        raise Unsupported(f"a delay of {delay_s:g} s: the longest delay place is {LADDER_S[-1]:g} s")
    return min(fitting)


def milliseconds(delay_s: float) -> int:
    """The number in a place's name."""
    return round(delay_s * 1000)
