"""What a queue can be told at its declaration.

Rules
- Options are values: two declarations of one queue agree when their options are equal; `differences` says where not.
- None means: no such limit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from .limits import DEAD_RETRY_S, MAX_PRIORITY

Position: TypeAlias = Literal["original", "back", "head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    # Bounds on what is ready, and what gives way at the bound: the oldest ("drop-head", dead-lettered where there is a
    # place), the newcomer ("reject"), the newcomer, which is then dead-lettered ("dead-letter"), or the newcomer once the
    # bound has been passed, until no more than four fifths of it are ready ("reject-late", as RabbitMQ's quorum queues).
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: Literal["drop-head", "reject", "dead-letter", "reject-late"] = "drop-head"
    # What counts against max_bytes: all that a message is charged, or its body alone.
    bytes_counted: Literal["charged", "body"] = "charged"
    # Whether a message that comes back can push the head over the bound ("drop-head").
    bound_on_return: bool = False
    # A message's own time to live can only shorten this one.
    ttl_s: float | None = None
    # "any": gone at its time. "head": only once it is the next to be handed out, as RabbitMQ does it.
    expire_at: Literal["any", "head"] = "any"
    # Levels 0..max_priority; higher ones on a message are capped. None: priorities are ignored.
    max_priority: int | None = None
    # A message id seen within the window is accepted and not stored again.
    dedup_window_s: float | None = None
    # A message coming back whose count has reached this is dead-lettered; `count_on` says what is counted: handing it
    # out, or coming back (release, expired lock, vanished owner).
    max_delivery_count: int | None = None
    count_on: Literal["delivery", "release"] = "release"
    # How long a lease holds; None: until it is settled or its owner is gone.
    lock_s: float | None = None
    # Where a returned message stands: where it stood, behind all, or before all in the order of return.
    requeue_position: Position = "original"
    # Where the dead go: opaque to the queue; the engine takes a queue's name or a callable. None: they are dropped.
    dead_letter: object | None = None
    # When that place refuses: keep the message in this queue and try again, or drop it.
    dead_letter_refused: Literal["hold", "drop"] = "hold"
    dead_retry_s: float = DEAD_RETRY_S
    # Messages are leased by session only (`session.py`).
    sessions: bool = False

    def __post_init__(self) -> None:
        for name in ("max_length", "max_bytes", "ttl_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is 0 or more, not {value!r}")
        for name in ("dedup_window_s", "max_delivery_count", "lock_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is more than 0, not {value!r}")
        if self.max_priority is not None and not 0 <= self.max_priority <= MAX_PRIORITY:
            raise ValueError(f"max_priority is 0 to {MAX_PRIORITY}, not {self.max_priority!r}")

    def differences(self, asked: QueueOptions) -> dict[str, tuple[object, object]]:
        """option → (what is there, what is asked for)."""
        return {
            f.name: (getattr(self, f.name), getattr(asked, f.name))
            for f in fields(self)
            if getattr(self, f.name) != getattr(asked, f.name)
        }
