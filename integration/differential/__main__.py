"""`python -m integration.differential --seeds A..B --steps 30`: see the package."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from . import bugs, sides
from .difference import Difference, Sides, TooSlow, compare, minimise
from .operations import OPERATIONS, Op, program

PROGRESS_EVERY: Final = 25


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        if options.bug:
            stack.enter_context(bugs.seeded(options.bug))
        try:
            pair = stack.enter_context(_sides(options))
        except bugs.Unknown as error:
            print(error, file=sys.stderr)
            return 2
        return _run(options, pair)


def _run(options: argparse.Namespace, pair: Sides) -> int:
    counts: Counter[str] = Counter()
    steps = programs = unsteady = slow = found = 0
    began = time.monotonic()
    for seed in options.seeds:
        ops = program(seed, options.steps)
        if options.keep is not None:
            ops = [ops[at] for at in options.keep]
        try:
            difference, flicker = compare(pair, ops)
        except TooSlow:
            slow += 1
            print(f"seed {seed}: the machine is too slow for its waits", flush=True)
            continue
        programs += 1
        if programs % PROGRESS_EVERY == 0:
            print(f"… {programs} programs, {found} differences", file=sys.stderr, flush=True)
        steps += len(ops)
        unsteady += flicker
        counts.update(op["op"] for op in ops)
        if difference is None:
            continue
        found += 1
        _report(options, pair, seed, ops, difference)
        if options.first:
            break
    took_s = time.monotonic() - began
    print(f"\n{pair.names[0]} and {pair.names[1]}: {programs} programs, {steps} operations, {took_s:.0f} s:")
    print(f"{found} differences; {unsteady} unsteady, {slow} too slow")
    print("operations: " + ", ".join(f"{name} {counts[name]}" for name in OPERATIONS))
    return 1 if found else 0


def _report(options: argparse.Namespace, pair: Sides, seed: int, ops: list[Op], found: Difference) -> None:
    keep = list(range(len(ops)))
    if not options.raw:
        keep, found = minimise(pair, ops, found, print)
    if options.keep is not None:
        shown = [options.keep[at] for at in keep]
    else:
        shown = keep
    print(f"\nseed {seed}: a difference, with {len(keep)} of {len(ops)} operations")
    for at, op in zip(shown, [ops[at] for at in keep], strict=True):
        print(f"  {at:3} {json.dumps(op)}")
    where = "what was left at the end" if found.at >= len(keep) else f"operation {shown[found.at]}"
    print(f"  at {where}:")
    for name, seen in zip(pair.names, (found.left, found.right), strict=True):
        print(f"    {name:9} {json.dumps(seen)}")
    again = f"python -m integration.differential --seeds {seed} --steps {options.steps}"
    bug = f" --bug {options.bug}" if options.bug else ""
    print(f"  again: {again} --keep {','.join(map(str, shown))}{bug}", flush=True)


@contextlib.contextmanager
def _sides(options: argparse.Namespace) -> Iterator[Sides]:
    with sides.real(options.real) as left:
        if options.against == "real":
            yield Sides(left, left, ("real", "real"))
            return
        with sides.ours(options.ours) as right:
            yield Sides(left, right, ("real", "ours"))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.differential", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(1, 21), metavar="A..B")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--against", choices=("ours", "real"), default="ours", help="real: the control")
    parser.add_argument("--real", metavar="URL")
    parser.add_argument("--ours", metavar="URL")
    parser.add_argument(
        "--keep", type=_indices, metavar="I,J,...", help="only these operations of each program"
    )
    parser.add_argument("--bug", choices=sorted(bugs.BUGS), help="put this bug into ours: it must be found")
    parser.add_argument("--first", action="store_true", help="stop at the first difference")
    parser.add_argument("--raw", action="store_true", help="do not minimise")
    return parser.parse_args(arguments)


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def _indices(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
