"""Message + body + id → AMQP properties; properties → Metadata; Copy → properties (§5.2, §5.4). Pure.

Rules
- Native fields are used where there are some; the rest travels in our `unimq-` headers.
- Floats travel as text, named in `unimq-types`; ints are 64 bits; bytes, bools and strings are native.
- A foreign message is a perfectly good one: whatever is missing is None, whatever is odd is only in `headers_raw`.
- A message that waits in a delay queue keeps its end of life in `unimq-expires-ms`: `expiration` would wake it early.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from unimq import headers as h
from unimq.address import Address, HeaderValue
from unimq.delivery import Delivery, Metadata, NativeDeath
from unimq.driver import Copy
from unimq.errors import Unsupported
from unimq.message import Message

from . import names, wire

if TYPE_CHECKING:
    from unimq.driver import Place, ReceiverLink

EXPIRES_MS: Final = "unimq-expires-ms"
EXPIRATION_MAX_MS: Final = 2**32 - 1  # the broker refuses more
PERSISTENT: Final = b"\x02"
_SHORT_MAX: Final = wire.SHORT_STRING_MAX_BYTES

# the broker's own headers: never copied, never the user's
BROKERS_OWN: Final = frozenset(
    {"x-death", "x-delivery-count", "x-acquired-count", "x-delivery-time", "x-opt-deaths"}
)
_BROKERS_PREFIXES: Final = ("x-first-death-", "x-last-death-")

NATIVE_REASONS: Final = {
    "rejected": "rejected",
    "expired": "expired",
    "maxlen": "rejected",  # the broker's own word is in the description
    "delivery_limit": "max-delivery",
}

_PLAIN_WITH_ID: Final = (wire.DELIVERY_MODE | wire.MESSAGE_ID).to_bytes(2, "big")
_PLAIN: Final = wire.DELIVERY_MODE.to_bytes(2, "big")
_TYPED_WITH_ID: Final = (wire.CONTENT_TYPE | wire.DELIVERY_MODE | wire.MESSAGE_ID).to_bytes(2, "big")
_TYPED: Final = (wire.CONTENT_TYPE | wire.DELIVERY_MODE).to_bytes(2, "big")


# ---------------------------------------------------------------------------------------------------------- sending
def encode(
    message: Message, null: bool, message_id: str | None, content_type: str | None, keyed: bool, waits: bool
) -> bytes:
    """The properties of a send. `keyed`: the subject is the routing key; `waits`: it goes to a delay place first."""
    if (
        message.headers
        or null
        or message.key is not None
        or message.correlation_id is not None
        or message.reply_to is not None
        or message.priority is not None
        or message.ttl_s is not None
        or message.timestamp is not None
        or (message.subject is not None and not keyed)
        or (message_id is not None and len(message_id) > 60)
    ):
        return pack(*_full(message, null, message_id, content_type, keyed, waits))
    if message_id is not None:
        raw = message_id.encode()
        if content_type is None:
            return b"%b%b%c%b" % (_PLAIN_WITH_ID, PERSISTENT, len(raw), raw)
        return b"%b%b%b%c%b" % (_TYPED_WITH_ID, wire.cached_short(content_type), PERSISTENT, len(raw), raw)
    if content_type is None:
        return _PLAIN + PERSISTENT
    return _TYPED + wire.cached_short(content_type) + PERSISTENT


def _full(
    message: Message, null: bool, message_id: str | None, content_type: str | None, keyed: bool, waits: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    headers: dict[str, Any] = {}
    native: dict[str, Any] = {"delivery_mode": 2}
    if message.headers:
        types = h.types_of(message.headers, [n for n, v in message.headers.items() if isinstance(v, float)])
        for name, value in message.headers.items():
            headers[name] = h.text(value) if isinstance(value, float) else value
        if types is not None:
            headers[h.TYPES] = types
    if content_type is not None:
        native["content_type"] = content_type
    if message.key is not None:
        headers[h.KEY] = message.key
    if message.subject is not None and not keyed:
        headers[h.SUBJECT] = message.subject
    if null:
        headers[h.NULL] = True
    if message.correlation_id is not None:
        _short_or_header(native, "correlation_id", headers, h.CORRELATION_ID, message.correlation_id)
    if message_id is not None:
        native["message_id"] = short_id(message_id)
        if native["message_id"] != message_id:
            headers[h.MESSAGE_ID] = message_id
    if message.reply_to is not None:
        native["reply_to"] = names.reply_name(message.reply_to)
        if isinstance(message.reply_to, Address):
            headers[h.REPLY_TO] = str(message.reply_to)
    if message.priority is not None:
        native["priority"] = message.priority
    timestamp = message.timestamp
    if timestamp is None and message.ttl_s is not None:
        timestamp = dt.datetime.now(dt.UTC)  # without it nobody could tell what remains of the ttl
    if timestamp is not None:
        headers[h.TIMESTAMP_MS] = math.floor(timestamp.timestamp() * 1000)
        if timestamp.timestamp() >= 0:
            native["timestamp"] = int(timestamp.timestamp())
    if message.ttl_s is not None:
        if waits:
            headers[EXPIRES_MS] = math.ceil((time.time() + message.ttl_s) * 1000)
        else:
            native["expiration"] = expiration(message.ttl_s)
    return native, headers


def _short_or_header(
    native: dict[str, Any], name: str, headers: dict[str, Any], header: str, value: str
) -> None:
    if len(value.encode()) <= _SHORT_MAX:
        native[name] = value
    else:
        headers[header] = value


def short_id(message_id: str) -> str:
    """An id as AMQP carries it: itself, or its SHA-256."""
    raw = message_id.encode()
    return message_id if len(raw) <= _SHORT_MAX else hashlib.sha256(raw).hexdigest()


def expiration(ttl_s: float) -> str:
    ms = math.ceil(ttl_s * 1000)
    if ms > EXPIRATION_MAX_MS:
        raise Unsupported(
            f"a ttl of {ttl_s:g} s: RabbitMQ takes at most {EXPIRATION_MAX_MS / 1000:.0f} s (49 days)"
        )
    return str(ms)


# in the order of their flags; each has its own encoder
_ORDER: Final[tuple[tuple[str, int, Callable[[Any], bytes]], ...]] = (
    ("content_type", wire.CONTENT_TYPE, wire.cached_short),
    ("content_encoding", wire.CONTENT_ENCODING, wire.short),
    ("headers", wire.HEADERS, wire.table),
    ("delivery_mode", wire.DELIVERY_MODE, lambda value: bytes((value,))),
    ("priority", wire.PRIORITY, lambda value: bytes((value,))),
    ("correlation_id", wire.CORRELATION_ID, wire.short),
    ("reply_to", wire.REPLY_TO, wire.short),
    ("expiration", wire.EXPIRATION, wire.short),
    ("message_id", wire.MESSAGE_ID, wire.short),
    ("timestamp", wire.TIMESTAMP, lambda value: int(value).to_bytes(8, "big")),
    ("type", wire.TYPE, wire.short),
    ("app_id", wire.APP_ID, wire.short),
)


def pack(native: Mapping[str, Any], headers: Mapping[str, Any]) -> bytes:
    """Flags and properties."""
    flags, pieces = 0, [b""]
    for name, flag, encoder in _ORDER:
        value = (headers or None) if name == "headers" else native.get(name)
        if value is not None:
            flags |= flag
            pieces.append(encoder(value))
    pieces[0] = flags.to_bytes(2, "big")
    return b"".join(pieces)


# ----------------------------------------------------------------------------------------------------------- copies
def encode_copy(copy: Copy, keyed: bool, waits: bool) -> tuple[bytes, bytes, str | None, str]:
    """(properties, body, subject, message id) of a faithful copy."""
    delivery = copy.delivery
    meta = delivery.metadata
    properties = delivery.raw.properties
    headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if not brokers_own(name) and name not in copy.drop_headers and name != EXPIRES_MS
    }
    headers.update(copy.set_headers)
    subject = meta.subject
    if subject is not None and not keyed:
        headers[h.SUBJECT] = subject
    message_id = short_id(copy.message_id)
    native: dict[str, Any] = {
        name: getattr(properties, name)
        for name in (
            "content_type",
            "content_encoding",
            "priority",
            "correlation_id",
            "reply_to",
            "timestamp",
            "type",
            "app_id",
        )
        if getattr(properties, name) is not None
    }
    native["delivery_mode"] = 2
    native["message_id"] = message_id
    remaining_s = copy.ttl_s
    if remaining_s is None and meta.expires_at is not None:
        remaining_s = max(meta.expires_at.timestamp() - time.time(), 0.0)
    if remaining_s is None and properties.expiration is not None:
        # foreign and without a timestamp: all that can be known
        remaining_s = _seconds(properties.expiration)
    if remaining_s is not None:
        if waits:
            headers[EXPIRES_MS] = math.ceil((time.time() + remaining_s) * 1000)
        else:
            native["expiration"] = expiration(remaining_s)
    return pack(native, headers), delivery.body or b"", subject, message_id


def brokers_own(name: str) -> bool:
    return name in BROKERS_OWN or name.startswith(_BROKERS_PREFIXES)


# ---------------------------------------------------------------------------------------------------------- reading
class RabbitDelivery(Delivery):
    """`raw.method` and `raw.properties` are pika's own objects."""

    __slots__ = ()

    def _read(self) -> Metadata:
        return read(self.raw.method, self.raw.properties)

    def native_death(self) -> NativeDeath | None:
        return native_death(self.metadata.headers_raw)


