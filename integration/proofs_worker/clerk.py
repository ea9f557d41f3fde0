"""A worker that is stopped: `python -m integration.proofs_worker.clerk URL QUEUE RESULTS DRAIN_S`.

Rules
- The body is how long the handler sleeps, in seconds; `for ever` is what never returns.
- What was begun and what was handled is one line each in RESULTS: `begun 7 1234.5`, `handled 7 1234.6` (number, monotonic clock).
- The exit code is the worker's.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TypedDict

from unimq import Queue, Retry
from unimq.worker import Worker

CONCURRENCY = 4
PREFETCH = 20


class Job(TypedDict):
    n: int
    sleep_s: float | None


def main(url: str, queue: str, results: str, drain_s: str) -> int:
    logging.basicConfig(level=logging.INFO)
    worker = Worker(url, drain_s=float(drain_s))

    @worker.handler(
        Queue(queue), concurrency=CONCURRENCY, prefetch=PREFETCH, retry=Retry(immediate=0, delayed_s=[])
    )
    def work(job: Job) -> None:
        with open(results, "ab", buffering=0) as file:
            file.write(b"begun %d %f\n" % (job["n"], time.monotonic()))
            threading.Event().wait(job["sleep_s"])
            file.write(b"handled %d %f\n" % (job["n"], time.monotonic()))

    return worker.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
