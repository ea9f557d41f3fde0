"""The same work through unimq, whatever the broker: what a user would write after reading the README.

Rules
- Public names only, and no option that the README does not show. The messages are made inside the clock: so are the twin's.
- Every outcome is looked at: a message that failed fails the run.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

import unimq
from bench.session import BenchFailed, Stopwatch
from bench.stats import Run
from unimq import Message, Queue, Retry, Worker

WAIT_S: Final = 60.0  # for one message, before the run has failed
PER_RECEIVE: Final = 100
IMPORT_PROBE: Final = """
import sys, time
cpu_s, wall_s = time.process_time(), time.perf_counter()
import {module}
wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
print(wall_s, cpu_s, *sorted(name for name in {strangers} if name in sys.modules))
"""


# ---------------------------------------------------------------------------------------------------------- sending
def send_many(
    url: str, queue: Queue, body: bytes, count: int, headers: Mapping[str, Any] | None = None
) -> Run:
    with unimq.connect(url) as mq, mq.sender(queue) as sender:
        watch = Stopwatch()
        report = sender.send_many(Message(body, headers=headers) for _ in range(count))
        run = watch.stop(report.sent)
        report.raise_for_errors()
        return run


def submit(url: str, queue: Queue, body: bytes, count: int) -> Run:
    """Pipelined, at most 1,000 on their way; each outcome is read once the window has passed it."""
    with unimq.connect(url) as mq, mq.sender(queue) as sender:
        watch = Stopwatch()
        pending = [sender.submit(Message(body)) for _ in range(count)]
        for one in pending:
            one.result(WAIT_S)
        return watch.stop(len(pending))


def send_each(url: str, queue: Queue, body: bytes, count: int) -> Run:
    """One after the other, each confirmed before the next."""
    with unimq.connect(url) as mq, mq.sender(queue) as sender:
        watch = Stopwatch()
        for _ in range(count):
            sender.send(Message(body))
        return watch.stop(count)


def gathered_sends(url: str, queue: Queue, body: bytes, count: int, window: int) -> Run:
    """A task for each message, `window` of them at a time."""

    async def main() -> Run:
        async with unimq.connect_async(url) as mq, mq.sender(queue) as sender:
            watch = Stopwatch()
            for start in range(0, count, window):
                size = min(window, count - start)
                await asyncio.gather(*(sender.send(Message(body)) for _ in range(size)))
            return watch.stop(count)

    return asyncio.run(main())


def connect_and_send(url: str, queue: Queue, body: bytes, count: int) -> Run:
    """`count` times from nothing to the first confirmed message; saying goodbye is not measured."""
    opened: list[unimq.Client] = []
    try:
        watch = Stopwatch()
        for _ in range(count):
            mq = unimq.connect(url)
            opened.append(mq)
            mq.send(queue, Message(body))
        return watch.stop(count)
    finally:
        for mq in opened:
            mq.close()


# -------------------------------------------------------------------------------------------------------- receiving
def receive_and_ack(
    url: str, queue: Queue, lead: int, count: int, *, prefetch: int, body_bytes: int, many: bool = False
) -> Run:
    """`lead` messages before the clock starts; it stops when the broker has every ack. `many` acks a batch at once."""
    with (
        unimq.connect(url) as mq,
        mq.receiver(queue, prefetch=prefetch, retry=None, dead_letter=None) as receiver,
    ):
        watch = Stopwatch()
        seen = size = 0
        while seen < lead + count:
            wanted = (lead if seen < lead else lead + count) - seen
            batch = receiver.receive(max_messages=min(PER_RECEIVE, wanted), timeout_s=WAIT_S)
            if not batch:
                raise BenchFailed(f"after {seen} messages none came for {WAIT_S:g} s")
            for delivery in batch:
                size += len(delivery.body or b"")
                if not many:
                    delivery.ack()
            if many:
                receiver.ack(batch)
            seen += len(batch)
            if seen == lead:
                watch.start()
        receiver.flush(WAIT_S)
        run = watch.stop(count)
    if size != (lead + count) * body_bytes:
        raise BenchFailed(f"{size} bytes came, not {(lead + count) * body_bytes}")
    return run


def receive_one_async(url: str, queue: Queue, lead: int, count: int, *, prefetch: int) -> Run:
    """`await receive(1)`, one by one, each acked."""

    async def main() -> Run:
        async with (
            unimq.connect_async(url) as mq,
            mq.receiver(queue, prefetch=prefetch, retry=None, dead_letter=None) as receiver,
        ):
            watch = Stopwatch()
            for number in range(1, lead + count + 1):
                batch = await receiver.receive(1, timeout_s=WAIT_S)
                if not batch:
                    raise BenchFailed(f"before message {number} none came for {WAIT_S:g} s")
                batch[0].ack()
                if number == lead:
                    watch.start()
            await receiver.flush(WAIT_S)
            return watch.stop(count)

    return asyncio.run(main())


# ---------------------------------------------------------------------------------------------------------- working
def work(
    url: str, queue: Queue, lead: int, count: int, *, prefetch: int, body_bytes: int, is_async: bool
) -> Run:
    """A worker whose handler counts bytes and does nothing else; the last acks leave while it stops, outside of the clock."""
    worker = Worker(url)
    watch = Stopwatch()
    seen = size = 0
    runs: list[Run] = []

    def count_one(body: bytes) -> None:
        nonlocal seen, size
        seen += 1
        size += len(body)
        if seen == lead:
            watch.start()
        elif seen == lead + count:
            runs.append(watch.stop(count))
            worker.stop()

    async def count_one_async(body: bytes) -> None:
        count_one(body)

    register = worker.handler(
        queue, prefetch=prefetch, retry=Retry(immediate=0, delayed_s=[]), dead_letter=None
    )
    register(count_one_async if is_async else count_one)
    code = worker.run()
    if code or not runs or size != (lead + count) * body_bytes:
        raise BenchFailed(f"the worker ended with {code} after {size} of {(lead + count) * body_bytes} bytes")
    return runs[0]


def threads_per_receiver(url: str, queue: Queue, receivers: int) -> str:
    """How many threads wait in `receivers` receivers of one client, beside one."""

    async def waiting(count: int) -> int:
        async with unimq.connect_async(url) as mq:
            opened = [mq.receiver(queue, retry=None, dead_letter=None) for _ in range(count)]
            for receiver in opened:
                await receiver.ready()
            waits = [asyncio.ensure_future(receiver.receive(1, timeout_s=WAIT_S)) for receiver in opened]
            await asyncio.sleep(0.2)
            names = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio")}
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            for receiver in opened:
                await receiver.close()
            return len(names)

    one, all_of_them = asyncio.run(waiting(1)), asyncio.run(waiting(receivers))
    return f"{one} threads with 1 waiting receiver, {all_of_them} with {receivers}"


# -------------------------------------------------------------------------------------------------------- importing
def import_time(module: str, count: int, strangers: tuple[str, ...] = ()) -> Run:
    """In a process of its own, the first import of it there. What of `strangers` it loaded fails the run. Its bytecode is
    there, as after an installation: one import before the measured ones sees to it."""
    wall_s = cpu_s = 0.0
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    probe = IMPORT_PROBE.format(module=module, strangers=strangers)
    for number in range(count + 1):
        done = subprocess.run(
            [sys.executable, "-c", probe],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
            env=environment,
        )
        if number == 0:
            continue
        wall, cpu, *loaded = done.stdout.split()
        if loaded:
            raise BenchFailed(f"import {module} loads {', '.join(loaded)}")
        wall_s += float(wall)
        cpu_s += float(cpu)
    return Run(count, wall_s, cpu_s)
