"""Bad input, on a broker that is there: one clear typed error at once each, and no message is lost.

Rules
- A row is what is done, the error it must end with, and a word that its text must have. `AT_ONCE_S` is the time it may take.
- Good messages go in before, between and after; at the end exactly these are there, in order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from integration.proofs.kit import World, now
from unimq import Message, Queue
from unimq.errors import (
    Closed,
    DecodeError,
    InvalidMessage,
    LockLost,
    MessageTooLarge,
    NotFound,
    Unroutable,
    Unsupported,
)

AT_ONCE_S = 1.0
LIMIT_BYTES = 2_000
RECEIVE_TIMEOUT_S = 5.0
CHILD_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    wanted: tuple[type[BaseException], ...]
    word: str
    call: Callable[[], Awaitable[Any]]


async def _refused(row: Row) -> list[str]:
    started = time.monotonic()
    try:
        result = await row.call()
    except Exception as error:  # which one is the question
        took_s = time.monotonic() - started
        found: list[str] = []
        if type(error) not in row.wanted:
            found.append(f"{row.what}: {error!r} and not {' or '.join(kind.__name__ for kind in row.wanted)}")
        if row.word.lower() not in str(error).lower():
            found.append(f"{row.what}: the text has no {row.word!r}: {error}")
        if took_s > AT_ONCE_S:
            found.append(f"{row.what}: took {took_s:.2f} s")
        return found
    return [f"{row.what}: returned {result!r}"]


def with_limit(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}max_message_bytes={LIMIT_BYTES}"


async def broken_messages(world: World, url: str, queue: Queue, missing: Queue) -> tuple[list[str], int]:
    """Findings, and how many rows there were."""
    findings: list[str] = []
    mq = await now(world.connect(with_limit(url)))
    poor = await now(world.connect(url, topology="assume"))
    gone = await now(world.connect(url))
    await now(mq.declare(queue))

    def send(message: Any, to: Any = queue) -> Callable[[], Awaitable[Any]]:
        return lambda: now(mq.send(to, message, timeout_s=10.0))

    def sent_as(**fields: Any) -> Callable[[], Awaitable[Any]]:
        return send(Message(b"bad", **fields))

    sender, receiver = gone.sender(queue), gone.receiver(queue)
    await now(gone.send(queue, b"good 0"))
    (held,) = await now(receiver.receive(1, RECEIVE_TIMEOUT_S))
    await now(gone.close())
    await now(gone.close())
    rows = [
        Row("a missing queue", (NotFound, Unroutable), "declare", send(b"x", missing)),
        Row("receive from a missing queue, assume", (NotFound,), "declare",
            lambda: now(poor.receiver(missing).receive(1, 1.0))),
        Row("too large", (MessageTooLarge,), str(LIMIT_BYTES), send(b"x" * (LIMIT_BYTES + 1))),
        Row("a header nobody carries", (InvalidMessage,), "bad-header", sent_as(headers={"bad-header": object()})),
        Row("a header that is a list", (InvalidMessage,), "bad-header", sent_as(headers={"bad-header": [1]})),
        Row("a header beyond 64 bits", (InvalidMessage,), "bad-header", sent_as(headers={"bad-header": 2**63})),
        Row("a header of ours", (InvalidMessage,), "unimq-", sent_as(headers={"unimq-attempt": 1})),
        Row("a header without a name", (InvalidMessage,), "name", sent_as(headers={"": 1})),
        Row("a body that cannot be encoded", (InvalidMessage,), "object", send(object())),
        Row("a priority of 10", (InvalidMessage,), "priority", sent_as(priority=10)),
        Row("a negative ttl", (InvalidMessage,), "ttl_s", sent_as(ttl_s=-1)),
        Row("a key that is bytes", (InvalidMessage,), "key", sent_as(key=b"k")),
        Row("a str for an address", (InvalidMessage,), "Queue(", send(b"x", "orders")),
        Row("a receiver of a str", (InvalidMessage,), "Queue(", lambda: _call(mq.receiver, "orders")),
        Row("an unknown dead-letter policy", (ValueError,), "prefetch", lambda: _call(mq.receiver, queue, prefetch=0)),
        Row("sessions", (Unsupported,), "sessions", lambda: _call(mq.receiver, queue, session="s")),
        Row("a closed client", (Closed,), "closed", lambda: now(gone.send(queue, b"x"))),
        Row("a closed client's sender", (Closed,), "closed", lambda: now(sender.send(b"x"))),
        Row("a closed client's receiver", (Closed,), "closed", lambda: now(receiver.receive(1, 1.0))),
        Row("a delivery of a closed receiver", (LockLost,), "hands it out again", lambda: _call(held.ack)),
        Row("declare with a closed client", (Closed,), "closed", lambda: now(gone.declare(queue))),
    ]  # fmt: skip
    good = [b"good 0"]
    for number, row in enumerate(rows, 1):
        findings += await _refused(row)
        good.append(b"good %d" % number)
        await now(mq.send(queue, good[-1]))
    report = await now(mq.send_many(queue, [b"good m", object(), Message(b"x", priority=10), b"good n"]))
    good += [b"good m", b"good n"]
    if sorted(report.errors) != [1, 2] or not all(type(e) is InvalidMessage for e in report.errors.values()):
        findings.append(f"send_many: {report!r}")
    findings += await _drained(mq, queue, good)
    for client in (mq, poor):
        await now(client.close())
    return findings, len(rows) + 1


async def _call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


async def _drained(mq: Any, queue: Queue, good: list[bytes]) -> list[str]:
    """All good ones are there. One that cannot be decoded is an error of `decode` and stays in hand."""
    findings: list[str] = []
    receiver = mq.receiver(queue, prefetch=len(good))
    bodies: list[bytes] = []
    while len(bodies) < len(good):
        taken = await now(receiver.receive(10, RECEIVE_TIMEOUT_S))
        if not taken:
            break
        for delivery in taken:
            bodies.append(delivery.body)
            findings += await _refused(
                Row("an undecodable body", (DecodeError,), "int", lambda d=delivery: _call(d.decode, int))  # type: ignore[misc]
            )
            delivery.ack()
        await now(receiver.flush())
    if sorted(bodies) != sorted(good):
        findings.append(f"good messages: {sorted(set(good) - set(bodies))} are missing")
    if more := await now(receiver.receive(1, 0.2)):
        findings.append(f"{more[0].body!r} is there and should not be")
    return findings


FORK = """
import json, os, sys, time
import unimq
from unimq import Queue
url, name = sys.argv[1:]
queue = Queue(name)
mq = unimq.connect(url)
mq.declare(queue)
mq.send(queue, b"before")
sender, receiver = mq.sender(queue), mq.receiver(queue)
sender.send(b"own")
read, write = os.pipe()
if os.fork() == 0:
    said = {}
    def tried(what, call):
        started = time.monotonic()
        try:
            call()
            said[what] = ["returned", "", 0.0]
        except BaseException as error:
            said[what] = [type(error).__name__, str(error), time.monotonic() - started]
    tried("send", lambda: mq.send(queue, b"child"))
    tried("send_many", lambda: mq.send_many(queue, [b"child"]).raise_for_errors())
    tried("own sender", lambda: sender.send(b"child"))
    tried("submit", lambda: sender.submit(b"child"))
    tried("receive", lambda: receiver.receive(1, 1.0))
    tried("sender", lambda: mq.sender(queue))
    tried("declare", lambda: mq.declare(queue))
    os.write(write, json.dumps(said).encode())
    os._exit(0)
os.close(write)
with os.fdopen(read) as answer:
    said = json.loads(answer.read())
os.wait()
mq.send(queue, b"after")
bodies = []
while len(bodies) < 3:
    taken = receiver.receive(10, 5.0)
    if not taken:
        break
    bodies += [delivery.body.decode() for delivery in taken]
    receiver.ack(taken)
receiver.flush()
mq.close()
print(json.dumps([said, bodies]))
"""


def forked(url: str, queue: Queue) -> list[str]:
    """A client from before a fork, used in the child: `Closed` at once, and the parent's goes on."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, url, queue.name],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT_S,
    )
    if done.returncode != 0:
        return [f"the process ended with {done.returncode}: {done.stderr[-2000:]}"]
    said, bodies = json.loads(done.stdout)
    findings = [
        f"{what} in the child: {kind} {text!r} after {took_s:.2f} s"
        for what, (kind, text, took_s) in said.items()
        if kind != "Closed" or "fork" not in text or took_s > AT_ONCE_S
    ]
    if bodies != ["before", "own", "after"]:
        findings.append(f"the parent got {bodies}")
    return findings
