"""A worker that is killed: `python -m integration.proofs_worker.victim URL QUEUE RESULTS`.

Rules
- The body says what happens: `good` is handled, `transient` fails its first try, `exhausted` and `fatal` fail always, `killer`
  kills its own process.
- What was handled is one line in RESULTS, appended and flushed before the ack: number, process, and how often it was in hand
  when something ended badly. Nothing else is kept anywhere.
- `UNIMQ_PROOF_BUG` names a bug to plant first (`bugs.py`): to show that the proof finds it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import TypedDict

from integration.proofs_worker import bugs
from unimq import Delivery, Queue, Retry
from unimq.worker import Worker
from unimq.worker.guard import crashes_of

PREFETCH = 10
CRASHES = 5
DELAYS_S = (0.5, 1.0)
WORK_S = 0.01
KILLER_S = 0.05  # a killer is at it for so long: others are fetched meanwhile, where that is allowed


class Job(TypedDict):
    n: int
    kind: str


class Passing(Exception):
    """What the next try does not meet."""


class Never(Exception):
    """What no try will mend."""


def main(url: str, queue: str, results: str) -> int:
    logging.basicConfig(level=logging.ERROR)  # stderr is kept: the last line is shown when it ends by itself
    if bug := os.environ.get("UNIMQ_PROOF_BUG"):
        bugs.PLANT[bug]()
    worker = Worker(url, drain_s=10)
    policy = Retry(immediate=1, delayed_s=DELAYS_S, crashes=CRASHES)

    @worker.handler(Queue(queue), concurrency=4, prefetch=PREFETCH, retry=policy, fatal=Never)
    def work(job: Job, delivery: Delivery) -> None:
        if job["kind"] == "killer":
            time.sleep(KILLER_S)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(WORK_S)
        if job["kind"] == "fatal":
            raise Never("for good")
        if job["kind"] == "exhausted" or (job["kind"] == "transient" and delivery.attempt <= 2):
            raise Passing("perhaps next time")
        with open(results, "ab", buffering=0) as file:
            file.write(b"%d %d %d\n" % (job["n"], os.getpid(), crashes_of(delivery)))

    return worker.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
