"""What most cases do: fill a place, take from it, see that nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from unimq import AsyncClient, AsyncReceiver, DeadLetter, Delivery, Message, Queue, Subscription, Topic

from ...harness import Harness
from . import _kit as kit


async def a_queue(mq: AsyncClient, h: Harness, word: str = "queue") -> Queue:
    """A declared queue that nobody else uses."""
    queue = h.queue(word)
    await mq.declare(queue)
    return queue


async def a_topic(mq: AsyncClient, h: Harness) -> Topic:
    topic = h.topic()
    await mq.declare(topic)
    return topic


def bodies(count: int, first: int = 0) -> list[bytes]:
    return [b"m%05d" % number for number in range(first, first + count)]


async def fill(mq: AsyncClient, address: Queue | Topic, contents: Sequence[bytes]) -> None:
    """Send all of them, confirmed."""
    report = await mq.send_many(address, [Message(body) for body in contents])
    report.raise_for_errors()
    assert report.sent == len(contents)


async def take(h: Harness, receiver: AsyncReceiver, count: int) -> list[Delivery]:
    """`count` deliveries; fewer only when the harness' patience is over (the caller's assertion then says so)."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + h.patience_s
    while len(taken) < count and (left_s := deadline - time.monotonic()) > 0:
        taken += await receiver.receive(max_messages=count - len(taken), timeout_s=left_s)
    return taken


async def one(h: Harness, receiver: AsyncReceiver) -> Delivery:
    taken = await take(h, receiver, 1)
    assert len(taken) == 1, f"nothing came within {h.patience_s:g} s"
    return taken[0]


async def nothing(h: Harness, receiver: AsyncReceiver) -> None:
    """Nothing comes."""
    found = await receiver.receive(max_messages=10, timeout_s=h.quiet_s)
    assert list(found) == [], f"there should be nothing, but: {[delivery.body for delivery in found]}"


async def take_and_ack(h: Harness, receiver: AsyncReceiver, count: int) -> list[bytes | None]:
    """The bodies of `count` messages, each acknowledged as it comes: more than a prefetch can be taken so."""
    seen: list[bytes | None] = []
    while len(seen) < count and (taken := await take(h, receiver, min(count - len(seen), 50))):
        receiver.ack(taken)
        seen += [delivery.body for delivery in taken]
    await receiver.flush()
    return seen


async def drain(h: Harness, mq: AsyncClient, source: Queue | Subscription, count: int) -> list[bytes | None]:
    """Take and ack `count` messages with a receiver of its own, see that no more come, and answer the bodies."""
    async with mq.receiver(source) as receiver:
        seen = await take_and_ack(h, receiver, count)
        await nothing(h, receiver)
    return seen


async def drain_all(
    h: Harness, mq: AsyncClient, source: Queue | Subscription, wanted: set[bytes]
) -> list[bytes]:
    """Take and ack until each of `wanted` came, duplicates kept, or patience is over; then what else is there."""
    seen: list[bytes] = []
    deadline = time.monotonic() + h.patience_s
    async with mq.receiver(source) as receiver:
        while True:
            missing = wanted - set(seen)
            timeout_s = min(deadline - time.monotonic(), 5.0) if missing else h.quiet_s
            if timeout_s <= 0:
                break
            taken = await receiver.receive(max_messages=100, timeout_s=timeout_s)
            for delivery in taken:
                seen.append(delivery.body or b"")
                delivery.ack()
            if not taken and not missing:
                break
        await receiver.flush()
    return seen


async def dead(h: Harness, mq: AsyncClient, source: Queue | Subscription, count: int = 1) -> list[DeadLetter]:
    """The dead letters of `source`, once there are `count`."""
    letters = mq.dead_letters(source)
    found: list[DeadLetter] = []

    async def enough() -> bool:
        found[:] = await letters.browse(limit=100)
        return len(found) >= count

    await kit.eventually(enough, h.patience_s, f"{count} dead letters of {source}")
    assert len(found) == count, [letter.delivery.body for letter in found]
    return found


async def pass_time(h: Harness, seconds: float) -> None:
    """Let that much of the broker's time go by."""
    if h.clock is not None:
        h.clock.advance(seconds)
    else:
        await kit.sleep(seconds)


async def until(h: Harness, check: Callable[[], bool], what: str, extra_s: float = 0.0) -> None:
    """Wait until `check()`; a clock that can be moved is moved on in small steps meanwhile."""
    waits_s = 0.0 if h.clock is not None else h.delay_s * 10 + extra_s
    deadline = time.monotonic() + h.patience_s + waits_s
    while not check():
        assert time.monotonic() < deadline, f"not in time: {what}"
        if h.clock is not None:
            h.clock.advance(h.delay_s / 10)
        await kit.sleep(kit.STEP_S)
