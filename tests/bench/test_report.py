"""What is printed and written of what was measured."""

from __future__ import annotations

import json

import pytest

from bench import machine, report
from bench.__main__ import main
from bench.session import Measured, Row
from bench.stats import Round, Run, Target


def nothing(_count: int) -> Run:
    raise AssertionError("not to be run")


def measured(
    name: str, ours_s: float, after_s: float = 1.0, *, count: int = 10_000, target: Target | None = None
) -> Measured:
    made = Row(
        name, f"title of {name}", "the library alone", nothing, nothing, target or Target(ratio_min=0.95)
    )
    one = Round(Run(count, 1.0, 0.2), Run(count, ours_s, 0.1), Run(count, after_s, 0.2))
    return Measured(made, count, [one] * 15, 45.0)


def test_a_row_of_the_table() -> None:
    assert report.cells(measured("send", 0.5)) == (
        "send",
        "20.0k/s (20.0k-20.0k)",
        "10.0k/s (10.0k-10.0k)",
        "2.00 ± 0.00",
        "1.00 ± 0.00",
        "10.0 / 20.0",
        "15",
        "≥ 0.95",
        "pass",
    )


def test_few_of_a_run_are_told_as_time() -> None:
    assert report.cells(measured("connect", 0.05, count=10))[1] == "5.0 ms (5.0-5.0)"


def test_inconclusive_says_why() -> None:
    one = measured("send", 0.5, after_s=2.0)
    assert report.cells(one)[-1] == "inconclusive"
    assert "its own control is 0.50" in report.table([one])


def test_a_failed_row_stands_in_the_table_with_its_reason() -> None:
    one = Measured(measured("send", 1.0).row, 10, [], 1.0, "OSError: gone", failed=True)
    text = report.table([one, measured("other", 1.0)])
    assert "FAILED" in text
    assert "OSError: gone" in text
    assert "other" in text


def test_one_round_only_is_printed_without_a_width() -> None:
    one = measured("send", 1.0)
    single = Measured(one.row, one.count, one.rounds[:1], 1.0)
    assert report.cells(single)[3] == "1.00 ± ∞"


def test_columns_are_aligned_and_markdown_has_as_many() -> None:
    rows = [measured("send", 0.5), measured("a_longer_name", 0.123)]
    lines = report.table(rows).splitlines()
    assert len({line.index("≥ 0.95") for line in lines if "≥ 0.95" in line}) == 1
    assert {line.count("|") for line in report.markdown(rows).splitlines()} == {len(report.HEAD) + 1}


def test_json_has_every_run_and_is_json() -> None:
    single = measured("one", 1.0)
    rows = [measured("send", 0.5), Measured(single.row, 10, single.rounds[:1], 1.0)]
    found = json.loads(json.dumps(report.as_json(rows, {"cores": 2}), allow_nan=False))
    assert found["cores"] == 2
    first = found["rows"][0]
    assert (first["verdict"], first["ratio"]["ratio"], first["ours"]["per_s"]) == ("pass", 2.0, 20000.0)
    assert len(first["rounds"]) == 15
    assert first["rounds"][0]["ours"] == {"count": 10000, "wall_s": 0.5, "cpu_s": 0.1}


def test_the_machine_is_named_with_what_is_installed() -> None:
    about = machine.about("rabbitmq 3.10.8", ("pytest", "no-such-distribution"))
    assert list(about["libraries"]) == ["pytest"]
    assert "cores" in machine.line(about)
    assert machine.line(about).endswith("rabbitmq 3.10.8")


def test_an_unknown_broker_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-broker"])
    assert "rabbitmq" in capsys.readouterr().err
