"""`python -m integration.differential --seeds A..B --steps 30`: see the package."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from . import bugs, sides
from .coverage import LISTED, counted
from .difference import PATIENCES, Difference, Outcome, Sides, TooSlow, compare, minimise
from .making import Op
from .operations import program

PROGRESS_EVERY: Final = 25
JOBS: Final = 2
BUG_PATIENCES: Final = PATIENCES[:2]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        if options.bug:
            stack.enter_context(bugs.seeded(options.bug))
        pair = stack.enter_context(_sides(options))
        return _every_bug(options, pair) if options.every_bug else _run(options, pair)


def _every_bug(options: argparse.Namespace, pair: Sides) -> int:
    """Each by itself, until it is found."""
    missed = 0
    for name in bugs.BUGS:
        began, programs, by = time.monotonic(), 0, None
        with bugs.seeded(name):
            for seed, _, outcome in _outcomes(options, pair):
                programs += 1
                if outcome is not None and outcome[0] is not None:
                    by = seed
                    break
        missed += by is None
        found = "NOT FOUND" if by is None else f"found by seed {by}"
        print(f"{name:30} {found}, {programs} programs, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if missed else 0


def _run(options: argparse.Namespace, pair: Sides) -> int:
    done: list[list[Op]] = []
    unsteady: list[int] = []
    slow = found = 0
    began = time.monotonic()
    for seed, ops, outcome in _outcomes(options, pair):
        if outcome is None:
            slow += 1
            print(f"seed {seed}: the machine is too slow for its waits", flush=True)
            continue
        difference, flickered = outcome
        done.append(ops)
        if flickered:
            unsteady.append(seed)
        if len(done) % PROGRESS_EVERY == 0:
            took_s = time.monotonic() - began
            print(
                f"… {len(done)} programs in {took_s:.0f} s, {found} differences", file=sys.stderr, flush=True
            )
        if difference is not None:
            found += 1
            _report(options, pair, seed, ops, difference)
            if options.first:
                break
    took_s = time.monotonic() - began
    print(
        f"\n{pair.names[0]} and {pair.names[1]}: {len(done)} programs, {sum(map(len, done))} operations, {took_s:.0f} s"
    )
    print(f"{found} differences; {len(unsteady)} unsteady, {slow} too slow")
    if unsteady:
        print("unsteady: seeds " + ", ".join(map(str, unsteady)))
    return 1 if found or not _enough(done, options.min_per_operation) else 0


Compared: TypeAlias = tuple[int, list[Op], Outcome | None]  # seed, program; None: too slow


def _outcomes(options: argparse.Namespace, pair: Sides) -> Iterator[Compared]:
    """Several at a time: a program mostly waits. What was too slow among others is tried once more, alone."""
    slow = []
    for seed, ops, outcome in _at_a_time(options, pair, options.seeds, options.jobs):
        if outcome is None and options.jobs > 1:
            slow.append(seed)
        else:
            yield seed, ops, outcome
    yield from _at_a_time(options, pair, slow, 1)


def _at_a_time(
    options: argparse.Namespace, pair: Sides, seeds: Iterable[int], jobs: int
) -> Iterator[Compared]:

    def outcome(seed: int) -> Compared:
        ops = program(seed, options.steps)
        if options.keep is not None:
            ops = [ops[at] for at in options.keep]
        try:
            return seed, ops, compare(pair, ops, BUG_PATIENCES if options.every_bug else PATIENCES)
        except TooSlow:
            return seed, ops, None

    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(outcome, seeds)
    finally:
        pool.shutdown(cancel_futures=True)


def _enough(programs: list[list[Op]], least: int) -> bool:
    counts = counted(programs)
    print("in so many programs: " + ", ".join(f"{name} {counts[name]}" for name in LISTED))
    few = [f"{name} {counts[name]}" for name in LISTED if counts[name] < least]
    if few:
        print(f"in fewer than {least}: " + ", ".join(few))
    return not few


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
    parser.add_argument("--every-bug", action="store_true", help="each in turn, until a seed finds it")
    parser.add_argument("--jobs", type=int, default=JOBS, help="programs at a time")
    parser.add_argument(
        "--min-per-operation", type=int, default=0, metavar="N", help="each must be in so many programs"
    )
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
