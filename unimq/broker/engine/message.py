"""What lies in a queue: a `Stored` message, shared by all queues it was routed to, and one `Entry` per queue.

Rules
- A `Stored` never changes. The engine reads its named fields; `meta` is the session's own and opaque here.
- An `Entry` is a handle valid until it ends: by ack, by removal, or by going back to the queue. Going back makes a
  successor with the same `seq`, so that a holder whose lock was lost can never settle what another holds now.
- Both are msgspec structs because one of each is made per message: a frozen dataclass costs four times as much.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .limits import HEADER_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES

if TYPE_CHECKING:
    from .deadletter import Death

NO_HEADERS: Final[Mapping[str, Any]] = MappingProxyType({})

# The states of an entry. The table of transitions is at the top of queue.py.
READY: Final = 0
LEASED: Final = 1
DELAYED: Final = 2
DEFERRED: Final = 3
DEAD: Final = 4
ENDED: Final = 5

STATE_NAMES: Final = ("ready", "leased", "delayed", "deferred", "dead", "ended")


class Stored(msgspec.Struct, frozen=True, eq=False):
    """One message as it was published. Make it with `make_stored`, which works out `size_bytes`."""

    body: bytes | None
    headers: Mapping[str, Any]
    meta: Any
    size_bytes: int
    message_id: str | None = None
    subject: str = ""
    priority: int = 0
    expires_at: float | None = None  # absolute, by the engine's clock
    ttl_s: float | None = None  # from the moment it becomes ready in a queue; the earlier of the two holds
    group: str | None = None
    session_id: str | None = None
    persistent: bool = True
    deaths: tuple[Death, ...] = ()  # newest first


class Entry(msgspec.Struct, eq=False):
    """A message in one queue. `seq` is its identity there and never changes."""

    stored: Stored
    seq: int
    state: int
    enqueued_at: float
    position: int = 0  # where it stands among the ready
    priority: int = 0
    redelivered: bool = False
    deferred: bool = False  # was set aside: going back means being set aside again
    delivery_count: int = 0
    expires_at: float | None = None
    due_at: float | None = None
    owner: Hashable = None
    lease_deadline: float | None = None
    reason: str = ""
    description: str = ""

    def __repr__(self) -> str:
        return f"<Entry {self.seq} {STATE_NAMES[self.state]} deliveries={self.delivery_count}>"


def size_of(body: bytes | None, headers: Mapping[str, Any]) -> int:
    """What a message is charged: an estimate that is never zero."""
    size = MESSAGE_OVERHEAD_BYTES + (len(body) if body else 0)
    for name, value in headers.items():
        size += HEADER_OVERHEAD_BYTES + len(name)
        if isinstance(value, (str, bytes)):
            size += len(value)
    return size


def make_stored(
    body: bytes | None,
    headers: Mapping[str, Any] = NO_HEADERS,
    *,
    meta: Any = None,
    meta_bytes: int = 0,
    message_id: str | None = None,
    subject: str = "",
    priority: int = 0,
    expires_at: float | None = None,
    ttl_s: float | None = None,
    group: str | None = None,
    session_id: str | None = None,
    persistent: bool = True,
) -> Stored:
    """`meta_bytes` is what `meta` holds in memory, so that the engine's bound covers it."""
    size_bytes = size_of(body, headers) + meta_bytes
    return Stored(
        body,
        headers,
        meta,
        size_bytes,
        message_id,
        subject,
        priority,
        expires_at,
        ttl_s,
        group,
        session_id,
        persistent,
    )
