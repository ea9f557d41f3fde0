"""What a batcher carries: packs of messages that were added together, and flights, the parts of them that leave together.

- A *pack* is what senders add to, and what they wait for; its outcome is kept by index.
- A *flight* is a part of a pack, in order, under the number that keeps the order of sending when it is queued again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ._latch import Latch
from .driver import Batch
from .errors import UnimqError
from .message import Message, Receipt

_log = logging.getLogger("unimq.send")
Item = tuple[Message, "bytes | None", "str | None", "str | None"]  # message, body, content type, id


class Pack(Latch):
    """Messages added together. Set when every one has an outcome: `errors[i]`, or confirmed."""

    __slots__ = (
        "messages",
        "bodies",
        "types",
        "ids",
        "deadlines",
        "errors",
        "positions",
        "left",
        "bytes",
        "unread",
        "nowait",
    )

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.bodies: list[bytes | None] = []
        self.types: dict[int, str] | None = None
        self.ids: list[str] | None = []
        self.deadlines: list[float] = []
        self.errors: dict[int, UnimqError] = {}
        self.positions: list[tuple[Sequence[int], Sequence[Any]]] = []  # by flight
        self.left = 0  # items without an outcome
        self.bytes = 0
        self.unread: set[int] = set()  # failed, and nobody has looked
        self.nowait: set[int] | None = None  # sent with send_nowait: a failure is counted, nobody will look

    def outcome(self, index: int) -> Receipt:
        """The receipt of one item, or its error raised. Only once `is_set`."""
        if self.errors and index in self.errors:
            self.unread.discard(index)
            raise self.errors[index]
        return Receipt(None if self.ids is None else self.ids[index], self.position(index))

    def position(self, index: int) -> Any:
        for indexes, positions in self.positions:
            if index in indexes:
                return positions[indexes.index(index)]
        return None

    def __del__(self) -> None:
        if self.unread:
            first = next(iter(self.unread))
            _log.error(
                "%d sends failed and nobody looked; the first: %s", len(self.unread), self.errors[first]
            )


class Flight:
    """A part of a pack: `indexes` of it, in order."""

    __slots__ = ("pack", "indexes", "number")

    def __init__(self, pack: Pack, indexes: Sequence[int], number: int) -> None:
        self.pack = pack
        self.indexes = indexes
        self.number = number  # order of sending, kept when queued again

    def batch(self) -> Batch:
        """What the driver gets of it."""
        pack, indexes = self.pack, self.indexes
        if len(indexes) == len(pack.messages):
            return Batch(pack.messages, pack.bodies, pack.types, pack.ids, min(pack.deadlines))
        types = None
        if pack.types is not None:
            types = {at: pack.types[i] for at, i in enumerate(indexes) if i in pack.types}
        return Batch(
            [pack.messages[i] for i in indexes],
            [pack.bodies[i] for i in indexes],
            types,
            None if pack.ids is None else [pack.ids[i] for i in indexes],
            min(pack.deadlines[i] for i in indexes),
        )


def as_sent(message: Message, message_id: str | None) -> Message:
    """The message with the id it was sent with: sending this one again is the safe resend."""
    if message_id is None or message.message_id is not None:
        return message
    return message.copy(message_id=message_id)
