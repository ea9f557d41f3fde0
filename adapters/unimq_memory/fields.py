"""Message + body + id → the engine's `Stored`; an entry → Metadata; Copy → `Stored` (§5.2, §5.4). Pure.

Rules
- Nothing is lost and nothing is text: fields and header values come back as the objects that were sent.
- The user's headers are `Stored.headers`, ours are `Fields.unimq`: they cannot meet.
- A message is read once, when it is sent: the user may change his object afterwards.
- A life time is absolute from the moment the message is due. A dead letter has none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from unimq import headers as h
from unimq.address import Address, HeaderValue
from unimq.broker.engine import Entry, Stored
from unimq.broker.engine.limits import MESSAGE_OVERHEAD_BYTES
from unimq.broker.engine.message import NO_HEADERS, size_of
from unimq.delivery import Delivery, Metadata, NativeDeath
from unimq.driver import Copy
from unimq.message import Message

if TYPE_CHECKING:
    from unimq.driver import Place, ReceiverLink

FIELDS_BYTES: Final = 256  # what `Fields` and its strings are charged in the engine's budget
NATIVE_REASONS: Final = {"overflow": "max-length"}


class Fields(msgspec.Struct, frozen=True, eq=False):
    """`Stored.meta`: what the engine does not look at. `message_id` is the one shown."""

    message_id: str | None = None
    content_type: str | None = None
    key: str | None = None
    subject: str | None = None
    correlation_id: str | None = None
    reply_to: Address | str | None = None
    priority: int | None = None
    timestamp: dt.datetime | None = None
    unimq: Mapping[str, HeaderValue] | None = None


def encode(
    message: Message, body: bytes | None, content_type: str | None, message_id: str | None, due_at: float
) -> Stored:
    """`due_at`: when its life begins, by the broker's clock."""
    subject = message.subject
    correlation_id = message.correlation_id
    priority = message.priority
    size = MESSAGE_OVERHEAD_BYTES + FIELDS_BYTES
    headers: Mapping[str, Any] = NO_HEADERS
    if message.headers:
        headers = dict(message.headers)
        size = size_of(body, headers) + FIELDS_BYTES
    elif body:
        size += len(body)
    if subject is not None:
        size += len(subject)
    return Stored(
        body,
        headers,
        Fields(
            message_id,
            content_type,
            message.key,
            subject,
            correlation_id,
            message.reply_to,
            priority,
            message.timestamp,
        ),
        size,
        message_id,
        subject or "",
        priority or 0,
        None if message.ttl_s is None else due_at + message.ttl_s,
    )


def encode_copy(copy: Copy, due_at: float) -> Stored:
    """A faithful copy, with our headers as told; the engine's own notes on deaths and counts stay behind."""
    entry: Entry = copy.delivery.raw
    stored = entry.stored
    fields: Fields = stored.meta
    unimq = {name: value for name, value in (fields.unimq or {}).items() if name not in copy.drop_headers}
    unimq.update(copy.set_headers)
    if h.REASON in copy.set_headers:
        expires_at = None
    elif copy.ttl_s is not None:
        expires_at = due_at + copy.ttl_s
    else:
        expires_at = stored.expires_at
    return msgspec.structs.replace(
        stored,
        meta=msgspec.structs.replace(fields, unimq=unimq),
        size_bytes=size_of(stored.body, stored.headers) + size_of(None, unimq) + FIELDS_BYTES,
        message_id=copy.message_id,
        expires_at=expires_at,
        deaths=(),
    )


def read(entry: Entry) -> Metadata:
    stored = entry.stored
    fields: Fields = stored.meta
    unimq = fields.unimq
    raw: list[tuple[str, Any]] = list(stored.headers.items())
    message_id = fields.message_id
    if unimq is not None:
        raw.extend(unimq.items())
        said = unimq.get(h.MESSAGE_ID)
        if isinstance(said, str):
            message_id = said
    return Metadata(
        key=fields.key,
        subject=fields.subject,
        headers=dict(stored.headers),  # the user may change his, the message comes again
        headers_raw=raw,
        content_type=fields.content_type,
        message_id=message_id,
        correlation_id=fields.correlation_id,
        reply_to=fields.reply_to,
        priority=fields.priority,
        timestamp=fields.timestamp,
        expires_at=None if entry.expires_at is None else moment(entry.expires_at),
        position=entry.seq,
        delivery_count=entry.delivery_count,
        redelivered=entry.redelivered,
        broker_message_id=stored.message_id,
        unimq=unimq,
    )


def moment(at_s: float) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(at_s, dt.UTC)
    except (OverflowError, OSError, ValueError):
        return dt.datetime.max.replace(tzinfo=dt.UTC)  # a ttl beyond the calendar


class MemoryDelivery(Delivery):
    """`raw` and `tag` are the engine's entry."""

    __slots__ = ()

    def __init__(self, entry: Entry, place: Place | None, link: ReceiverLink) -> None:
        # as Delivery does it, without a second call: one is made per message
        self.raw = self.tag = entry
        self.body = entry.stored.body
        self.place = place
        self.link = link
        self.locked_until = None
        self.lock_lost = False
        self.try_in_hand = 1
        self._owner = None
        self._meta = None

    def _read(self) -> Metadata:
        return read(self.raw)

    def native_death(self) -> NativeDeath | None:
        deaths = self.raw.stored.deaths
        if not deaths:
            return None
        newest = deaths[0]
        return NativeDeath(
            NATIVE_REASONS.get(newest.reason, newest.reason),
            newest.description or f"the broker dead-lettered it from {newest.queue}: {newest.reason}",
            newest.delivery_count,
            moment(min(death.first_died_at for death in deaths)),
            moment(newest.died_at),
        )
