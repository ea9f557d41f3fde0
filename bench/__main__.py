"""Measures a broker's rows and prints the table.

    python -m bench rabbitmq [--short] [--rows send_many,submit] [--url URL] [--json FILE]

- The broker: `--url`, else `UNIMQ_RABBITMQ_URL`, else `UNIMQ_URL` where it is of that kind, else one started for this.
- The exit code is 1 when a row could not be measured. With `--strict` also when one missed its target; without it that is
  only printed, since a busy machine misses what a quiet one reaches.
- `--short` is for CI: few messages, wide intervals, 3 minutes at most; its misses are hints, not findings.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from bench import machine, rabbitmq, report, stats
from bench.session import FULL, SHORT, Limits, Measured, Row, measure
from integration.native import BROKERS
from integration.sources import probe

SHORT_VARIABLE: Final = "UNIMQ_SHORT"
SHORT_ALL_S: Final = 160.0  # rows that would begin later are left out
EXIT_UNAVAILABLE: Final = 3
EXIT_INTERRUPTED: Final = 130


class Suite(Protocol):
    """What the module of a broker has."""

    @property
    def DISTRIBUTIONS(self) -> tuple[str, ...]: ...  # noqa: N802

    @property
    def LEFT_OUT(self) -> dict[str, str]: ...  # noqa: N802

    def rows(self, url: str) -> AbstractContextManager[list[Row]]: ...


SUITES: Final[dict[str, Suite]] = {"rabbitmq": rabbitmq}
SCHEMES: Final = {"rabbitmq": ("amqp://", "amqps://")}


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    suite = SUITES[options.broker]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: queue and broker must not stay
    with broker(options.broker, options.url) as url:
        if url is None:
            return EXIT_UNAVAILABLE
        about = machine.about(f"{options.broker} {probe(url)}", suite.DISTRIBUTIONS)
        print(machine.line(about), flush=True)
        with suite.rows(url) as rows:
            measured, over = _measure(_chosen(rows, options.rows, suite), SHORT if options.short else FULL)
            # While the queue is still there: whatever its end brings, the figures are out.
            print(
                f"\n{report.markdown(measured) if options.markdown else report.table(measured)}", flush=True
            )
            if options.json is not None:
                ended = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
                about |= {"bench": options.broker, "ended": ended, "short": options.short}
                options.json.write_text(json.dumps(report.as_json(measured, about), indent=1) + "\n")
    if over:
        return EXIT_INTERRUPTED
    failed = any(one.failed for one in measured)
    missed = any(
        not one.failed and stats.verdict(one.rounds, one.row.target)[0] == "miss" for one in measured
    )
    return int(failed or (options.strict and missed))


def _measure(rows: list[Row], limits: Limits) -> tuple[list[Measured], bool]:
    """All rows, or those before Ctrl-C; then True."""
    began = time.monotonic()
    measured: list[Measured] = []
    for row in rows:
        if limits is SHORT and time.monotonic() - began > SHORT_ALL_S:
            print(f"{row.name}: left out: {SHORT_ALL_S:g} s were over", flush=True)
            continue
        try:
            measured.append(measure(row, limits))
        except KeyboardInterrupt:
            return measured, True
        line = [cell for cell in report.cells(measured[-1]) if cell]
        print(f"{' | '.join(line)} | {measured[-1].took_s:.0f} s", file=sys.stderr, flush=True)
    return measured, False


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="unimq beside the client library alone"
    )
    parser.add_argument("broker", choices=list(SUITES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured, each run")
    parser.add_argument("--short", action="store_true", default=bool(os.environ.get(SHORT_VARIABLE)))
    parser.add_argument("--rows", default="", metavar="A,B", help="only these")
    parser.add_argument("--url", help="of a running broker; default: see above, else one is started")
    parser.add_argument("--strict", action="store_true", help="a missed target is exit code 1")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    return parser.parse_args(argv)


def _chosen(rows: list[Row], wanted: str, suite: Suite) -> list[Row]:
    names = {row.name for row in rows}
    for name, package in suite.LEFT_OUT.items():
        if name not in names:
            print(f"{name}: left out: {package} is not installed (extra `bench`)")
    if not wanted:
        return rows
    asked = wanted.split(",")
    unknown = sorted(set(asked) - names)
    if unknown:
        raise SystemExit(
            f"no such row: {', '.join(unknown)}; there are: {', '.join(row.name for row in rows)}"
        )
    return [row for row in rows if row.name in asked]


@contextmanager
def broker(name: str, url: str | None) -> Iterator[str | None]:
    """The URL of a broker; one that is started here ends here. None, and the reason printed, where there is none."""
    found = url or os.environ.get(f"UNIMQ_{name.upper()}_URL")
    general = os.environ.get("UNIMQ_URL", "")
    if not found and general.startswith(SCHEMES[name]):
        found = general
    if found:
        yield found
        return
    if reason := BROKERS[name].available():
        print(f"{name}: no URL was given and none can be started here: {reason}", file=sys.stderr)
        yield None
        return
    native = BROKERS[name]()
    native.start()
    try:
        yield native.url
    finally:
        native.stop()


if __name__ == "__main__":
    sys.exit(main())
