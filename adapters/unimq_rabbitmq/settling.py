"""The settling half of a receiver: verbs come from any thread, leave in batches, and are confirmed behind barriers.

Rules
- An ack has no answer: after the acks of a drain goes one `basic.qos`, whose reply is the *barrier* behind which they are
  confirmed. One barrier is in flight; what is written meanwhile waits for the next.
- Acks leave at once, `multiple` up to the last tag below which everything is settled (`Tags`).
- What is not behind a barrier when the link dies is lost.
- `Forget` says nothing to the broker; dead-lettering and deferring are not native here: asked for, they are lost and logged.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from unimq.delivery import Delivery
from unimq.driver import (
    ALL_SETTLED,
    Ack,
    DeadLetterOutcome,
    Defer,
    Done,
    Forget,
    Outcome,
    Release,
    SettleResult,
)

from . import wire
from .loop import Loop
from .tags import Tags

_log = logging.getLogger("unimq.rabbitmq")

Waiting = list[tuple[Done[SettleResult], Sequence[Delivery]]]


class Settling:
    """`let_go` is told what is no longer in hand. All but `command` on the I/O thread."""

    def __init__(self, loop: Loop, *, no_ack: bool, let_go: Callable[[Sequence[Delivery]], None]) -> None:
        self._loop = loop
        self._no_ack = no_ack
        self._let_go = let_go
        self.tags = Tags()
        self._channel: Any = None
        self._number = 0
        self._commands: deque[tuple[Sequence[Delivery], Outcome | None, Done[SettleResult] | None]] = deque()
        self._armed = False
        self._qos_replies: deque[Callable[[], None]] = deque()
        self._barrier: Waiting | None = None
        self._behind: Waiting = []
        self._finished: deque[tuple[Done[SettleResult], SettleResult]] = deque()
        self._completing = False
        self._dead = False
        self.prefetch = 1

    def attach(self, channel: Any) -> None:
        self._channel = channel
        self._number = channel.channel_number

    def command(
        self, deliveries: Sequence[Delivery], outcome: Outcome | None, done: Done[SettleResult] | None
    ) -> None:
        """Any thread; never blocks. Without an outcome: a flush."""
        self._commands.append((deliveries, outcome, done))
        if not self._armed:
            self._armed = True
            self._loop.call(self.drain)

    def drain(self) -> None:
        """Write what was settled."""
        self._armed = False
        acked: list[int] = []
        out: list[bytes] = []
        while self._commands:
            self._take(*self._commands.popleft(), acked, out)
        if not self._dead and not self._no_ack:
            for tag, multiple in self.tags.acks(acked):
                out.append(wire.ack(self._number, tag, multiple))
            if self._behind and self._barrier is None:
                self._raise_barrier(out)
            if out:
                self._loop.write(b"".join(out))
        self.complete()

    def _take(
        self,
        deliveries: Sequence[Delivery],
        outcome: Outcome | None,
        done: Done[SettleResult] | None,
        acked: list[int],
        out: list[bytes],
    ) -> None:
        kind = type(outcome)
        if self._dead or kind in (DeadLetterOutcome, Defer):
            if not self._dead:
                _log.error("%s is not native here: %d deliveries stay unsettled", outcome, len(deliveries))
            self._over(done, SettleResult(lost=deliveries) if deliveries else ALL_SETTLED)
            return
        if kind is Ack:
            acked.extend([delivery.tag for delivery in deliveries])
        elif kind is Release:
            for delivery in deliveries:
                out.append(wire.nack_requeue(self._number, delivery.tag))
                self.tags.settled(delivery.tag)
        if deliveries:
            self._let_go(deliveries)
        confirmed = not (self._behind or self._barrier is not None or acked or out)
        if self._no_ack or kind is Forget or (outcome is None and confirmed):
            self._over(done, ALL_SETTLED)
        elif done is not None:
            self._behind.append((done, deliveries))

    def _over(self, done: Done[SettleResult] | None, result: SettleResult) -> None:
        if done is not None:
            self._finished.append((done, result))

    # -------------------------------------------------------------------------------------------------- barriers
    def _raise_barrier(self, out: list[bytes]) -> None:
        self._barrier, self._behind = self._behind, []
        if self._loop.fast:
            self._qos_replies.append(self._behind_barrier)
            out.append(wire.qos(self._number, self.prefetch))
        else:
            if out:
                self._loop.write(b"".join(out))
                out.clear()
            self.ask_qos(self._behind_barrier)

    def ask_qos(self, then: Callable[[], None]) -> None:
        if not self._channel.is_open:
            return  # it is closing: what waits is over when it has closed
        self._qos_replies.append(then)
        if self._loop.fast:
            self._loop.write(wire.qos(self._number, self.prefetch))
        else:
            self._channel.basic_qos(prefetch_count=self.prefetch, callback=lambda _frame: self._by_pika())

    def _by_pika(self) -> None:
        self.on_qos_ok()
        self.complete()

    def on_qos_ok(self) -> None:
        if self._qos_replies:
            self._qos_replies.popleft()()

    def _behind_barrier(self) -> None:
        for done, _ in self._barrier or ():
            self._finished.append((done, ALL_SETTLED))
        self._barrier = None
        if self._behind and not self._dead:
            out: list[bytes] = []
            self._raise_barrier(out)
            if out:
                self._loop.write(b"".join(out))

    # -------------------------------------------------------------------------------------------------- the end
    def die(self) -> None:
        """The link is dead: everything not behind a barrier is lost."""
        self._dead = True
        for done, deliveries in [*(self._barrier or ()), *self._behind]:
            self._over(done, SettleResult(lost=deliveries) if deliveries else ALL_SETTLED)
        self._barrier, self._behind = None, []
        self.drain()

    def complete(self) -> None:
        """Tell what is settled; not re-entrant: what finishes inside a `done` is told by the outer call."""
        if self._completing:
            return
        self._completing = True
        try:
            while self._finished:
                done, result = self._finished.popleft()
                done(result)
        finally:
            self._completing = False
