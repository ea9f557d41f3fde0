"""What a series of runs says: ratios with their interval, medians with their spread, and the verdict. Pure.

Rules
- A *round* is three runs in a row: twin, ours, twin. Its ratio is ours over the geometric mean of the two twins, so a drift
  of the machine cancels; its control is the second twin over the first: what comes out when nothing differs.
- The interval is Student's t on the logarithms of the ratios, 95 %.
- A session whose control is off is *inconclusive*, whatever the ratio says. So is one that is too noisy to tell.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

CONFIDENCE: Final = 0.95
HALF_WIDTH_MAX: Final = 0.03
CONTROL_MIN: Final = 0.95
SPREAD_LOW, SPREAD_HIGH = 0.10, 0.90
QUANTILE_PRECISION: Final = 1e-10
QUANTILE_MAX: Final = 1e6

Verdict = Literal["pass", "miss", "inconclusive", ""]


@dataclass(frozen=True, slots=True)
class Run:
    """One timed run: how many messages (or connects, or imports), the time on the wall, the CPU time of this process."""

    count: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.count / self.wall_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.count * 1e6


@dataclass(frozen=True, slots=True)
class Round:
    """Twin, ours, twin: neighbours in time."""

    before: Run
    ours: Run
    after: Run

    @property
    def log_ratio(self) -> float:
        return math.log(self.ours.per_s) - (math.log(self.before.per_s) + math.log(self.after.per_s)) / 2

    @property
    def log_control(self) -> float:
        return math.log(self.after.per_s) - math.log(self.before.per_s)


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio and where it lies with 95 % confidence. One pair alone says nothing: it reaches from 0 to infinity."""

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle, and the tenth and the ninetieth of a hundred."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """What a row must reach: a ratio to its twin, or an absolute figure of ours. None of them: it is only printed."""

    ratio_min: float | None = None
    per_s_min: float | None = None
    wall_max_s: float | None = None  # of a run of one

    def __str__(self) -> str:
        if self.ratio_min is not None:
            return f"≥ {self.ratio_min:.2f}"
        if self.per_s_min is not None:
            return f"≥ {self.per_s_min:,.0f}/s"
        return f"< {self.wall_max_s * 1e3:.0f} ms" if self.wall_max_s is not None else ""


def interval(log_ratios: Sequence[float]) -> Interval:
    """The mean of the ratios and its interval."""
    if not log_ratios:
        raise ValueError("there is no pair")
    middle = statistics.fmean(log_ratios)
    if len(log_ratios) < 2:
        return Interval(math.exp(middle), 0.0, math.inf)
    error = statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    reach = t_quantile((1 + CONFIDENCE) / 2, len(log_ratios) - 1) * error
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def ratio(rounds: Sequence[Round]) -> Interval:
    return interval([one.log_ratio for one in rounds])


def control(rounds: Sequence[Round]) -> Interval:
    return interval([one.log_control for one in rounds])


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), _at(values, SPREAD_LOW), _at(values, SPREAD_HIGH))


def _at(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, between neighbours where it falls between."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def narrow(rounds: Sequence[Round]) -> bool:
    """Whether the ratio is known well enough to stop."""
    return len(rounds) > 1 and ratio(rounds).half_width <= HALF_WIDTH_MAX


def steady(rounds: Sequence[Round]) -> bool:
    """Whether the twin agrees with itself. Off in either direction is off."""
    return CONTROL_MIN <= control(rounds).ratio <= 1 / CONTROL_MIN


def verdict(rounds: Sequence[Round], target: Target) -> tuple[Verdict, str]:
    """What may be said, and why where nothing may be."""
    if target == Target():
        return "", ""
    if not steady(rounds):
        return "inconclusive", f"its own control is {control(rounds).ratio:.2f}"
    if target.ratio_min is not None:
        found = ratio(rounds)
        if found.half_width > HALF_WIDTH_MAX and found.low < target.ratio_min <= found.high:
            return "inconclusive", f"± {found.half_width:.2f} around {target.ratio_min:.2f} is too wide"
        return ("pass" if found.ratio >= target.ratio_min else "miss"), ""
    rates = [one.ours.per_s for one in rounds]
    needed = target.per_s_min if target.per_s_min is not None else 1 / (target.wall_max_s or math.inf)
    return ("pass" if statistics.median(rates) >= needed else "miss"), ""


# ------------------------------------------------------------------------------------------------------ Student's t
def t_between(t: float, freedom: int) -> float:
    """The share of Student's distribution between -t and t; exact for whole degrees of freedom (A&S 26.7.3, 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term = total = 1.0 if freedom % 2 == 0 else (cosine if freedom > 1 else 0.0)
    for step in range(2 if freedom % 2 == 0 else 3, freedom - 1, 2):
        term *= cosine * cosine * ((step - 1) / step)
        total += term
    return sine * total if freedom % 2 == 0 else 2 / math.pi * (angle + sine * total)


def t_quantile(share: float, freedom: int) -> float:
    """Below which value `share` (≥ 0.5) of Student's distribution lies."""
    low, high = 0.0, QUANTILE_MAX
    while high - low > QUANTILE_PRECISION * max(1.0, low):
        middle = (low + high) / 2
        if (1 + t_between(middle, freedom)) / 2 < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
