"""Message → native, native → Metadata, Copy → native. No I/O. (brokers.md §5.2, §5.4)

Rules
- A property is int32, float, bool or str on this wire; bytes and larger ints travel as text named in `unimq-types`.
- The key is the session id, which a place without sessions takes as partition key; beyond 128 characters its SHA-256 is,
  and `unimq-key` keeps it. The same for the message id and `unimq-message-id`.
- Strings and property names come back from the library as bytes: `utf8` makes them str where they are valid.
- A message without a key to an ordered place is in the session `NO_KEY`: without a session the broker would refuse it.
- A copy keeps what the wire had: foreign ints beyond int32 go as long, binary as binary, a body section as it was.
- The library cuts time_to_live to whole seconds, so milliseconds are set on the AMQP header.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import (
    AmqpAnnotatedMessage,
    AmqpMessageBodyType,
    AmqpMessageHeader,
    AmqpMessageProperties,
)

from unimq import headers as h
from unimq.address import Address, HeaderValue
from unimq.delivery import Delivery, Metadata, NativeDeath
from unimq.driver import Batch, Copy, Place, ReceiverLink
from unimq.errors import InvalidMessage, Unsupported
from unimq.message import Message

from . import dead, names

ID_MAX_CHARS: Final = 128
TTL_MAX_MS: Final = 2**32 - 1  # the header's field is a uint
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
SCHEDULED: Final = b"x-opt-scheduled-enqueue-time"
PARTITION_KEY: Final = b"x-opt-partition-key"
DEAD_REASON: Final = b"DeadLetterReason"
DEAD_DESCRIPTION: Final = b"DeadLetterErrorDescription"
NO_KEY: Final = "unimq.no-key"
_BROKERS: Final = frozenset({"DeadLetterReason", "DeadLetterErrorDescription"})
_NULL: Final = h.NULL.encode()


def shortened(text: str) -> str:
    """As the broker's id fields take it."""
    return (
        text
        if len(text) <= ID_MAX_CHARS
        else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    )


def due_at(message: Message, now: dt.datetime) -> dt.datetime | None:
    """When it is to be enqueued; None = now."""
    if message.deliver_at is not None:
        return message.deliver_at.astimezone(dt.UTC)
    return now + dt.timedelta(seconds=message.delay_s) if message.delay_s else None


def ttl_ms(ttl_s: float, what: str) -> int:
    milliseconds = max(round(ttl_s * 1000), 1)
    if milliseconds > TTL_MAX_MS:
        raise Unsupported(
            f"{what}: ttl_s={ttl_s:g} is more than Service Bus' client carries, {TTL_MAX_MS / 1000:.0f} s",
            adapter="servicebus",
        )
    return milliseconds


# ------------------------------------------------------------------------------------------------------ outgoing
def to_native(batch: Batch, index: int, *, sessions: bool = False) -> ServiceBusMessage:
    """The library's message; `sessions`: for a place that has them. Raises `Unsupported` or `InvalidMessage` for what this
    broker does not carry."""
    message = batch.messages[index]
    body = batch.bodies[index]
    if message.priority is not None:
        raise Unsupported("Service Bus has no priority", adapter="servicebus", message=message)
    properties: dict[str | bytes, Any] = {}
    if message.headers:
        _put_headers(properties, message.headers)
    if body is None:
        properties[h.NULL] = True
    if message.timestamp is not None:
        properties[h.TIMESTAMP] = message.timestamp.astimezone(dt.UTC)
    key = message.key
    if key is not None and len(key) > ID_MAX_CHARS:
        properties[h.KEY] = key
        key = shortened(key)
    if key is None and sessions:
        key = NO_KEY
    message_id = batch.ids[index] if batch.ids is not None else message.message_id
    if message_id is not None and len(message_id) > ID_MAX_CHARS:
        properties[h.MESSAGE_ID] = message_id
        message_id = shortened(message_id)
    reply_to = message.reply_to
    if isinstance(reply_to, Address):
        properties[h.REPLY_TO] = str(reply_to)
        reply_to = names.entity_of(reply_to).path
    native = ServiceBusMessage(
        body if body is not None else b"",
        application_properties=properties or None,
        session_id=key,
        message_id=message_id,
        content_type=batch.content_type(index),
        correlation_id=message.correlation_id,
        subject=message.subject,
        reply_to=reply_to,
    )
    if message.ttl_s is not None:
        header = native.raw_amqp_message.header
        assert header is not None  # the constructor makes one
        header.time_to_live = ttl_ms(message.ttl_s, "send")
    return native


