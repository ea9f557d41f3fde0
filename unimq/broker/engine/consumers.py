"""The consumers of one queue: whose turn it is.

Rules (rabbit_queue_consumers and rabbit_fifo, 3.10.8)
- The highest priority with room goes first; within one priority each gets one message in turn.
- Who has no room when his turn comes steps out, and stands last of his priority when he is wanted again; several that are
  wanted together come in the order in which they stepped out.
- In a quorum queue he steps out at once when what he is given leaves him no room.
- Single active: the first to come is the only one, until he goes; then the next in turn, in a quorum queue whatever his
  priority.
- An exclusive consumer is alone: nobody comes to him, and he comes to nobody.

State      by                        becomes
---------  ------------------------  ------------------------------------
(new)      add                       TURN
TURN       next, without room        OUT
TURN       served, without room      OUT in a quorum queue
OUT        wanted                    TURN, last of his priority
TURN, OUT  remove                    gone
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from .message import Entry

if TYPE_CHECKING:
    from .amqpqueue import AmqpQueue


class Consumer(Protocol):
    """Made by the session for each basic.consume."""

    @property
    def tag(self) -> str: ...
    @property
    def owner(self) -> Hashable: ...  # who holds the leases: the channel
    @property
    def unacked(self) -> int: ...  # of what he was given, also when he reads no more
    @property
    def no_ack(self) -> bool: ...
    @property
    def exclusive(self) -> bool: ...

    def room(self) -> int:
        """How many entries it takes now; 0: none until `VHost.wanted(consumer)` is called."""

    def deliver(self, queue: AmqpQueue, entries: Sequence[Entry]) -> None:
        """They are leased to `owner`; without acknowledgement they have ended already. It must not call the engine."""

    def cancelled(self) -> None:
        """The queue is gone: the server cancels it."""


class Consumers:
    __slots__ = ("_out", "_priorities", "_quorum", "_turns", "active", "exclusive", "single_active")

    def __init__(self, single_active: bool = False, *, quorum: bool = False) -> None:
        self.single_active = single_active
        self._quorum = quorum
        self.active: Consumer | None = None
        self.exclusive: Consumer | None = None
        self._priorities: dict[Consumer, int] = {}  # in the order of coming
        self._turns: dict[int, deque[Consumer]] = {}
        self._out: dict[Consumer, None] = {}  # in the order of stepping out

    def __len__(self) -> int:
        return len(self._priorities)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(tuple(self._priorities))

    def __contains__(self, consumer: object) -> bool:
        return consumer in self._priorities

    def admits(self, exclusive: bool) -> bool:
        if self.single_active:
            return not exclusive
        return self.exclusive is None and not (exclusive and self._priorities)

    def add(self, consumer: Consumer, priority: int, exclusive: bool) -> None:
        self._priorities[consumer] = priority
        self._turns.setdefault(priority, deque()).append(consumer)
        if exclusive:
            self.exclusive = consumer
        if self.single_active and self.active is None:
            self.active = consumer

    def remove(self, consumer: Consumer) -> bool:
        priority = self._priorities.pop(consumer, None)
        if priority is None:
            return False
        if consumer in self._out:
            del self._out[consumer]
        else:
            self._leave(consumer, priority)
        if self.exclusive is consumer:
            self.exclusive = None
        if self.active is consumer:
            self.active = self._first()
        return True

    def wanted(self, consumers: Collection[Consumer]) -> None:
        """Those of them that stepped out and have room."""
        if len(consumers) > 1:
            among = set(consumers)
            consumers = [each for each in self._out if each in among]
        for consumer in consumers:
            if consumer not in self._out or consumer.room() <= 0:
                continue
            del self._out[consumer]
            self._turns.setdefault(self._priorities[consumer], deque()).append(consumer)

    def next(self) -> Consumer | None:
        """Whose turn it is; he stays where he stands until `served`."""
        if self.single_active:
            return self.active if self.active is not None and self.active.room() > 0 else None
        while self._turns:
            priority = max(self._turns)
            consumer = self._turns[priority][0]
            if consumer.room() > 0:
                return consumer
            self._leave(consumer, priority)
            self._out[consumer] = None
        return None

    def alone(self, consumer: Consumer) -> bool:
        """Nobody else would have a turn after him."""
        return self.single_active or len(self._turns[self._priorities[consumer]]) == 1

    def served(self, consumer: Consumer) -> None:
        """What was his turn is over."""
        if self.single_active or consumer not in self._priorities or consumer in self._out:
            return
        priority = self._priorities[consumer]
        self._turns[priority].rotate(-1)
        if self._quorum and consumer.room() <= 0:
            self._leave(consumer, priority)
            self._out[consumer] = None

    def _first(self) -> Consumer | None:
        """Who becomes active: in turn by priority, those without room last; of a quorum queue who came first."""
        if self._quorum:
            return next(iter(self._priorities), None)
        for priority in sorted(self._turns, reverse=True):
            return self._turns[priority][0]
        return next((c for c in self._priorities if c in self._out), None)

    def _leave(self, consumer: Consumer, priority: int) -> None:
        turns = self._turns[priority]
        turns.remove(consumer)
        if not turns:
            del self._turns[priority]
