"""How rounds are added: interleaved, until they suffice, and never past a limit. The clock and the runs are made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.session import FULL, SHORT, WARM_UP_SHARE, Contender, Limits, Row, Stopwatch, measure
from bench.stats import Run

LIMITS = Limits(messages=1000, slow_messages=100, rounds_min=3, rounds_max=10, row_s=1000.0)


class World:
    """A clock that runs with the runs, and who ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[tuple[str, int]] = []

    def contender(
        self, name: str, wall_s: Callable[[int], float], count: Callable[[int], int] = lambda n: n
    ) -> Contender:
        def one(wanted: int) -> Run:
            self.order.append((name, wanted))
            took = wall_s(sum(1 for who, _ in self.order if who == name))
            self.now += took
            return Run(count(wanted), took, took)

        return one

    def clock(self) -> float:
        return self.now


def row(
    world: World,
    *,
    ours: Contender | None = None,
    slow: bool = False,
    count: int | None = None,
    facts: Callable[[], str] | None = None,
) -> Row:
    return Row(
        "row",
        "title",
        "twin",
        ours or world.contender("ours", lambda _: 1.0),
        world.contender("twin", lambda _: 1.0),
        slow=slow,
        count=count,
        facts=facts,
    )


def test_interleaved_after_a_warm_up_and_no_more_than_needed() -> None:
    world = World()
    found = measure(row(world), LIMITS, world.clock)
    names = [name for name, _ in world.order]
    assert names == ["twin", "ours"] + ["twin", "ours", "twin"] * 3
    assert [count for _, count in world.order] == [1000 // WARM_UP_SHARE] * 2 + [1000] * 9
    assert (len(found.rounds), found.why, found.failed) == (3, "", False)
    assert found.took_s == world.now


def test_noise_adds_rounds_up_to_the_limit() -> None:
    world = World()
    noisy = world.contender("ours", lambda number: 1.0 + number % 2)
    found = measure(row(world, ours=noisy), LIMITS, world.clock)
    assert len(found.rounds) == LIMITS.rounds_max


def test_the_limit_on_time_comes_before_the_least_number_of_rounds() -> None:
    world = World()
    limits = Limits(messages=1000, rounds_min=5, rounds_max=10, row_s=12.0)
    found = measure(row(world), limits, world.clock)
    assert len(found.rounds) == 3  # 2 of warm-up and 3 each: a fourth would end at 14
    assert found.took_s <= limits.row_s
    assert found.why == "12 s were over"


def test_slow_rows_and_rows_with_a_count_of_their_own() -> None:
    world = World()
    assert measure(row(world, slow=True), LIMITS, world.clock).count == 100
    assert measure(row(world, count=7), LIMITS, world.clock).count == 7


def test_a_run_that_fails_is_the_rows_outcome() -> None:
    world = World()

    def broken(_count: int) -> Run:
        raise ConnectionError("gone")

    found = measure(row(world, ours=broken), LIMITS, world.clock)
    assert (found.failed, found.why, found.rounds) == (True, "ConnectionError: gone", [])


def test_a_message_missing_is_a_failure() -> None:
    world = World()
    short = world.contender("ours", lambda _: 1.0, lambda wanted: wanted - 1)
    found = measure(row(world, ours=short), LIMITS, world.clock)
    assert found.failed
    assert "99 of 100 messages" in found.why


def test_facts_are_asked_once() -> None:
    world = World()
    facts = iter(["3 threads"])
    found = measure(row(world, facts=lambda: next(facts)), LIMITS, world.clock)
    assert (found.facts, found.failed) == ("3 threads", False)


def test_ctrl_c_ends_it() -> None:
    world = World()

    def interrupted(_count: int) -> Run:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(row(world, ours=interrupted), LIMITS, world.clock)


def test_the_limits_are_those_of_the_design() -> None:
    assert FULL.messages >= 30_000
    assert (FULL.rounds_min, FULL.rounds_max) == (15, 60)
    assert SHORT.messages == 5_000


def test_a_stopwatch_counts_this_process() -> None:
    watch = Stopwatch()
    sum(range(200_000))
    found = watch.stop(5)
    assert found.count == 5
    assert found.wall_s > 0
    assert found.cpu_s > 0
