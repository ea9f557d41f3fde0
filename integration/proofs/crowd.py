"""Many senders on one client, and what must hold at the other end. Used by the proofs on memory and on a real broker.

Rules
- Each sender numbers its messages. All are confirmed, each is there exactly once, and each sender's own are in its order.
- Threads and tasks use everything there is for sending: `send`, `send_many`, `submit`, the client's own senders and their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from unimq import Queue

THREADS = 8
TASKS = 200
MESSAGES = 100_000
MESSAGES_SHORT = 5_000
BATCH = 100
CALL_TIMEOUT_S = 60.0

Key = tuple[int, int]  # sender, number


def encoded(sender: int, number: int) -> bytes:
    return b"%d %d" % (sender, number)


def decoded(body: bytes) -> Key:
    sender, number = body.split()
    return int(sender), int(number)


class Tally:
    """What the senders were told. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.confirmed: Counter[Key] = Counter()
        self.failed: dict[Key, BaseException] = {}

    def add(self, keys: Iterable[Key]) -> None:
        with self._lock:
            self.confirmed.update(keys)

    def fail(self, key: Key, error: BaseException) -> None:
        with self._lock:
            self.failed[key] = error

    def report(self, sender: int, numbers: Sequence[int], report: Any) -> None:
        for index, error in report.errors.items():
            self.fail((sender, numbers[index]), error)
        self.add((sender, number) for index, number in enumerate(numbers) if index not in report.errors)


def threads(mq: Any, queue: Queue, messages: int, count: int = THREADS) -> Tally:
    """`count` threads on one sync client. They begin together."""
    tally, gate = Tally(), threading.Barrier(count)
    each = messages // count
    ways: tuple[Callable[[Any, Queue, int, int, Tally], None], ...] = (_many, _pipelined, _mixed)

    def work(sender: int) -> None:
        gate.wait()
        try:
            ways[sender % len(ways)](mq, queue, sender, each, tally)
        except Exception as error:  # one finding, whatever it was
            tally.fail((sender, -1), error)

    crowd = [threading.Thread(target=work, args=(number,), name=f"crowd-{number}") for number in range(count)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return tally


def _many(mq: Any, queue: Queue, sender: int, count: int, tally: Tally) -> None:
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        report = mq.send_many(queue, [encoded(sender, n) for n in numbers], timeout_s=CALL_TIMEOUT_S)
        tally.report(sender, numbers, report)


def _pipelined(mq: Any, queue: Queue, sender: int, count: int, tally: Tally) -> None:
    with mq.sender(queue) as own:
        waiting = [own.submit(encoded(sender, n), timeout_s=CALL_TIMEOUT_S) for n in range(count)]
        for number, pending in enumerate(waiting):
            try:
                pending.result(CALL_TIMEOUT_S)
                tally.add([(sender, number)])
            except Exception as error:  # as above
                tally.fail((sender, number), error)


def _mixed(mq: Any, queue: Queue, sender: int, count: int, tally: Tally) -> None:
    """One at a time, then a batch, through the client's shared sender."""
    number = 0
    while number < count:
        mq.send(queue, encoded(sender, number), timeout_s=CALL_TIMEOUT_S)
        tally.add([(sender, number)])
        numbers = range(number + 1, min(number + BATCH, count))
        report = mq.send_many(queue, [encoded(sender, n) for n in numbers], timeout_s=CALL_TIMEOUT_S)
        tally.report(sender, numbers, report)
        number = numbers.stop if len(numbers) else number + 1


async def tasks(mq: Any, queue: Queue, messages: int, count: int = TASKS) -> Tally:
    """`count` tasks on one async client: half of them await each send, half pipeline."""
    tally, shared = Tally(), mq.sender(queue)
    each = messages // count

    async def work(sender: int) -> None:
        try:
            if sender % 2:
                for number in range(each):
                    await mq.send(queue, encoded(sender, number), timeout_s=CALL_TIMEOUT_S)
                    tally.add([(sender, number)])
                return
            waiting = [await shared.submit(encoded(sender, n), timeout_s=CALL_TIMEOUT_S) for n in range(each)]
            for number, pending in enumerate(waiting):
                await pending
                tally.add([(sender, number)])
        except Exception as error:  # one finding, whatever it was
            tally.fail((sender, -1), error)

    await asyncio.gather(*(work(number) for number in range(count)))
    return tally


def judge(tally: Tally, senders: int, messages: int, there: Sequence[bytes]) -> list[str]:
    """The findings: none where all were confirmed once, are there once, and are in order."""
    findings: list[str] = []
    each = messages // senders
    wanted = {(sender, number) for sender in range(senders) for number in range(each)}
    if tally.failed:
        key, error = next(iter(tally.failed.items()))
        findings.append(f"{len(tally.failed)} sends failed, the first, {key}: {error!r}")
    twice = [key for key, count in tally.confirmed.items() if count != 1]
    if twice:
        findings.append(f"{len(twice)} were confirmed more than once: {twice[:3]}")
    if missing := wanted - tally.confirmed.keys():
        findings.append(f"{len(missing)} were never confirmed: {sorted(missing)[:3]}")
    keys = [decoded(body) for body in there]
    found = Counter(keys)
    if lost := tally.confirmed.keys() - found.keys():
        findings.append(f"{len(lost)} were confirmed and are not there: {sorted(lost)[:3]}")
    if double := [key for key, count in found.items() if count > 1]:
        findings.append(f"{len(double)} are there more than once: {double[:3]}")
    if foreign := found.keys() - wanted:
        findings.append(f"{len(foreign)} are there that nobody sent: {sorted(foreign)[:3]}")
    last: dict[int, int] = {}
    for sender, number in keys:
        if number < last.get(sender, -1):
            findings.append(f"sender {sender}: {number} came after {last[sender]}")
            break
        last[sender] = number
    return findings
