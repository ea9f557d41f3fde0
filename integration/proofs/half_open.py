"""A peer that accepts and goes silent: how long each call takes to say so.

Rules
- The silence begins before the call; the time of the call is measured and held against a bound that has a name.
- `MARGIN_S` is what a loaded machine may add; it is no part of any promise.
- After the silence the same client goes on: nothing that was reported as confirmed or flushed is taken back.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from integration.proofs.kit import World, now
from unimq import Queue
from unimq.errors import (
    ConnectionFailed,
    SendOutcomeUnknown,
    SendTimeout,
    UnimqError,
)
from unimq.testing.proxy import FaultProxy

MARGIN_S = 1.0
CONNECT_TIMEOUT_S = 1.5
CALL_TIMEOUT_S = 1.0
CLOSE_TIMEOUT_S = 2.0
# What `connect` adds to its time-out before it gives up on a library that does not answer either.
CONNECT_GRACE_S = 1.0
# How long an answer is waited for beyond a send's deadline (`unimq._batcher.ANSWER_GRACE_S`).
ANSWER_GRACE_S = 0.25
# Questions without a time-out of their own (declare, opening a receiver): the adapter's bound of one operation.
OPERATION_S = 15.0
# Ending what does not answer, after the time given to `close` is over.
CLOSE_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    step: str
    outcome: str
    took_s: float
    bound_s: float
    fits: bool  # the outcome is one of those that the step may have

    @property
    def held(self) -> bool:
        return self.fits and self.took_s <= self.bound_s + MARGIN_S

    def __str__(self) -> str:
        verdict = "" if self.held else " <- NOT HELD"
        return f"{self.step}: {self.outcome} after {self.took_s:.2f} s (bound {self.bound_s:g} s){verdict}"


Step = Callable[[], Awaitable[Any]]


async def measure(
    step: str, bound_s: float, wanted: tuple[type[BaseException] | None, ...], call: Step
) -> Measured:
    """`wanted`: the errors the call may end with; None: it may return."""
    started = time.monotonic()
    try:
        result = await call()
        outcome, kind = f"returned {result!r}"[:80], None
    except UnimqError as error:
        outcome, kind = type(error).__name__, type(error)
    return Measured(step, outcome, time.monotonic() - started, bound_s, kind in wanted)


async def connecting(world: World, proxy: FaultProxy, url: str) -> list[Measured]:
    proxy.silence()
    try:
        return [
            await measure(
                f"{world} connect",
                CONNECT_TIMEOUT_S + CONNECT_GRACE_S,
                (ConnectionFailed,),
                lambda: now(world.connect(proxy.url(url), connect_timeout_s=CONNECT_TIMEOUT_S)),
            )
        ]
    finally:
        proxy.heal()


async def working(world: World, proxy: FaultProxy, url: str, queue: Queue, other: Queue) -> list[Measured]:
    """All calls of a client whose peer has gone silent. `other` is a queue that nobody has opened yet."""
    found: list[Measured] = []
    mq = await now(world.connect(proxy.url(url), connect_timeout_s=CONNECT_TIMEOUT_S))
    try:
        await now(mq.send(queue, b"before"))
        receiver = mq.receiver(queue, prefetch=10)
        taken = await now(receiver.receive(1, 10.0))
        assert [delivery.body for delivery in taken] == [b"before"]
        sender = mq.sender(queue)
        await now(sender.send(b"open", timeout_s=10.0))
        proxy.silence()
        unknown = SendOutcomeUnknown
        answer_s = CALL_TIMEOUT_S + ANSWER_GRACE_S
        say = found.append
        say(await measure(f"{world} send", answer_s, (unknown,),
                          lambda: now(mq.send(queue, b"x", timeout_s=CALL_TIMEOUT_S))))  # fmt: skip
        say(await measure(f"{world} send_many", answer_s, (None,),
                          lambda: _errors(mq, queue)))  # fmt: skip
        say(await measure(f"{world} send to a new place", answer_s, (SendTimeout, unknown),
                          lambda: now(mq.send(other, b"x", timeout_s=CALL_TIMEOUT_S))))  # fmt: skip
        say(await measure(f"{world} sender.flush", CALL_TIMEOUT_S, (SendTimeout, None),
                          lambda: now(sender.flush(CALL_TIMEOUT_S))))  # fmt: skip
        say(await measure(f"{world} receive", CALL_TIMEOUT_S, (None, ConnectionFailed),
                          lambda: _until_empty(receiver)))  # fmt: skip
        taken[0].ack()
        say(await measure(f"{world} receiver.flush", CALL_TIMEOUT_S, (SendTimeout,),
                          lambda: now(receiver.flush(CALL_TIMEOUT_S))))  # fmt: skip
        say(await measure(f"{world} open a receiver", OPERATION_S, (ConnectionFailed,),
                          lambda: now(mq.receiver(other).ready(CALL_TIMEOUT_S))))  # fmt: skip
        say(await measure(f"{world} declare", OPERATION_S, (ConnectionFailed,),
                          lambda: now(mq.declare(other))))  # fmt: skip
    finally:
        found.append(
            await measure(
                f"{world} close",
                CLOSE_TIMEOUT_S + CLOSE_GRACE_S,
                (None, UnimqError, *_problems()),
                lambda: now(mq.close(CLOSE_TIMEOUT_S)),
            )
        )
        proxy.heal()
    return found


def _problems() -> tuple[type[BaseException], ...]:
    from unimq.errors import SettlementLost

    return (SettlementLost, SendTimeout)


async def _errors(mq: Any, queue: Queue) -> list[str]:
    report = await now(mq.send_many(queue, [b"y", b"z"], timeout_s=CALL_TIMEOUT_S))
    kinds = sorted({type(error).__name__ for error in report.errors.values()})
    assert report.sent == 0, report
    return kinds


async def _until_empty(receiver: Any) -> int:
    """[] at the time-out; what had arrived before the silence comes first."""
    count = 0
    while taken := await now(receiver.receive(10, CALL_TIMEOUT_S)):
        count += len(taken)
    return count
