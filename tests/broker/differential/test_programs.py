"""The programs: from a seed alone, printable, all operations in them, and a wait in time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.differential import bugs, difference, making
from integration.differential.__main__ import main
from integration.differential.coverage import LISTED, counted
from integration.differential.difference import Difference, Sides, compare, first_difference, minimise
from integration.differential.executor import Unclean
from integration.differential.making import Op
from integration.differential.operations import OPERATIONS, OPS_BETWEEN_WAITS, program

SIDES = Sides("left", "right", ("left", "right"))


def test_a_program_is_its_seeds() -> None:
    for seed in range(50):
        ops = program(seed, 30)
        assert ops == program(seed, 30)
        assert len(ops) == 30
        assert json.loads(json.dumps(ops)) == ops
    assert program(1, 30) != program(2, 30)


def test_every_operation_is_in_many_of_500_programs() -> None:
    counts = counted(program(seed, 30) for seed in range(1, 501))
    assert set(counts) == set(LISTED) >= set(OPERATIONS)
    assert min(counts.values()) >= 50, counts


def test_where_time_matters_a_wait_follows() -> None:
    timed = [ops for ops in (program(seed, 40) for seed in range(200)) if {"op": "wait"} in ops]
    assert timed
    for ops in timed:
        since = 0
        for op in ops:
            since = 0 if op["op"] == "wait" else since + 1
            assert since <= OPS_BETWEEN_WAITS + 3
        assert ops[-1] == {"op": "wait"}
    short = str(making.SHORT_MS)
    for ops in (program(seed, 40) for seed in range(200)):
        if {"op": "wait"} not in ops:
            assert f'"{short}"' not in json.dumps(ops)
            assert f": {short}" not in json.dumps(ops)


def test_the_first_difference() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 5, 4]) == Difference(1, 2, 5)


class Fake:
    """An executor whose right side adds one wherever a `bug` follows a `setup`."""

    runs = 0
    flaky_until = 0

    def __init__(self, url: str, prefix: str, patience: float = 1.0) -> None:
        self.url = url

    def run(self, ops: list[Op]) -> list[Any]:
        type(self).runs += 1
        names = [op["op"] for op in ops]
        wrong = self.url == "right" and "setup" in names
        trace: list[Any] = [
            [name, name == "bug" and wrong and names.index("setup") < at] for at, name in enumerate(names)
        ]
        if self.url == "right" and type(self).runs <= type(self).flaky_until:
            trace[0] = "late"
        return [*trace, "left"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(difference, "Executor", Fake)
    monkeypatch.setattr(Fake, "runs", 0)
    monkeypatch.setattr(Fake, "flaky_until", 0)
    return Fake


def ops_of(*names: str) -> list[Op]:
    return [{"op": name} for name in names]


def test_minimising_keeps_what_is_needed(fake: type[Fake]) -> None:
    ops = ops_of("a", "setup", "b", "c", "bug", "d")
    different, _ = compare(SIDES, ops)
    assert different is not None
    keep, found = minimise(SIDES, ops, different, print)
    assert keep == [1, 4]
    assert found.at == 1
    assert (found.left, found.right) == (["bug", False], ["bug", True])


def test_what_does_not_show_again_is_unsteady(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "flaky_until", 2)
    assert compare(SIDES, ops_of("a", "b")) == (None, True)


def test_a_machine_too_slow_is_no_difference(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Fake, ops: list[Op]) -> list[Any]:
        raise Unclean

    monkeypatch.setattr(Fake, "run", slow)
    with pytest.raises(difference.TooSlow):
        compare(SIDES, ops_of("a"))


def test_the_report_and_its_replay_command(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "integration.differential.__main__.program", lambda seed, steps: ops_of("a", "setup", "bug")
    )
    status = main(["--seeds", "7", "--steps", "3", "--real", "left", "--ours", "right"])
    out = capsys.readouterr().out
    assert status == 1
    assert "again: python -m integration.differential --seeds 7 --steps 3 --keep 1,2" in out
    assert "1 differences; 0 unsteady, 0 too slow" in out
    assert main(["--seeds", "7", "--steps", "3", "--real", "left", "--ours", "left"]) == 0


def test_what_the_left_side_does_not_do_twice_is_no_difference(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Fake.run

    def moody(self: Fake, ops: list[Op]) -> list[Any]:
        return [*run(self, ops), Fake.runs]

    monkeypatch.setattr(Fake, "run", moody)
    assert compare(SIDES, ops_of("a")) == (None, True)


def test_too_few_programs_with_an_operation_are_a_failure(
    fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--seeds", "1..2", "--real", "left", "--ours", "left"]
    assert main(arguments) == 0
    assert main([*arguments, "--min-per-operation", "3"]) == 1
    assert "in fewer than 3: declare_queue 2" in capsys.readouterr().out


def test_each_bug_in_turn_until_a_seed_finds_it(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "integration.differential.__main__.program",
        lambda seed, steps: ops_of("setup", "bug") if seed == 2 else ops_of("a"),
    )
    assert main(["--every-bug", "--seeds", "1..3", "--real", "left", "--ours", "right"]) == 0
    assert capsys.readouterr().out.count("found by seed 2, 2 programs") == len(bugs.BUGS)
    assert main(["--every-bug", "--seeds", "1..1", "--real", "left", "--ours", "right"]) == 1
    assert "NOT FOUND" in capsys.readouterr().out
