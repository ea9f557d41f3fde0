"""What a message remembers of its deaths.

Rules
- The newest death is first. Dying again in the same queue for the same reason counts up and moves to the front.
- A dead letter no longer expires: it lies in its place until somebody takes it.
- A message that comes back to a queue by itself, with no rejection on the way, would go round for ever: a cycle.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .limits import MAX_DEATHS
from .message import Entry, Stored

# The reasons the engine itself gives; a verb may give any other.
EXPIRED: Final = "expired"
OVERFLOW: Final = "overflow"
MAX_DELIVERIES: Final = "max-delivery"
REJECTED: Final = "rejected"

AUTOMATIC: Final = frozenset({EXPIRED, OVERFLOW, MAX_DELIVERIES})


class Death(msgspec.Struct, frozen=True):
    """Where, why and when. `meta` is the message's own as it was then, for what a protocol writes of it."""

    queue: str
    reason: str
    description: str
    died_at: float
    first_died_at: float
    count: int
    delivery_count: int
    meta: Any = None


def with_death(entry: Entry, queue: str, died_at: float) -> Stored:
    stored = entry.stored
    before = next((d for d in stored.deaths if d.queue == queue and d.reason == entry.reason), None)
    death = Death(
        queue,
        entry.reason,
        entry.description,
        died_at,
        before.first_died_at if before else died_at,
        before.count + 1 if before else 1,
        entry.delivery_count,
        before.meta if before else stored.meta,
    )
    others = [d for d in stored.deaths if d is not before]
    return msgspec.structs.replace(
        stored, deaths=(death, *others[: MAX_DEATHS - 1]), expires_at=None, ttl_s=None
    )


def is_cycle(stored: Stored, queue: str) -> bool:
    """`stored`, with its newest death, is about to go to `queue`: has it come round without anybody's wish?"""
    for death in stored.deaths:
        if death.reason not in AUTOMATIC:
            return False
        if death.queue == queue:
            return True
    return len(stored.deaths) >= MAX_DEATHS  # a longer way round could not be seen any more
