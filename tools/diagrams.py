"""Writes docs/states.md, the state machines as diagrams, from the tables that the code runs by. `--check` compares and fails.

Rules
- The tables are the source: a diagram says nothing that they do not.
- What the states mean is said beside them in the code; what a machine is for is said here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unimq import _settlement, _supervisor
from unimq.worker import stopping

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "states.md"
Table = Mapping[tuple[Any, str], Any]
MACHINES: Final[dict[str, tuple[str, Table]]] = {
    "A delivery": (
        "`unimq/_settlement.py`. A verb takes a delivery out of `open`, once; a copy is confirmed before its source is settled.",
        _settlement.TRANSITIONS,
    ),
    "A connection": (
        "`unimq/_supervisor.py`. While it is down, senders gather messages until their deadline, and receivers wait.",
        _supervisor.TRANSITIONS,
    ),
    "A run of a worker": (
        "`unimq/worker/stopping.py`. The first stop drains, the second hurries.",
        stopping.TRANSITIONS,
    ),
}


def diagram(table: Table) -> str:
    """A mermaid state diagram; transitions that end where they begin are left out."""
    first = next(iter(table))[0]
    moves: dict[tuple[str, str], list[str]] = {}
    for (before, what), after in table.items():
        if before is not after:
            moves.setdefault((before.name, after.name), []).append(what)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.name}"]
    lines += [f"    {before} --> {after}: {', '.join(what)}" for (before, after), what in moves.items()]
    return "\n".join([*lines, "```"])


def page() -> str:
    parts = [
        "# State machines",
        "Written by `tools/diagrams.py` from the tables in the code (`make generate`).",
    ]
    for name, (text, table) in MACHINES.items():
        parts += [f"## {name}", text, diagram(table)]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where the page is out of date"
    )
    check = parser.parse_args(arguments).check
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    if check:
        print("docs/states.md does not show the tables: make generate")
        return 1
    PAGE.write_text(page())
    print("wrote docs/states.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
