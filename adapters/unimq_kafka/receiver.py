"""A receiver as its users see it: a buffer in front, a queue of commands behind. The consumer itself is `owner.py`'s.

Rules
- No method here touches the Consumer: confluent-kafka hangs for ever when a second thread calls it while one polls.
- `settle` appends a command; a dead link completes it at once, all lost.
- The buffer is the only thing two threads share under a lock; a delivery in it was not handed out yet.
- `note` is a command like a settlement: how often a suspect was begun stands with the broker before it is (`journal.py`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from unimq.delivery import Delivery
from unimq.driver import Ack, Done, Outcome, ReceiverOptions, SettleResult
from unimq.errors import Closed

from .completions import Completions
from .errors import ADAPTER_NAME
from .fields import KafkaDelivery
from .offsets import Lane

if TYPE_CHECKING:
    from .owner import Owner

CLOSE_MARGIN_S: Final = 0.5  # for the owner to answer what is left once its time is up


@dataclass(frozen=True)
class Begun:
    """Not settled: a handler is about to begin."""


Command: TypeAlias = tuple[Sequence[Delivery], Outcome | Begun | None, Done[SettleResult]]  # None: flush


def nothing(result: SettleResult) -> None:
    """For settlements that nobody waits for."""


class KafkaReceiverLink:
    """`settles_itself`: what is handed out is settled at once (`on_receive`, `browse`)."""

    prefetch_keeps_order = True  # it is our own buffer's limit, not the broker's

    def __init__(self, what: str, options: ReceiverOptions) -> None:
        self.what = what
        self.prefetch = max(options.prefetch, 1)
        self.commands: deque[Command] = deque()
        self.completions = Completions()
        self._settles_itself = options.mode in ("on_receive", "browse")
        self._on_ready: Callable[[], None] | None = options.on_ready
        self._changed = threading.Condition(threading.Lock())
        self._buffer: deque[KafkaDelivery] = deque()
        self._starved = False  # the last receive came back empty: somebody wants to be told
        self._woken = False
        self._error: BaseException | None = None
        self._owner: Owner | None = None

    def start(self, owner: Owner) -> None:
        self._owner = owner
        owner.start()

    # ------------------------------------------------------------------------------------------- the user's side
    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._buffer:
                if self._error is not None:
                    raise self._error
                left_s = deadline - time.monotonic()
                if self._woken or left_s <= 0:
                    self._woken = False
                    self._starved = True
                    return []
                self._changed.wait(left_s)
            self._woken = False
            buffer = self._buffer
            taken = [buffer.popleft() for _ in range(min(max_messages, len(buffer)))]
        if self._settles_itself:
            self.settle(taken, Ack(), nothing)
        return taken

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        self._command((deliveries, outcome, done))

    def flush(self, done: Done[SettleResult]) -> None:
        self._command(((), None, done))

    def note(self, deliveries: Sequence[Delivery], done: Done[SettleResult]) -> None:
        self._command((deliveries, Begun(), done))

    def set_prefetch(self, count: int) -> None:
        """How many may be in hand from now on; more of them once the broker knows."""
        self.prefetch = max(count, 1)
        if self._owner is not None:
            self._owner.look()

    def _command(self, command: Command) -> None:
        self.commands.append(command)
        owner = self._owner
        if owner is None or owner.over:
            self.refuse_commands()
        else:
            owner.look()

    def refuse_commands(self) -> None:
        """Complete what nobody will act on any more, all lost."""
        while True:
            try:
                deliveries, _, done = self.commands.popleft()
            except IndexError:
                break
            self.completions.add(done, SettleResult(lost=deliveries))
        self.completions.run()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        self.begin_close(timeout_s)
        self.end_close(timeout_s + CLOSE_MARGIN_S)

    def begin_close(self, timeout_s: float) -> None:
        self.die(Closed(f"{self.what} is closed", adapter=ADAPTER_NAME))
        if self._owner is not None:
            self._owner.stop(timeout_s)

    def end_close(self, timeout_s: float) -> None:
        if self._owner is not None:
            self._owner.join(timeout_s)

    # ------------------------------------------------------------------------------------------ the owner's side
    def offer(self, deliveries: list[KafkaDelivery]) -> None:
        with self._changed:
            if self._error is not None:
                return
            self._buffer.extend(deliveries)
            tell = self._starved
            self._starved = False
            self._changed.notify_all()
        if tell and self._on_ready is not None:
            self._on_ready()

    def withdraw(self, lanes: set[Lane]) -> list[KafkaDelivery]:
        """Take back what was not handed out of these partitions."""
        with self._changed:
            gone = [delivery for delivery in self._buffer if delivery.lane in lanes]
            if gone:
                kept = [delivery for delivery in self._buffer if delivery.lane not in lanes]
                self._buffer.clear()
                self._buffer.extend(kept)
        return gone

    def die(self, error: BaseException) -> None:
        """From now on `receive` raises; what was not handed out is the broker's."""
        with self._changed:
            if self._error is not None:
                return
            self._error = error
            self._buffer.clear()
            self._changed.notify_all()
        if self._on_ready is not None:
            self._on_ready()

    def __repr__(self) -> str:
        return f"<KafkaReceiverLink {self.what}>"
