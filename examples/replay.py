"""Replay by script: bring back those dead letters that a fix has made good again, gently, and say what is left.

    UNIMQ_URL=... python examples/replay.py queue:orders ConnectionError

The second argument is a part of the error's type. Each one is confirmed in the queue before it leaves the dead letters:
stopped half way and run again, nothing is lost.
"""

from __future__ import annotations

import sys
from collections import Counter

import unimq
from unimq import Address, Client, DeadLetter, Queue, Subscription

RATE = 200  # messages a second: what is broken should not be flooded as soon as it is mended


def replay(mq: Client, source: Queue | Subscription, error_type: str) -> tuple[int, Counter[str]]:
    """(how many went back, what is left by reason)."""

    def mended(letter: DeadLetter) -> bool:
        return error_type in (letter.error_type or "")

    dead = mq.dead_letters(source)
    back = dead.replay(where=mended, rate=RATE)
    return back, Counter(letter.reason or "unknown" for letter in dead.browse(limit=1_000))


def main(where: str, error_type: str) -> int:
    source = Address.parse(where)
    if not isinstance(source, Queue | Subscription):
        print("a topic has no dead letters: name a queue or a subscription", file=sys.stderr)
        return 2
    with unimq.connect() as mq:
        back, left = replay(mq, source, error_type)
    print(f"{back} went back to {source}; left: {dict(left) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
