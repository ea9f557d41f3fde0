"""An ETL job: take everything that waits in a queue now, transform it, send it on, and end.

    UNIMQ_URL=... python examples/etl.py

`until="end"` ends the loop at the end seen when the receiver opened: what comes later is for the next run. A message is
acknowledged only when its result is confirmed; a row that cannot be read goes to the dead letters, and the job goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import unimq
from unimq import Client, Queue, Retry

RAW, CLEAN = Queue("etl.raw"), Queue("etl.clean")


@dataclass
class Row:
    name: str
    cents: int


def run(mq: Client) -> tuple[int, int]:
    """(rows that went on, rows that did not)."""
    mq.declare(CLEAN)
    good = bad = 0
    with mq.receiver(RAW, until="end", retry=Retry(immediate=0, delayed_s=[])) as rows:
        for delivery in rows:
            before = good
            with delivery:  # an exception in here is the policy's: with this one, the dead letters at once
                row = delivery.decode(Row)
                mq.send(CLEAN, {"name": row.name.title(), "euros": row.cents / 100})
                good += 1
            bad += good == before
        rows.flush()
    return good, bad


def main() -> int:
    with unimq.connect() as mq:
        mq.declare(RAW)
        good, bad = run(mq)
    print(f"{good} rows went on, {bad} are in the dead letters of {RAW}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
