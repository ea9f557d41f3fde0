"""Settlements on their way to the driver: gathered into batches without timers, in order, each with its end.

Rules
- They leave at once when none is out, else together when one comes back; at most `SETTLE_MAX_PER_CALL` in a call.
- Bound to the link: what it cannot settle any more goes to `report`.
- Never blocks: any thread may add, and whoever comes first hands over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ._latch import Latch, Turnstile
from .delivery import Delivery
from .driver import ALL_SETTLED, Ack, Outcome, ReceiverLink, SettleResult

SETTLE_MAX_PER_CALL: Final = 1_000
ACK: Final = Ack()


class Settling:
    """See the module. `idle` says whether nothing of the desk is on its way, copies included."""

    def __init__(self, *, report: Callable[[Sequence[Delivery]], None], idle: Callable[[], bool]) -> None:
        self._report = report
        self.idle = idle
        self.link: ReceiverLink | None = None
        self.acks: deque[Delivery] = deque()  # whoever adds looks at `busy` then, and kicks
        self._others: deque[tuple[Delivery, Outcome]] = deque()
        self.busy = False
        self._lock = threading.Lock()
        self.settled = Turnstile()  # turned whenever something left

    @property
    def empty(self) -> bool:
        return not (self.acks or self._others or self.busy)

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self._others.append((delivery, outcome))
        if not self.busy:
            self.kick()

    def ack(self, delivery: Delivery) -> None:
        self.acks.append(delivery)
        if not self.busy:
            self.kick()

    def take_all(self) -> list[Delivery]:
        """What has not been handed over: its link is gone."""
        taken: list[Delivery] = []
        while self.acks:
            taken.append(self.acks.popleft())
        while self._others:
            taken.append(self._others.popleft()[0])
        return taken

    def kick(self) -> None:
        """Hand over what has gathered. Appended-then-looked against freed-then-looked: nobody is left waiting."""
        while True:
            with self._lock:
                if self.busy or not (self.acks or self._others):
                    return
                self.busy = True
                groups = self._gather()
            self._hand_over(groups)
            if self.busy:
                return

    def _gather(self) -> list[tuple[Outcome, list[Delivery]]]:
        if len(self.acks) == 1 and not self._others:
            return [(ACK, [self.acks.popleft()])]
        groups: list[tuple[Outcome, list[Delivery]]] = []
        acks = [self.acks.popleft() for _ in range(min(len(self.acks), SETTLE_MAX_PER_CALL))]
        if acks:
            groups.append((ACK, acks))
        for _ in range(min(len(self._others), SETTLE_MAX_PER_CALL)):
            delivery, outcome = self._others.popleft()
            if groups and groups[-1][0] == outcome:
                groups[-1][1].append(delivery)
            else:
                groups.append((outcome, [delivery]))
        return groups

    def _hand_over(self, groups: list[tuple[Outcome, list[Delivery]]]) -> None:
        done: Callable[[SettleResult], None]
        if len(groups) == 1:
            done = self._settled_one
        else:
            left = [len(groups)]
            count_lock = threading.Lock()

            def done(result: SettleResult) -> None:
                if result.lost:
                    self._report(list(result.lost))
                with count_lock:
                    left[0] -= 1
                    last = left[0] == 0
                if last:
                    self._freed()

        link = self.link
        for outcome, deliveries in groups:
            # a verb may cross with the loss of its link: a tag of the old one means something else on the new one
            stale = [delivery for delivery in deliveries if delivery.link is not link]
            if stale:
                self._report(stale)
                deliveries = [delivery for delivery in deliveries if delivery.link is link]
            if link is None or not deliveries:
                done(ALL_SETTLED)
            else:
                link.settle(deliveries, outcome, done)

    def _settled_one(self, result: SettleResult) -> None:
        if result.lost:
            self._report(list(result.lost))
        self._freed()

    def _freed(self) -> None:
        self.busy = False
        self.settled.turn()
        if self.acks or self._others:
            self.kick()

    def flush(self) -> Latch:
        """Set when the broker has everything settled before this call, or the link is gone."""
        latch = Latch()

        def at_rest() -> None:
            # without a link too: what the driver has completes, as lost, and is to be in the report
            if not self.idle():
                turn = self.settled.latch()
                if not self.idle():
                    turn.add(at_rest)
                    return
            link = self.link
            if link is None:
                latch.set()
                return
            link.flush(confirmed)

        def confirmed(result: SettleResult) -> None:
            self._report(list(result.lost))
            latch.set()

        at_rest()
        return latch
