"""How long `unimq broker` takes from exec until it listens, and until its first message is confirmed.

    python -m bench.broker_start [--runs 20] [--data]

Rules
- A new process each time; the client is there before it. Listening: the ready file is there, which is written once all
  listeners accept. Confirmed: connected with pika, a durable queue declared, one persistent message confirmed.
- Byte code is there from the run before, as in an installation, whatever PYTHONDONTWRITEBYTECODE says here: the first run
  is not counted.
- What the process used of a processor in all is there to be compared on a machine that has other things to do.
- Exit code 1 when the p90 is above its target.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pika

LISTENING_MAX_S: Final = 0.150
READY_MAX_S: Final = 20.0
LOOK_S: Final = 0.001
RUNS: Final = 20


def started(directory: Path, cache: Path, *, data: bool) -> tuple[float, float, float]:
    """Seconds until it listens, until a message is confirmed, and of the processor's in its whole life."""
    ready = directory / "ready.json"
    line = [sys.executable, "-m", "unimq", "broker", "--amqp", "0", "--ready-file", str(ready)]
    if data:
        line += ["--data", str(directory / "data")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    began_s = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env=environment)
    try:
        while not ready.exists():
            if process.poll() is not None or time.perf_counter() - began_s > READY_MAX_S:
                raise RuntimeError("the broker does not start")
            time.sleep(LOOK_S)
        listening_s = time.perf_counter() - began_s
        url = json.loads(ready.read_text("utf-8"))["amqp"]
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("first", durable=True)
            channel.basic_publish("", "first", b"first", pika.BasicProperties(delivery_mode=2))
            confirmed_s = time.perf_counter() - began_s
    finally:
        process.terminate()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return listening_s, confirmed_s, used.ru_utime + used.ru_stime


def percentile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.broker_start", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--data", action="store_true", help="with a new data directory")
    given = parser.parse_args(arguments)
    listening: list[float] = []
    confirmed: list[float] = []
    used: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        for run in range(given.runs + 1):
            with tempfile.TemporaryDirectory() as directory:
                times = started(Path(directory), Path(cache), data=given.data)
            if run:
                listening.append(times[0])
                confirmed.append(times[1])
                used.append(times[2])
    print(f"exec → ms, {given.runs} runs       p50    p90    min")
    for what, values in (("listening", listening), ("first confirmed", confirmed), ("processor time", used)):
        p50, p90 = percentile(values, 0.5), percentile(values, 0.9)
        print(f"{what:24} {p50 * 1000:6.0f} {p90 * 1000:6.0f} {min(values) * 1000:6.0f}")
    return int(percentile(listening, 0.9) > LISTENING_MAX_S)


if __name__ == "__main__":
    sys.exit(main())
