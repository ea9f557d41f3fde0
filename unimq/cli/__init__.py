"""The command line: address first, `--url` (default UNIMQ_URL, so that no password stands in `ps`).

Rules
- Typer and rich come with the extra `cli`; without it, one sentence says so.
- Exit codes: 0 done, 1 an error of the broker or of ours, 2 a wrong call, 3 nothing there.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point `unimq`."""
    if sys.argv[1:2] == ["broker"]:  # works without the extra
        from ..broker.command import main as broker

        sys.exit(broker(sys.argv[2:]))
    try:
        from .app import app
    except ImportError as error:
        print(f"unimq: the command line needs {error.name}: pip install 'unimq[cli]'", file=sys.stderr)
        sys.exit(1)
    app()