def make_delivery(raw: Any, body: bytes, tag: int, place: Place | None, link: ReceiverLink) -> RabbitDelivery:
    """An empty body may be a tombstone: only then the headers are looked at now."""
    if not body and h.NULL in (raw.properties.headers or {}):
        return RabbitDelivery(raw, None, tag, place, link)
    return RabbitDelivery(raw, body, tag, place, link)


def read(method: Any, properties: Any) -> Metadata:
    raw = [(_text(name), plain(value)) for name, value in (properties.headers or {}).items()]
    ours: dict[str, Any] = {}
    users: dict[str, HeaderValue] = {}
    for name, value in raw:
        if h.is_ours(name):
            ours[name] = value
        elif isinstance(value, str | int | float | bool | bytes) and not brokers_own(name):
            users[name] = value
    for name, letter in h.letters(ours.get(h.TYPES)).items():
        value = users.get(name)
        if isinstance(value, str):
            users[name] = h.untext(value, letter)
    timestamp = _moment(ours.get(h.TIMESTAMP_MS), properties.timestamp)
    counts = dict(raw)
    return Metadata(
        key=_key(ours.get(h.KEY)),
        subject=_subject(method, ours, counts.get("x-death")),
        headers=users,
        headers_raw=raw,
        content_type=_text_or_none(properties.content_type),
        message_id=_text_or_none(ours.get(h.MESSAGE_ID)) or _text_or_none(properties.message_id),
        correlation_id=_text_or_none(ours.get(h.CORRELATION_ID)) or _text_or_none(properties.correlation_id),
        reply_to=_reply_to(ours.get(h.REPLY_TO), properties.reply_to),
        priority=properties.priority,
        timestamp=timestamp,
        expires_at=_expires_at(ours.get(EXPIRES_MS), properties.expiration, timestamp),
        position=counts.get("x-stream-offset"),
        delivery_count=_count(counts.get("x-delivery-count")),
        redelivered=bool(method.redelivered),
        broker_message_id=_text_or_none(properties.message_id),
        unimq=ours,
    )


