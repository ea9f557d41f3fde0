"""Message → record, record → Metadata, Copy → record. Pure: a record is looked at by its methods only.

Rules (§5.2)
- Headers travel as UTF-8; what is not a `str` is named in `unimq-types`, bytes go as they are. A header without a value
  (foreign) shows in `headers_raw` only.
- A copy keeps every byte of the original's headers except what is replaced; its record timestamp is its own (a delay is
  counted from it), so the original's goes into `unimq-timestamp-ms`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from unimq import headers as h
from unimq.address import Address, HeaderValue
from unimq.delivery import Delivery, Metadata
from unimq.driver import Copy, Place, ReceiverLink
from unimq.errors import InvalidMessage, Unsupported
from unimq.message import Message

from .offsets import Lane

CONTENT_TYPE: Final = "content-type"
NO_TIMESTAMP: Final = 0  # confluent's TIMESTAMP_NOT_AVAILABLE, and "now" when producing
NATIVE_SCHEMES: Final = ("queue:", "topic:", "subscription:")
# Traces of other brokers that a copy of a foreign message must not carry on (§5.4).
STRIPPED: Final = frozenset(
    {
        "scheduledJobId", "_AMQ_SCHED_DELIVERY", "_AMQ_DUPL_ID", "x-death", "x-delivery-count", "redelivered", "receipt",
        "ack", "subscription", "destination", "destination-type", "timestamp", "expires",
    }
)  # fmt: skip
STRIPPED_PREFIXES: Final = ("AMQ_SCHEDULED_", "_AMQ_ORIG_")

Headers: TypeAlias = list[tuple[str, str | bytes | None]]


class KafkaDelivery(Delivery):
    """Knows its lane and offset, and how often it was in hand when something ended badly (`times`, None: nobody knows of
    any); the rest is read from the record when somebody looks."""

    __slots__ = ("lane", "offset", "times")

    def __init__(
        self,
        raw: Any,
        body: bytes | None,
        tag: int,
        place: Place | None,
        link: ReceiverLink,
        lane: Lane,
        offset: int,
        times: int | None = None,
    ) -> None:
        super().__init__(raw, body, tag, place, link)
        self.lane = lane
        self.offset = offset
        self.times = times

    def _read(self) -> Metadata:
        meta = read(self.raw)
        if self.times is not None:
            meta.redelivered, meta.delivery_count = True, self.times
        return meta


# ------------------------------------------------------------------------------------------------------- writing
def headers_of(message: Message, content_type: str | None, message_id: str | None) -> Headers:
    """The record's headers. Raises `Unsupported` and `InvalidMessage` for what a record cannot carry."""
    if message.priority is not None or message.ttl_s is not None:
        raise Unsupported("Kafka carries neither priority nor ttl_s", message=message)
    if message.delay_s is not None or message.deliver_at is not None:
        raise Unsupported("Kafka has no delayed send", message=message)
    out: Headers = []
    if message_id is not None:
        out.append((h.MESSAGE_ID, message_id))
    if content_type is not None:
        out.append((CONTENT_TYPE, content_type))
    if message.correlation_id is not None:
        out.append((h.CORRELATION_ID, message.correlation_id))
    if message.subject is not None:
        out.append((h.SUBJECT, message.subject))
    if message.reply_to is not None:
        out.append((h.REPLY_TO, str(message.reply_to)))
    if message.headers:
        _check_names(message.headers, message)
        out += [(name, _wire(value)) for name, value in message.headers.items()]
        types = h.types_of(message.headers)
        if types is not None:
            out.append((h.TYPES, types))
    return out


def _check_names(headers: Mapping[str, HeaderValue], message: Message) -> None:
    for name in headers:
        if "\0" in name:
            raise InvalidMessage(f"header {name!r}: Kafka's client cuts names at NUL", message=message)


def _wire(value: HeaderValue) -> str | bytes:
    return value if isinstance(value, str | bytes) else h.text(value)


def timestamp_ms(message: Message) -> int:
    """What `produce` takes; 0 is now."""
    return NO_TIMESTAMP if message.timestamp is None else round(message.timestamp.timestamp() * 1000)


def copy_headers(copy: Copy) -> Headers:
    """The headers of a faithful copy."""
    raw = copy.delivery.raw
    gone = {*copy.drop_headers, *copy.set_headers}
    out: Headers = [
        (name, value)
        for name, value in raw.headers() or ()
        if name not in gone and name not in STRIPPED and not name.startswith(STRIPPED_PREFIXES)
    ]
    out += [(name, _wire(value)) for name, value in copy.set_headers.items()]
    kind, ms = raw.timestamp()
    if kind != NO_TIMESTAMP and not any(name == h.TIMESTAMP_MS for name, _ in out):
        out.append((h.TIMESTAMP_MS, str(ms)))
    return out


# ------------------------------------------------------------------------------------------------------- reading
def read(raw: Any) -> Metadata:
    pairs: Sequence[tuple[str, bytes | None]] = raw.headers() or ()
    unimq: dict[str, Any] = {}
    headers: dict[str, HeaderValue] = {}
    content_type: str | None = None
    letters: dict[str, str] = {}
    for name, value in pairs:
        if name == CONTENT_TYPE:
            content_type = _str(value)
        elif h.is_ours(name):
            unimq[name] = _str(value)
    if h.TYPES in unimq:
        letters = h.letters(unimq[h.TYPES])
    for name, value in pairs:
        if value is not None and name != CONTENT_TYPE and not h.is_ours(name):
            headers[name] = _typed(value, letters.get(name))
    key = raw.key()
    return Metadata(
        key=None if key is None else h.utf8(key),
        subject=unimq.get(h.SUBJECT),
        headers=headers,
        headers_raw=tuple(pairs),
        content_type=content_type,
        message_id=unimq.get(h.MESSAGE_ID),
        correlation_id=unimq.get(h.CORRELATION_ID),
        reply_to=_reply_to(unimq.get(h.REPLY_TO)),
        timestamp=_timestamp(raw, unimq.get(h.TIMESTAMP_MS)),
        position=(raw.partition(), raw.offset()),
        unimq=unimq,
    )


def _str(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _typed(value: bytes, letter: str | None) -> HeaderValue:
    if letter == "x":
        return value
    text = h.utf8(value)
    return text if letter is None or isinstance(text, bytes) else h.untext(text, letter)


def _reply_to(text: str | None) -> Address | str | None:
    """An address where one was written; any other string is the broker's own form, verbatim."""
    if text is None or not text.startswith(NATIVE_SCHEMES):
        return text
    try:
        return Address.parse(text)
    except ValueError:
        return text


def _timestamp(raw: Any, original_ms: str | None) -> dt.datetime | None:
    kind, ms = raw.timestamp()
    if original_ms is not None and original_ms.isascii() and original_ms.isdigit():
        ms = int(original_ms)
    elif kind == NO_TIMESTAMP:
        return None
    try:
        return dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a foreign producer may write any number


def due_at(raw: Any, delay_s: float) -> float:
    """When a record in a retry place may be handed out, epoch seconds: never later than the place's own delay, whatever
    its header says, for what lies behind it would wait too."""
    kind, ms = raw.timestamp()
    latest = ms / 1000 + delay_s if kind != NO_TIMESTAMP else 0.0
    for name, value in raw.headers() or ():
        if name == h.NOT_BEFORE and (asked := _moment(_str(value))) is not None:
            return min(asked, latest)
    return latest


def _moment(text: str | None) -> float | None:
    """`unimq-not-before`: ISO 8601 or milliseconds since the epoch."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text) / 1000
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)).timestamp()
