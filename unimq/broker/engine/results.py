"""What operations answer, and the one bound on memory.

Rules
- A put answers with the entry it made or with a `Refusal`: nothing is refused in silence.
- A `Budget` is shared by all queues of an engine. Fan-out is charged per queue, though the body is shared: an upper
  bound that needs no counting of references.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from .limits import ENGINE_MAX_BYTES
from .message import Entry


class Refusal(enum.Enum):
    DUPLICATE = "duplicate"  # its id was seen within the window: the sender's message is already here
    QUEUE_FULL = "queue-full"  # max_length or max_bytes, where the newcomer gives way
    BROKER_FULL = "broker-full"  # the budget
    NO_SESSION = "no-session"  # the queue is by session, the message has none
    CLOSED = "closed"  # the queue was deleted


PutOutcome: TypeAlias = Entry | Refusal


class Budget:
    """Bytes held. Only the queues change `held_bytes`."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int = ENGINE_MAX_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        return self.held_bytes + size_bytes <= self.limit_bytes


class Depth(msgspec.Struct, frozen=True):
    """How many messages a queue holds, by state, and what they are charged."""

    ready: int
    leased: int
    delayed: int
    deferred: int
    dead: int  # condemned, not yet taken by the dead-letter place
    held_bytes: int

    @property
    def total(self) -> int:
        return self.ready + self.leased + self.delayed + self.deferred + self.dead
