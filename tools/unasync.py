"""Makes the sync twins from their async source. `python tools/unasync.py` writes, `--check` compares and fails.

Rules
- The async file is the source. A generated file says so in its first line and is never edited.
- Files that exist in both worlds and are written by hand (the wait kit) are named in their pair; they are left alone.
- A rule that nothing uses, a source directory that is gone and a generated file without source are failures.
- The rules are regular expressions over the whole text, comments and docstrings included, so that these read right too;
  they are applied from top to bottom. What they make goes through ruff, so that its form is stable.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from {source} by tools/unasync.py; do not edit.\n"
MARK = re.compile(r"# Generated from \S+ by tools/unasync\.py; do not edit\.")
RUFF_TIMEOUT_S = 60


@dataclass(frozen=True)
class Pair:
    """Every *.py of `source` becomes one of the same name in `target`, but for those written by hand."""

    source: str
    target: str
    by_hand: frozenset[str] = frozenset()


PAIRS = [
    Pair("unimq/_async", "unimq/_sync", frozenset({"__init__.py", "_wait.py"})),
    Pair("unimq/testing/conformance/_async", "unimq/testing/conformance/_sync", frozenset({"_kit.py"})),
]

RULES: list[tuple[str, str]] = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait (?=[\w(\[])", ""),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bAsync([A-Z]\w*)", r"\1"),  # AsyncClient, AsyncSender, AsyncIterator, ...
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\bconnect_async\b", "connect"),
]


class Unasync:
    """Applies the rules and counts which of them were used."""

    def __init__(self, rules: Sequence[tuple[str, str]] = RULES) -> None:
        self.rules = [(re.compile(pattern), replacement) for pattern, replacement in rules]
        self.used: Counter[str] = Counter()

    def text(self, source: str) -> str:
        for pattern, replacement in self.rules:
            source, count = pattern.subn(replacement, source)
            self.used[pattern.pattern] += count
        return source

    def unused(self) -> list[str]:
        return [pattern.pattern for pattern, _ in self.rules if not self.used[pattern.pattern]]


def ruff(arguments: Sequence[str], text: str, name: str, root: Path) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", name, "-"]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=RUFF_TIMEOUT_S, cwd=root
    )
    if done.returncode:
        raise SystemExit(f"{name}: {' '.join(command[2:4])} failed: {done.stderr or done.stdout}")
    return done.stdout


def formatted(text: str, name: str, root: Path) -> str:
    """Import order first (AsyncX and X sort differently), then the form."""
    text = ruff(["check", "--quiet", "--select", "I", "--fix", "--exit-zero"], text, name, root)
    return ruff(["format", "--quiet"], text, name, root)


def generate(pairs: Sequence[Pair], unasync: Unasync, root: Path) -> tuple[dict[Path, str], list[str]]:
    """What the generated files should hold, and what is wrong with the tree."""
    made: dict[Path, str] = {}
    wrong: list[str] = []
    for pair in pairs:
        source, target = root / pair.source, root / pair.target
        if not source.is_dir():
            wrong.append(f"{pair.source} is not there: the table PAIRS in tools/unasync.py names it")
            continue
        for path in sorted(source.glob("*.py")):
            if path.name in pair.by_hand:
                continue
            text = HEADER.format(source=f"{pair.source}/{path.name}") + unasync.text(path.read_text("utf-8"))
            made[target / path.name] = formatted(text, f"{pair.target}/{path.name}", root)
        for path in sorted(target.glob("*.py")):
            if path in made or path.name in pair.by_hand:
                continue
            generated = MARK.match(path.read_text("utf-8")) is not None
            wrong.append(
                f"{path.relative_to(root)} has no source in {pair.source}" + (": delete it" * generated)
            )
    return made, wrong


def main(argv: Sequence[str] | None = None, *, root: Path = ROOT, pairs: Sequence[Pair] = PAIRS) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when something differs")
    check: bool = parser.parse_args(argv).check
    unasync = Unasync()
    made, wrong = generate(pairs, unasync, root)
    wrong += [f"rule {pattern} was used nowhere: remove it" for pattern in unasync.unused()]
    for path, text in made.items():
        name = str(path.relative_to(root))
        there = path.read_text("utf-8") if path.exists() else ""
        if there == text:
            continue
        if check:
            lines = difflib.unified_diff(
                there.splitlines(), text.splitlines(), name, "generated", lineterm="", n=1
            )
            wrong.append(
                f"{name} is not what its source gives; run `make generate`\n" + "\n".join(list(lines)[:40])
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {name}")
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
