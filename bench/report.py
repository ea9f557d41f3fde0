"""The outcome as a table for people and as JSON for programs. Pure.

Rules
- The table says what may be said and no more: a row whose control is off reads `inconclusive`, never `pass`.
- Everything that was measured is in the JSON, each run: other statistics can be made of it without measuring again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench import stats
from bench.session import Measured

WIDTH_SAID_MAX: Final = 10.0  # beyond it an interval says nothing
HEAD: Final = ("row", "ours", "twin", "ratio", "control", "CPU µs", "rounds", "target", "")


def table(measured: Sequence[Measured]) -> str:
    """Aligned columns, and below them what each row is and what there is to say about it."""
    lines = [HEAD, *(cells(one) for one in measured)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    notes = [note for one in measured for note in notes_of(one)]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:], "", *notes])


def markdown(measured: Sequence[Measured]) -> str:
    """The same as a table of a documentation page."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(cells(one) for one in measured)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(one: Measured) -> tuple[str, ...]:
    if one.failed or not one.rounds:
        return (one.row.name, *("" for _ in range(6)), str(one.row.target), "FAILED")
    ours, twin = [r.ours for r in one.rounds], twins(one)
    found, control = stats.ratio(one.rounds), stats.control(one.rounds)
    word, _ = stats.verdict(one.rounds, one.row.target)
    return (
        one.row.name,
        rate(stats.spread([run.per_s for run in ours]), one.count),
        rate(stats.spread([run.per_s for run in twin]), one.count),
        width(found),
        width(control),
        f"{median(run.cpu_us for run in ours)} / {median(run.cpu_us for run in twin)}",
        str(len(one.rounds)),
        str(one.row.target),
        word,
    )


def width(found: stats.Interval) -> str:
    reach = f"{found.half_width:.2f}" if found.half_width < WIDTH_SAID_MAX else "∞"
    return f"{found.ratio:.2f} ± {reach}"


def notes_of(one: Measured) -> list[str]:
    said = [f"{one.row.name}: {one.row.title}; twin: {one.row.twin_title}"]
    if one.rounds and not one.failed:
        _, why = stats.verdict(one.rounds, one.row.target)
        said += [text for text in (why, one.why, one.facts) if text]
    elif one.why:
        said.append(f"FAILED: {one.why}")
    return ["; ".join(said)]


def twins(one: Measured) -> list[stats.Run]:
    return [run for r in one.rounds for run in (r.before, r.after)]


def rate(found: stats.Spread, count: int) -> str:
    """Per second, or the time of one where a run is so few that a rate says nothing."""
    if count > 100:
        return f"{_thousands(found.median)}/s ({_thousands(found.low)}-{_thousands(found.high)})"
    return f"{1e3 / found.median:.1f} ms ({1e3 / found.high:.1f}-{1e3 / found.low:.1f})"


def _thousands(value: float) -> str:
    return f"{value / 1e3:.1f}k"


def median(values: Iterable[float]) -> str:
    found = stats.spread(list(values)).median
    return f"{found:.1f}" if found < 1000 else f"{found:.0f}"


def as_json(measured: Sequence[Measured], about: dict[str, Any]) -> dict[str, Any]:
    return {**about, "rows": [_row(one) for one in measured]}


def _row(one: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.row.name,
        "title": one.row.title,
        "twin": one.row.twin_title,
        "target": str(one.row.target),
        "count": one.count,
        "took_s": round(one.took_s, 2),
        "failed": one.failed,
        "why": one.why,
        "facts": one.facts,
    }
    if not one.rounds:
        return row
    word, why = stats.verdict(one.rounds, one.row.target)
    return row | {
        "verdict": "failed" if one.failed else word,
        "why": one.why or why,
        "ratio": _interval(stats.ratio(one.rounds)),
        "control": _interval(stats.control(one.rounds)),
        "ours": _side([r.ours for r in one.rounds]),
        "twin_runs": _side(twins(one)),
        "rounds": [
            {name: _run(getattr(r, name)) for name in ("before", "ours", "after")} for r in one.rounds
        ],
    }


def _interval(found: stats.Interval) -> dict[str, float | None]:
    return {
        "ratio": round(found.ratio, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4) if math.isfinite(found.high) else None,
    }


def _side(runs: Sequence[stats.Run]) -> dict[str, float]:
    rates, cpu = stats.spread([run.per_s for run in runs]), stats.spread([run.cpu_us for run in runs])
    return {
        "per_s": round(rates.median, 1),
        "per_s_p10": round(rates.low, 1),
        "per_s_p90": round(rates.high, 1),
        "cpu_us": round(cpu.median, 2),
        "cpu_us_p10": round(cpu.low, 2),
        "cpu_us_p90": round(cpu.high, 2),
    }


def _run(run: stats.Run) -> dict[str, float]:
    return {"count": run.count, "wall_s": round(run.wall_s, 6), "cpu_s": round(run.cpu_s, 6)}