def plain(value: Any) -> Any:
    """A header's value without pika's own int class; bytes that are text as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return value


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _text_or_none(value: Any) -> str | None:
    if value is None:
        return None
    return _text(value) if isinstance(value, str | bytes) else str(value)


def _key(value: Any) -> str | bytes | None:
    return value if value is None or isinstance(value, str | bytes) else str(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _subject(method: Any, ours: Mapping[str, Any], deaths: Any) -> str | None:
    said = ours.get(h.SUBJECT)
    if isinstance(said, str):
        return said
    if method.exchange:
        return method.routing_key or None
    if isinstance(deaths, list) and deaths and isinstance(deaths[-1], dict) and deaths[-1].get("exchange"):
        keys = deaths[-1].get("routing-keys")
        return str(keys[0]) if isinstance(keys, list) and keys and keys[0] else None
    return None


def _reply_to(said: Any, native: Any) -> Address | str | None:
    if isinstance(said, str):
        try:
            return Address.parse(said)
        except ValueError:
            pass  # written by somebody else: the native field is what counts
    return _text_or_none(native) or None


def _moment(ms: Any, seconds: Any) -> dt.datetime | None:
    value = ms / 1000 if isinstance(ms, int) else seconds
    if not isinstance(value, int | float):
        return None
    try:
        return dt.datetime.fromtimestamp(value, dt.UTC)
    except (OverflowError, OSError, ValueError):
        return None  # anybody may write anything there


def _seconds(text: Any) -> float | None:
    try:
        return max(int(text), 0) / 1000
    except (TypeError, ValueError):
        return None


def _expires_at(at_ms: Any, native: Any, timestamp: dt.datetime | None) -> dt.datetime | None:
    if isinstance(at_ms, int):
        return _moment(at_ms, None)
    seconds = _seconds(native)
    if seconds is None or timestamp is None:
        return None
    try:
        return timestamp + dt.timedelta(seconds=seconds)
    except OverflowError:
        return None


def native_death(headers_raw: Sequence[tuple[str, Any]]) -> NativeDeath | None:
    """What the broker wrote when it dead-lettered a message by itself; the newest death counts."""
    deaths = dict(headers_raw).get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], dict):
        return None
    newest = deaths[0]
    said = str(newest.get("reason", ""))
    at = [death.get("time") for death in deaths if isinstance(death, dict)]
    times = [
        t if t.tzinfo is not None else t.replace(tzinfo=dt.UTC) for t in at if isinstance(t, dt.datetime)
    ]
    count = newest.get("count")
    return NativeDeath(
        NATIVE_REASONS.get(said, "rejected"),
        f"the broker dead-lettered it from {newest.get('queue', '?')}: {said or 'no reason'}",
        int(count) if isinstance(count, int) else None,
        min(times) if times else None,
        max(times) if times else None,
    )