def _put_headers(properties: dict[str | bytes, Any], headers: Mapping[str, HeaderValue]) -> None:
    typed: list[str] | None = None
    for name, value in headers.items():
        if isinstance(value, bytes) or (
            isinstance(value, int) and not isinstance(value, bool) and not INT32_MIN <= value <= INT32_MAX
        ):
            properties[name] = h.text(value)
            typed = [name] if typed is None else [*typed, name]
        elif isinstance(value, str | int | float | bool):
            properties[name] = value
        else:
            raise InvalidMessage(
                f"header {name!r}: Service Bus does not carry a {type(value).__name__}", adapter="servicebus"
            )
    if typed:
        properties[h.TYPES] = h.types_of(headers, typed)


# ------------------------------------------------------------------------------------------------------- copies
def copy_native(copy: Copy, now: dt.datetime) -> AmqpAnnotatedMessage:
    """A faithful copy, from memory; it says itself when it is to be enqueued."""
    raw = copy.delivery.raw
    annotated = raw.raw_amqp_message
    properties: dict[str, Any] = {}
    for key, value in (raw.application_properties or {}).items():
        name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
        if name not in copy.drop_headers and name not in _BROKERS:
            properties[name] = wire_value(value)
    for name, own in {**copy.delivery.metadata.unimq, **copy.set_headers}.items():
        # of a dead letter some of ours stand in its description only
        if name in copy.set_headers or (name not in properties and name not in copy.drop_headers):
            properties[name] = wire_value(own)
    annotations: dict[Any, Any] = {
        key: value
        for key, value in (annotated.annotations or {}).items()
        if not _text(key).startswith("x-opt-")
    }
    if copy.delay_s:
        annotations[SCHEDULED] = now + dt.timedelta(seconds=copy.delay_s)
    if raw.partition_key is not None:
        annotations[PARTITION_KEY] = raw.partition_key
    was = annotated.properties
    return AmqpAnnotatedMessage(
        **_body_section(annotated),
        header=AmqpMessageHeader(
            time_to_live=_remaining_ms(copy, raw, now),
            durable=annotated.header.durable if annotated.header else None,
            priority=annotated.header.priority if annotated.header else None,
        ),
        properties=AmqpMessageProperties(
            message_id=shortened(copy.message_id),
            to=raw.to,
            subject=raw.subject,
            reply_to=raw.reply_to,
            correlation_id=raw.correlation_id,
            content_type=raw.content_type,
            content_encoding=_plain(was.content_encoding) if was else None,
            group_id=raw.session_id,
            reply_to_group_id=raw.reply_to_session_id,
        ),
        application_properties=properties or None,
        annotations=annotations or None,
    )


def wire_value(value: Any) -> Any:
    """A value as it came from the library, in a form that the library sends with the same type."""
    if isinstance(value, bytes):
        text = h.utf8(value)
        return text if isinstance(text, str) else {"TYPE": "BINARY", "VALUE": value}
    if isinstance(value, bool) or not isinstance(value, int) or INT32_MIN <= value <= INT32_MAX:
        return value
    # the library sends a plain int as int32 alone; this form is private to it, and the only one for a long
    return {"TYPE": "LONG" if INT64_MIN <= value <= INT64_MAX else "ULONG", "VALUE": value}


def _remaining_ms(copy: Copy, raw: Any, now: dt.datetime) -> int | None:
    if copy.ttl_s is not None:
        return ttl_ms(copy.ttl_s, "copy")
    expires_at: dt.datetime | None = raw.expires_at_utc
    if expires_at is None or DEAD_REASON in (raw.application_properties or {}):
        return None  # a dead letter has had its time: a replayed one starts without a limit
    return min(max(round((expires_at - now).total_seconds() * 1000), 1), TTL_MAX_MS)


def _body_section(annotated: Any) -> dict[str, Any]:
    if annotated.body_type == AmqpMessageBodyType.VALUE:
        return {"value_body": _plain(annotated.body)}
    if annotated.body_type == AmqpMessageBodyType.SEQUENCE:
        return {"sequence_body": [_plain(list(part)) for part in annotated.body]}
    return {"data_body": list(annotated.body)}


