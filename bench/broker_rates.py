"""How fast the reference broker is beside a real RabbitMQ, asked by the same client: pika's SelectConnection.

    python -m bench.broker_rates [--url amqp://… of the real one] [--count 20000] [--rounds 5]

Rules
- The reference broker is a process of its own, as the real one is. Runs alternate; a rate is the median of its rounds.
- One durable classic queue, persistent messages of 1 KB, as in `bench.rabbitmq`: published with pipelined confirms, consumed
  with an ack per message.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.__main__ import broker
from bench.rabbitmq import BODY, HEADERS, LEAD, PREFETCH, Place
from bench.raw import pika_consume, pika_publish
from bench.stats import Run

START_MAX_S: Final = 20.0
LOOK_EACH_S: Final = 0.02


@contextmanager
def reference_broker() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "unimq", "broker", "--amqp", "0", "--ready-file", str(ready)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + START_MAX_S
                while not ready.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("the reference broker did not start")
                    threading.Event().wait(LOOK_EACH_S)
                yield str(json.loads(ready.read_text())["amqp"])
            finally:
                process.terminate()


def runs(url: str, place: Place) -> dict[str, Callable[[int], Run]]:
    name = place.name
    return {
        "publish, confirmed": place.emptied(lambda n: pika_publish.publish(url, name, BODY, n)),
        "publish, two headers": place.emptied(lambda n: pika_publish.publish(url, name, BODY, n, HEADERS)),
        "consume, an ack each": place.filled(
            lambda n: pika_consume.consume(url, name, LEAD, n, prefetch=PREFETCH, body_bytes=len(BODY))
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.broker_rates")
    parser.add_argument("--url", help="of a running RabbitMQ; without, one is started")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        real = stack.enter_context(broker("rabbitmq", options.url))
        if real is None:
            return 3
        sides = {"reference broker": stack.enter_context(reference_broker()), "RabbitMQ": real}
        rows = {
            side: runs(url, stack.enter_context(Place(url, "unimq-bench-rates")))
            for side, url in sides.items()
        }
        for row in rows["RabbitMQ"]:
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side in sides:
                    rates[side].append(rows[side][row](options.count).per_s)
            medians = {side: statistics.median(found) for side, found in rates.items()}
            shown = ", ".join(f"{side} {rate:,.0f}/s" for side, rate in medians.items())
            print(f"{row}: {shown}; × {medians['reference broker'] / medians['RabbitMQ']:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
