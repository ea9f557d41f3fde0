"""The ledger of promises: behaviour × broker × world, and what held.

    python -m unimq.testing.ledger [--json FILE] [--url URL ...] [--no-table] [PYTEST ARGUMENTS ...]

Rules
- It runs pytest in this process: the suite on each `--url`, and what the arguments name (an adapter's own conformance tests,
  with all its hooks). Without either: `memory://`.
- A cell is pass, emulated, unsupported (asking was seen to be refused), known difference (with its reason), not run (the
  harness lacks a hook) or failed. Exit 1 when one failed, or when there was nothing to write down.
- A broker that is not there is said, with the reason; then the cells that differ between brokers or worlds, by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from .conformance import EMULATION, FAILED, KINDS, KNOWN, NOT_RUN, PASS, UNSUPPORTED, WORLDS, load

if TYPE_CHECKING:
    import pytest

SIGNS: Final = {PASS: "+", EMULATION: "e", UNSUPPORTED: "-", KNOWN: "k", NOT_RUN: ".", FAILED: "F"}


@dataclass(frozen=True)
class Cell:
    """One behaviour on one broker in one world."""

    broker: str
    world: str
    number: int
    name: str
    outcome: str
    reason: str
    seconds: float


class Collector:
    """A pytest plug-in that reads the suite's reports."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.other_failures: list[str] = []
        self.left_out: Counter[str] = Counter()  # why → how many cases
        self._names = {number: behaviour.name for number, behaviour in load().items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties)
        number = said.get("unimq-behaviour")
        if not isinstance(number, int):
            if report.skipped and report.when == "setup" and isinstance(report.longrepr, tuple):
                self.left_out[
                    f"{Path(report.fspath).name}: {report.longrepr[2].removeprefix('Skipped: ')}"
                ] += 1
            if report.failed:
                self.other_failures.append(f"{report.nodeid}: {_last_line(report)}")
            return
        if report.when == "call":
            # a failure wins over what was said before it (a strict xfail, a hard limit)
            outcome = FAILED if report.failed else str(said.get("unimq-outcome", FAILED))
            reason = _last_line(report) if outcome == FAILED else str(said.get("unimq-reason", ""))
            self.cells.append(
                Cell(
                    broker=str(said["unimq-broker"]),
                    world=str(said["unimq-world"]),
                    number=number,
                    name=self._names[number],
                    outcome=outcome,
                    reason=reason,
                    seconds=round(report.duration, 3),
                )
            )
        elif report.failed:
            self.other_failures.append(f"{report.nodeid} ({report.when}): {_last_line(report)}")


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else str(report.longrepr)
    return " ".join(text.split())[:300]


def run(urls: Sequence[str], arguments: Sequence[str]) -> Collector:
    """Run the suite; what it wrote down."""
    import pytest

    from .conformance import suite

    collector = Collector()
    # unimq is imported already: here that is no reason for a warning, which may be an error where it runs
    already = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    called = ["-q", "--no-header", "-p", "no:cacheprovider", "--tb=short", "-W", already, *arguments]
    if urls or not arguments:
        called += [suite.__file__, *(f"--unimq-conformance-url={url}" for url in urls or ["memory://ledger"])]
    plugins: list[object] = [collector]
    if not _installed():
        from . import plugin

        plugins.append(plugin)
    pytest.main(called, plugins=plugins)
    return collector


def _installed() -> bool:
    """Whether pytest finds the plug-in by its entry point."""
    from importlib.metadata import entry_points

    return any(point.value == "unimq.testing.plugin" for point in entry_points(group="pytest11"))


def table(cells: Sequence[Cell], out: TextIO) -> None:
    """One line per behaviour, one column per broker and world, then the reasons and the counts."""
    columns = sorted({(cell.broker, cell.world) for cell in cells})
    by_key = {(cell.broker, cell.world, cell.number): cell for cell in cells}
    names = {cell.number: cell.name for cell in cells}
    width = max(len(name) for name in names.values()) + 5
    print("\n" + ", ".join(f"{sign} {kind}" for kind, sign in SIGNS.items()), file=out)
    for index, (broker, world) in enumerate(columns, 1):
        print(f"[{index}] {broker}, {world}", file=out)
    print(" " * width + "".join(f"{f'[{index}]':>5}" for index in range(1, len(columns) + 1)), file=out)
    for number, name in sorted(names.items()):
        signs = []
        for broker, world in columns:
            cell = by_key.get((broker, world, number))
            signs.append(f"{SIGNS[cell.outcome] if cell else ' ':>5}")
        print(f"{number:>3} {name}".ljust(width) + "".join(signs), file=out)
    for cell in sorted(cells, key=lambda cell: (cell.broker, cell.number, cell.world)):
        if cell.outcome in (KNOWN, FAILED):
            print(
                f"{cell.outcome}: {cell.broker}, {cell.world}, {cell.number} {cell.name}: {cell.reason}",
                file=out,
            )
    for line in differing(cells, columns):
        print(line, file=out)
    for broker, world in columns:
        counts = Counter(cell.outcome for cell in cells if (cell.broker, cell.world) == (broker, world))
        print(f"{broker}, {world}: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS), file=out)


def differing(cells: Sequence[Cell], columns: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each behaviour whose outcome is not the same in all columns, with who has which."""
    by_number: dict[int, dict[str, list[int]]] = {}
    names: dict[int, str] = {}
    for cell in sorted(cells, key=lambda cell: (cell.number, columns.index((cell.broker, cell.world)))):
        names[cell.number] = cell.name
        column = columns.index((cell.broker, cell.world)) + 1
        by_number.setdefault(cell.number, {}).setdefault(cell.outcome, []).append(column)
    return [
        f"differs: {number} {names[number]}: "
        + ", ".join(
            f"{outcome} " + "".join(f"[{each}]" for each in found) for outcome, found in outcomes.items()
        )
        for number, outcomes in by_number.items()
        if len(outcomes) > 1
    ]


def as_json(collector: Collector) -> dict[str, object]:
    brokers = sorted({cell.broker for cell in collector.cells})
    return {
        "behaviours": {
            number: {"name": each.name, "promise": each.promise, "needs": each.needs, "hooks": each.hooks}
            for number, each in load().items()
        },
        "cells": [asdict(cell) for cell in collector.cells],
        "counts": {
            broker: {
                world: Counter(
                    cell.outcome for cell in collector.cells if (cell.broker, cell.world) == (broker, world)
                )
                for world in WORLDS
            }
            for broker in brokers
        },
        "left_out": collector.left_out,
        "other_failures": collector.other_failures,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m unimq.testing.ledger", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--url", action="append", default=[], help="a broker to run the suite on; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--no-table", action="store_true", help="print only the counts' sum")
    known, arguments = parser.parse_known_args(argv)
    collector = run(known.url, arguments)
    if known.json is not None:
        known.json.write_text(json.dumps(as_json(collector), indent=1), "utf-8")
    if collector.cells and not known.no_table:
        table(collector.cells, sys.stdout)
    for text, count in collector.left_out.items():
        print(f"left out: {text} ({count} cases)")
    for text in collector.other_failures:
        print(f"failed outside the suite: {text}")
    failed = sum(cell.outcome == FAILED for cell in collector.cells)
    print(f"{len(collector.cells)} cells, {failed} failed")
    return 1 if failed or collector.other_failures or not collector.cells else 0


if __name__ == "__main__":
    sys.exit(main())
