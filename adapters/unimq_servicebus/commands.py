"""What is asked of a lane: its options, and the commands in its queue. See `lane.py`.

Rules
- Every command is answered exactly once, by the owner thread, or by whoever finds the lane ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unimq.driver import Delivery, Outcome, Place

if TYPE_CHECKING:
    from .fields import ServiceBusDelivery


@dataclass(slots=True)
class Settle:
    deliveries: Sequence[ServiceBusDelivery]
    outcome: Outcome
    answer: Callable[[list[Delivery]], None]  # with what was lost
    taken: int = 0  # how many the broker has answered for
    over: bool = False

    def finish(self, lost: list[Delivery]) -> None:
        """Under the link's lock; the owner, or `close` when the owner is stuck: the first counts."""
        if not self.over:
            self.over = True
            self.answer([*lost, *self.deliveries[self.taken :]])


@dataclass(slots=True)
class Flush:
    answer: Callable[[], None]


@dataclass(slots=True)
class Call:
    """Something asked for by a thread that waits: a renewal, a session's state."""

    run: Callable[[Any], Any]
    over: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        if not self.over.is_set():
            self.result, self.error = result, error
            self.over.set()


Command = Settle | Flush | Call


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """`make(session)`: a library receiver, not opened. `session`: None | "next" | id. `rolling`: any session, one after
    another. `mode` as in ReceiverOptions."""

    make: Callable[[str | None], Any]
    what: str
    place: Place | None
    mode: str = "consume"
    session: str | None = None
    rolling: bool = False
    positions: Sequence[int] = ()
