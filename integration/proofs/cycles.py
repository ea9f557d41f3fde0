"""Connect, send, receive, close, again and again: what may be left is nothing.

Rules
- Counted before and after, following some cycles that warm up what is made once: the library's threads, all threads, file
  descriptors, tasks of the loop, clients that are still referenced.
- What ends a moment later (a thread on its last lines) is waited for, up to `SETTLE_S`; what is still there then is left.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from integration.proofs.kit import World, now, ours
from unimq import Queue

CYCLES = 100
CYCLES_SHORT = 10
WARM_UP = 3
SETTLE_S = 5.0
CALL_TIMEOUT_S = 10.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds. `tasks` is without the one that counts."""

    library_threads: tuple[str, ...]
    threads: int
    descriptors: int
    tasks: int


def held() -> Held:
    try:
        tasks = len(asyncio.all_tasks()) - 1
    except RuntimeError:
        tasks = 0
    # the threads of the loop's own executor live as long as the loop
    others = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return Held(tuple(ours()), len(others), descriptors, tasks)


async def cycle(world: World, url: str, queue: Queue, number: int) -> Any:
    """One life of a client; returns a weak reference to it."""
    mq = await now(world.connect(url))
    try:
        sent = b"cycle %d" % number
        await now(mq.send(queue, sent, timeout_s=CALL_TIMEOUT_S))
        receiver = mq.receiver(queue)
        taken = await now(receiver.receive(1, CALL_TIMEOUT_S))
        assert [delivery.body for delivery in taken] == [sent]
        taken[0].ack()
        await now(receiver.flush(CALL_TIMEOUT_S))
        if number % 2:
            await now(receiver.close(CALL_TIMEOUT_S))  # else the client does it
    finally:
        await now(mq.close(CALL_TIMEOUT_S))
    return weakref.ref(mq)


async def cycles(
    world: World,
    url: str,
    queue: Queue,
    count: int,
    one: Callable[[World, str, Queue, int], Any] = cycle,
) -> tuple[list[str], Held, Held]:
    """Findings, and what was held before and after."""
    idle = held()
    for number in range(WARM_UP):
        await one(world, url, queue, number)
    gc.collect()
    before = await _settled(idle)
    clients = [await one(world, url, queue, number) for number in range(count)]
    gc.collect()
    after = await _settled(before)
    findings: list[str] = []
    if left := Counter(after.library_threads) - Counter(idle.library_threads):
        findings.append(f"threads of the library are left: {', '.join(sorted(left))}")
    for name in ("threads", "descriptors", "tasks"):
        was, is_now = getattr(before, name), getattr(after, name)
        if is_now > was:
            findings.append(f"{is_now - was} {name} are left after {count} cycles ({was} before)")
    alive = sum(1 for client in clients if client() is not None)
    if alive > 1:  # the last one may still be on somebody's stack
        findings.append(f"{alive} of {count} clients are still referenced")
    return findings, before, after


async def _settled(target: Held) -> Held:
    """What is held, once it is no more than `target`, or at `SETTLE_S`."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        gc.collect()
        found = held()
        more = Counter(found.library_threads) - Counter(target.library_threads)
        calm = not more and found.threads <= target.threads and found.descriptors <= target.descriptors
        if calm or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(_LOOK_S)
