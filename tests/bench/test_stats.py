"""Ratios, intervals and verdicts of the bench, on figures whose answers are known."""

from __future__ import annotations

import math
import random

import pytest

from bench.stats import (
    Interval,
    Round,
    Run,
    Target,
    control,
    interval,
    narrow,
    ratio,
    spread,
    steady,
    t_between,
    t_quantile,
    verdict,
)


def run(per_s: float, count: int = 1000) -> Run:
    return Run(count, count / per_s, count * 10e-6)


def rounds(*speeds: tuple[float, float, float]) -> list[Round]:
    return [Round(run(before), run(ours), run(after)) for before, ours, after in speeds]


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (5, 2.5706),
        (14, 2.1448),
        (15, 2.1314),
        (59, 2.0010),
        (1000, 1.9623),
    ],
)
def test_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 8, 9])
def test_the_share_between_is_zero_at_zero_and_one_far_out(freedom: int) -> None:
    assert t_between(0.0, freedom) == pytest.approx(0.0, abs=1e-12)
    assert t_between(1e9, freedom) == pytest.approx(1.0, abs=1e-6)


def test_an_interval_by_hand() -> None:
    found = interval([math.log(0.9), math.log(1.0), math.log(1.1)])
    logs = [math.log(0.9), 0.0, math.log(1.1)]
    mean = sum(logs) / 3
    deviation = math.sqrt(sum((one - mean) ** 2 for one in logs) / 2)
    reach = 4.30265 * deviation / math.sqrt(3)
    assert found.ratio == pytest.approx(math.exp(mean))
    assert (found.low, found.high) == pytest.approx(
        (math.exp(mean - reach), math.exp(mean + reach)), rel=1e-5
    )
    assert found.half_width == pytest.approx((found.high - found.low) / 2)


def test_one_pair_says_nothing_and_none_is_refused() -> None:
    assert interval([0.1]) == Interval(math.exp(0.1), 0.0, math.inf)
    with pytest.raises(ValueError, match="no pair"):
        interval([])


def test_the_interval_covers_the_truth_nineteen_times_of_twenty() -> None:
    source = random.Random(4)
    hits = 0
    for _ in range(2000):
        found = interval([source.gauss(math.log(0.97), 0.1) for _ in range(15)])
        hits += found.low <= 0.97 <= found.high
    assert 0.935 <= hits / 2000 <= 0.965


def test_a_drift_of_the_machine_cancels() -> None:
    """Each run is 10 % slower than the one before; ours is as fast as its twin."""
    drifting = rounds((1000, 900, 810), (729, 656.1, 590.49))
    assert ratio(drifting).ratio == pytest.approx(1.0)
    assert control(drifting).ratio == pytest.approx(0.81)
    assert not steady(drifting)


def test_figures_of_a_run() -> None:
    one = Run(1000, 0.5, 0.02)
    assert one.per_s == 2000
    assert one.cpu_us == pytest.approx(20.0)


def test_spread() -> None:
    found = spread([float(value) for value in range(11)])
    assert (found.median, found.low, found.high) == (5.0, 1.0, 9.0)
    assert spread([3.0]).low == spread([3.0]).high == 3.0


def test_narrow() -> None:
    assert not narrow(rounds((1000, 1000, 1000)))
    assert narrow(rounds(*[(1000, 1000, 1000)] * 3))
    assert not narrow(rounds((1000, 500, 1000), (1000, 1500, 1000)))


@pytest.mark.parametrize(
    ("speed", "after", "target", "word"),
    [
        (960, 1000, Target(ratio_min=0.95), "pass"),
        (940, 1000, Target(ratio_min=0.95), "miss"),
        (940, 900, Target(ratio_min=0.95), "inconclusive"),  # the twin itself lost a tenth
        (1900, 900, Target(ratio_min=0.95), "inconclusive"),  # ... whatever the ratio says
        (960, 1100, Target(ratio_min=0.95), "inconclusive"),  # ... in either direction
        (960, 1000, Target(), ""),
        (960, 1000, Target(per_s_min=900), "pass"),
        (960, 1000, Target(per_s_min=1000), "miss"),
        (960, 900, Target(per_s_min=900), "inconclusive"),
    ],
)
def test_verdicts(speed: float, after: float, target: Target, word: str) -> None:
    found, why = verdict(rounds(*[(1000, speed, after)] * 15), target)
    assert found == word
    assert bool(why) == (word == "inconclusive")


def test_a_time_is_a_target_too() -> None:
    imports = [Round(Run(1, 0.05, 0.05), Run(1, 0.07, 0.07), Run(1, 0.05, 0.05))] * 5
    assert verdict(imports, Target(wall_max_s=0.08))[0] == "pass"
    assert verdict(imports, Target(wall_max_s=0.06))[0] == "miss"


def test_too_wide_is_inconclusive_only_where_it_matters() -> None:
    noisy = rounds((1000, 700, 1000), (1000, 1300, 1000), (1000, 900, 1000))
    assert verdict(noisy, Target(ratio_min=0.95))[0] == "inconclusive"
    assert verdict(noisy, Target(ratio_min=5.0))[0] == "miss"
    fast = rounds((1000, 4000, 1000), (1000, 5000, 1000), (1000, 6000, 1000))
    assert verdict(fast, Target(ratio_min=0.95))[0] == "pass"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target(ratio_min=0.95), "≥ 0.95"),
        (Target(per_s_min=20_000), "≥ 20,000/s"),
        (Target(wall_max_s=0.08), "< 80 ms"),
        (Target(), ""),
    ],
)
def test_targets_read_well(target: Target, text: str) -> None:
    assert str(target) == text
