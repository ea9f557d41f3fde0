# Generated from unimq/testing/conformance/_async/_help.py by tools/unasync.py; do not edit.
"""What most cases do: fill a place, take from it, see that nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from unimq import Client, DeadLetter, Delivery, Message, Queue, Receiver, Subscription, Topic

from ...harness import Harness
from . import _kit as kit


def a_queue(mq: Client, h: Harness, word: str = "queue") -> Queue:
    """A declared queue that nobody else uses."""
    queue = h.queue(word)
    mq.declare(queue)
    return queue


def a_topic(mq: Client, h: Harness) -> Topic:
    topic = h.topic()
    mq.declare(topic)
    return topic


def bodies(count: int, first: int = 0) -> list[bytes]:
    return [b"m%05d" % number for number in range(first, first + count)]


def fill(mq: Client, address: Queue | Topic, contents: Sequence[bytes]) -> None:
    """Send all of them, confirmed."""
    report = mq.send_many(address, [Message(body) for body in contents])
    report.raise_for_errors()
    assert report.sent == len(contents)


def take(h: Harness, receiver: Receiver, count: int) -> list[Delivery]:
    """`count` deliveries; fewer only when the harness' patience is over (the caller's assertion then says so)."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + h.patience_s
    while len(taken) < count and (left_s := deadline - time.monotonic()) > 0:
        taken += receiver.receive(max_messages=count - len(taken), timeout_s=left_s)
    return taken


def one(h: Harness, receiver: Receiver) -> Delivery:
    taken = take(h, receiver, 1)
    assert len(taken) == 1, f"nothing came within {h.patience_s:g} s"
    return taken[0]


def nothing(h: Harness, receiver: Receiver) -> None:
    """Nothing comes."""
    found = receiver.receive(max_messages=10, timeout_s=h.quiet_s)
    assert list(found) == [], f"there should be nothing, but: {[delivery.body for delivery in found]}"


def take_and_ack(h: Harness, receiver: Receiver, count: int) -> list[bytes | None]:
    """The bodies of `count` messages, each acknowledged as it comes: more than a prefetch can be taken so."""
    seen: list[bytes | None] = []
    while len(seen) < count and (taken := take(h, receiver, min(count - len(seen), 50))):
        receiver.ack(taken)
        seen += [delivery.body for delivery in taken]
    receiver.flush()
    return seen


def drain(h: Harness, mq: Client, source: Queue | Subscription, count: int) -> list[bytes | None]:
    """Take and ack `count` messages with a receiver of its own, see that no more come, and answer the bodies."""
    with mq.receiver(source) as receiver:
        seen = take_and_ack(h, receiver, count)
        nothing(h, receiver)
    return seen


def drain_all(h: Harness, mq: Client, source: Queue | Subscription, wanted: set[bytes]) -> list[bytes]:
    """Take and ack until each of `wanted` came, duplicates kept, or patience is over; then what else is there."""
    seen: list[bytes] = []
    deadline = time.monotonic() + h.patience_s
    with mq.receiver(source) as receiver:
        while True:
            missing = wanted - set(seen)
            timeout_s = min(deadline - time.monotonic(), 5.0) if missing else h.quiet_s
            if timeout_s <= 0:
                break
            taken = receiver.receive(max_messages=100, timeout_s=timeout_s)
            for delivery in taken:
                seen.append(delivery.body or b"")
                delivery.ack()
            if not taken and not missing:
                break
        receiver.flush()
    return seen


def dead(h: Harness, mq: Client, source: Queue | Subscription, count: int = 1) -> list[DeadLetter]:
    """The dead letters of `source`, once there are `count`."""
    letters = mq.dead_letters(source)
    found: list[DeadLetter] = []

    def enough() -> bool:
        found[:] = letters.browse(limit=100)
        return len(found) >= count

    kit.eventually(enough, h.patience_s, f"{count} dead letters of {source}")
    assert len(found) == count, [letter.delivery.body for letter in found]
    return found


def pass_time(h: Harness, seconds: float) -> None:
    """Let that much of the broker's time go by."""
    if h.clock is not None:
        h.clock.advance(seconds)
    else:
        kit.sleep(seconds)


def until(h: Harness, check: Callable[[], bool], what: str, extra_s: float = 0.0) -> None:
    """Wait until `check()`; a clock that can be moved is moved on in small steps meanwhile."""
    waits_s = 0.0 if h.clock is not None else h.delay_s * 10 + extra_s
    deadline = time.monotonic() + h.patience_s + waits_s
    while not check():
        assert time.monotonic() < deadline, f"not in time: {what}"
        if h.clock is not None:
            h.clock.advance(h.delay_s / 10)
        kit.sleep(kit.STEP_S)