def _plain(value: Any) -> Any:
    """Strings as str again, at any depth."""
    if isinstance(value, bytes):
        return h.utf8(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _text(key: Any) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


# ------------------------------------------------------------------------------------------------------ incoming
def body_of(raw: Any) -> bytes | None:
    """The bytes. A foreign value or sequence body: its own bytes or text, else JSON of it."""
    if _NULL in (raw.application_properties or ()):
        return None
    kind = raw.body_type
    if kind == AmqpMessageBodyType.DATA:
        return b"".join(raw.body)
    value = raw.body if kind == AmqpMessageBodyType.VALUE else [list(part) for part in raw.body]
    if value is None or isinstance(value, bytes):
        return value
    return (
        value.encode()
        if isinstance(value, str)
        else msgspec.json.encode(_plain(value), enc_hook=str, order="deterministic")
    )


class ServiceBusDelivery(Delivery):
    """`lane`: the owner thread that settles it. The lock's times are seconds since the epoch, None = no lock of its own."""

    __slots__ = ("lane", "lock_ends", "lock_s", "renew_until")

    def __init__(self, raw: Any, tag: int, place: Place | None, link: ReceiverLink, lane: Any) -> None:
        super().__init__(raw, body_of(raw), tag, place, link)
        self.lane = lane
        self.lock_ends: float | None = None
        self.lock_s = 0.0
        self.renew_until = 0.0

    def lock(self, until: dt.datetime | None, now: float, *, renew_for_s: float | None = None) -> None:
        """Take over the lock's end, at receipt (`renew_for_s`) and after each renewal."""
        self.locked_until = until
        self.lock_ends = None if until is None else until.timestamp()
        if renew_for_s is not None:
            self.lock_s = 0.0 if self.lock_ends is None else max(self.lock_ends - now, 0.0)
            self.renew_until = now + renew_for_s

    def _read(self) -> Metadata:
        return read(self.raw)

    def native_death(self) -> NativeDeath | None:
        reason = self.raw.dead_letter_reason
        if reason is None:
            return None
        description, _ = dead.headers(self.raw.dead_letter_error_description)
        return NativeDeath(
            dead.REASONS.get(reason, reason), description, self.metadata.delivery_count or None
        )


def read(raw: Any) -> Metadata:
    every: list[tuple[str, Any]] = []
    ours: dict[str, Any] = {}
    for key, value in (raw.application_properties or {}).items():
        name = _text(key)
        plain = _plain(value)
        every.append((name, plain))
        if h.is_ours(name):
            ours[name] = plain
    letters = h.letters(ours.get(h.TYPES)) if h.TYPES in ours else {}
    headers: dict[str, HeaderValue] = {}
    for name, value in every:
        if name in ours or name in _BROKERS:
            continue
        if isinstance(value, str):
            headers[name] = h.untext(value, letters.get(name))
        elif isinstance(value, int | float | bool | bytes):
            headers[name] = value
        elif isinstance(value, uuid.UUID):
            # null, list and map stay in headers_raw: they are no header values of ours
            headers[name] = str(value)
    if raw.dead_letter_reason is not None:
        _, written = dead.headers(raw.dead_letter_error_description)
        ours.update(written)
    broker_id = None if raw.message_id is None else str(raw.message_id)
    correlation = raw.correlation_id
    return Metadata(
        key=_string(ours.get(h.KEY))
        or (None if raw.session_id == NO_KEY else raw.session_id or raw.partition_key),
        subject=raw.subject,
        headers=headers,
        headers_raw=every,
        content_type=raw.content_type,
        message_id=_string(ours.get(h.MESSAGE_ID)) or broker_id,
        correlation_id=None if correlation is None else str(correlation),
        reply_to=_reply_to(ours.get(h.REPLY_TO), raw.reply_to),
        timestamp=_moment(ours.get(h.TIMESTAMP)) or raw.enqueued_time_utc,
        expires_at=raw.expires_at_utc,
        position=raw.sequence_number,
        session_id=raw.session_id,
        delivery_count=raw.delivery_count or 0,
        redelivered=bool(raw.delivery_count),
        broker_message_id=broker_id,
        unimq=ours,
    )


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _reply_to(ours: Any, native: str | None) -> Address | str | None:
    if isinstance(ours, str):
        try:
            return Address.parse(ours)
        except ValueError:
            return native  # anybody may have written it; the broker's own field still says where
    return native


def _moment(value: Any) -> dt.datetime | None:
    """A timestamp comes back from the library as milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    try:
        return dt.datetime.fromtimestamp(value / 1000, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return None
