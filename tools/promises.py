"""Writes the table of promises into each adapter's page, from what the adapter declares. `--check` compares and fails.

Rules
- A page says what `ADAPTER.capabilities` says, the most the adapter can; it cannot say anything else.
- The table stands between two comments; everything around it is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from unimq.capabilities import FLAGS, Capabilities

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- promises: written by tools/promises.py from the adapter's capabilities -->\n"
END = "<!-- promises: end -->\n"
PAGES = ("memory", "rabbitmq", "kafka", "activemq", "servicebus")


def table(capabilities: Capabilities) -> str:
    lines = ["| promise | how | what the emulation loses |", "|---|---|---|"]
    lines += [
        f"| {flag} | {getattr(capabilities, flag).value} | {capabilities.losses.get(flag, '')} |"
        for flag in FLAGS
    ]
    return "\n".join(lines) + "\n"


def page(name: str, text: str) -> str:
    """The page with its table renewed."""
    if BEGIN not in text or END not in text:
        raise SystemExit(f"docs/adapters/{name}.md lacks the comments that the table stands between")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    capabilities = import_module(f"unimq_{name}").ADAPTER.capabilities
    return before + BEGIN + table(capabilities) + END + after


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a page is out of date"
    )
    check = parser.parse_args(arguments).check
    stale = 0
    for name in PAGES:
        path = ROOT / "docs" / "adapters" / f"{name}.md"
        text = path.read_text()
        renewed = page(name, text)
        if renewed == text:
            continue
        stale += 1
        if check:
            print(f"{path.relative_to(ROOT)} does not say what the adapter declares: make generate")
        else:
            path.write_text(renewed)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
