"""The life of a message inside a duplicate window: retried, dead-lettered, replayed by hand, retried again, released twice.

Rules
- Each stage waits for the message with a limit. One that does not come is a finding: the window has swallowed it.
- Replayed by hand: read from the dead-letter place as from any queue, sent again as a message of its own, then acknowledged.
- At the end the queue and its dead-letter place are empty and nothing came more often than it should.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from integration.proofs.kit import World, now
from unimq import Message, Queue, Retry

WINDOW_S = 60.0
WAIT_S = 2.0
POLICY = Retry(immediate=0, delayed_s=[0.05, 0.05, 0.05])
MESSAGE_ID = "order-1"


@dataclass(slots=True)
class Life:
    findings: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


async def _next(life: Life, receiver: Any, what: str) -> Any:
    taken = await now(receiver.receive(1, WAIT_S))
    if not taken:
        life.findings.append(f"lost: nothing came {what}")
        return None
    if taken[0].body != b"the order":
        life.findings.append(f"{what}: {taken[0].body!r} came")
    life.steps.append(f"{what}: attempt {taken[0].attempt}, id {taken[0].metadata.broker_message_id}")
    return taken[0]


async def live(world: World, url: str, queue: Queue) -> Life:
    life = Life()
    mq = await now(world.connect(url))
    try:
        await now(mq.declare(queue, dedup_window_s=WINDOW_S))
        await now(mq.send(queue, Message(b"the order", message_id=MESSAGE_ID, headers={"mine": 7})))
        # the window works: this one is dropped
        await now(mq.send(queue, Message(b"the order", message_id=MESSAGE_ID)))
        receiver = mq.receiver(queue, retry=POLICY)
        await _retried_and_dead(life, receiver)
        await _replayed_by_hand(life, mq, queue)
        await _retried_and_dead(life, receiver)
        await _replayed_by_hand(life, mq, queue)
        for what in ("to be released", "after one release", "after two releases"):
            delivery = await _next(life, receiver, what)
            if delivery is None:
                return life
            if what == "after two releases":
                delivery.ack()
            else:
                delivery.release()
            await now(receiver.flush(WAIT_S))
        if more := await now(receiver.receive(1, 0.2)):
            life.findings.append(f"{more[0]!r} came once too often")
        if left := await now(mq.dead_letters(queue).count()):
            life.findings.append(f"{left} dead letters are left")
    finally:
        await now(mq.close())
    return life


async def _retried_and_dead(life: Life, receiver: Any) -> None:
    """retry at once, retry after a delay, and a failing handler's own retry; then dead."""
    for verb, what in (
        ("retry", "first"),
        ("retry later", "after a retry"),
        ("raise", "after a delayed retry"),
        ("dead_letter", "after the policy's retry"),
    ):
        delivery = await _next(life, receiver, what)
        if delivery is None:
            return
        if verb == "retry":
            delivery.retry()
        elif verb == "retry later":
            delivery.retry(0.05)
        elif verb == "raise":
            with delivery:
                raise ValueError("the handler fails")
        else:
            delivery.dead_letter("why", "by hand")
        await now(receiver.flush(WAIT_S))


async def _replayed_by_hand(life: Life, mq: Any, queue: Queue) -> None:
    dead = await now(mq.dead_letters(queue).browse())
    if len(dead) != 1:
        life.findings.append(f"{len(dead)} dead letters and not 1")
        return
    letter = dead[0]
    if (letter.reason, letter.description, letter.attempts) != ("why", "by hand", 4):
        life.findings.append(f"the dead letter says {letter!r}")
    place = mq.receiver(Queue(f"{queue.name}.dlq"), retry=None)
    try:
        delivery = await _next(life, place, "at the dead-letter place")
        if delivery is None:
            return
        if delivery.headers.get("mine", 7) != 7:
            life.findings.append(f"its headers are {delivery.headers!r}")
        again = Message(delivery.body, headers=dict(delivery.headers), content_type=delivery.content_type)
        await now(mq.send(queue, again))
        delivery.ack()
        await now(place.flush(WAIT_S))
    finally:
        await now(place.close())
