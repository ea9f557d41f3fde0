"""The few AMQP 0-9-1 frames of the hot path, as bytes: publish out, deliver and confirms in. Everything else is pika's.

Rules
- Pure: no socket, no pika object. What is written here is byte for byte what pika writes (a test compares them).
- A value is encoded as pika encodes it; a float, which pika cannot, as a double (only in copies of foreign messages).
- Properties are read here too: pika makes ints of floats, and an odd value of anybody's (a NaN, a date beyond the calendar)
  is an exception that ends the connection. Here it is kept as what could be read.
"""

from __future__ import annotations

import calendar
import datetime as dt
import decimal
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from unimq.errors import InvalidMessage

FRAME_METHOD, FRAME_HEADER, FRAME_BODY = 1, 2, 3
FRAME_END: Final = b"\xce"
FRAME_END_BYTE: Final = 0xCE
FRAME_OVERHEAD: Final = 8
SHORT_STRING_MAX_BYTES: Final = 255

DELIVER, ACK, NACK, QOS_OK = 0x003C003C, 0x003C0050, 0x003C0078, 0x003C000B

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
MESSAGE_ID, TIMESTAMP, TYPE, APP_ID = 0x0080, 0x0040, 0x0020, 0x0008

_HEAD = struct.Struct(">BHI")
_CONTENT = struct.Struct(">BHIHHQ")  # a content header frame up to its properties
_U64 = struct.Struct(">Q")
_ACK = struct.Struct(">BHIIQBB")
_NACK = struct.Struct(">BHIIQBB")
_QOS = struct.Struct(">BHIIIHBB")


def short(text: str) -> bytes:
    """A short string."""
    raw = text.encode()
    if len(raw) > SHORT_STRING_MAX_BYTES:
        raise InvalidMessage(f"{text[:40]!r}… is longer than AMQP's {SHORT_STRING_MAX_BYTES} bytes")
    return bytes((len(raw),)) + raw


cached_short = lru_cache(maxsize=1024)(short)


def table(headers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> bytes:
    """A field table with its length."""
    items = headers.items() if isinstance(headers, Mapping) else headers
    pieces = [cached_short(name) + value_bytes(value) for name, value in items]
    content = b"".join(pieces)
    return len(content).to_bytes(4, "big") + content


def value_bytes(value: Any) -> bytes:
    """One value of a field table, with its type."""
    if isinstance(value, str):
        raw = value.encode()
        return b"S" + len(raw).to_bytes(4, "big") + raw
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        if type(value) is int and -(2**31) <= value < 2**31:
            return b"I" + value.to_bytes(4, "big", signed=True)
        return b"l" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, bytes):
        return b"x" + len(value).to_bytes(4, "big") + value
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    if value is None:
        return b"V"
    if isinstance(value, dict):
        return b"F" + table(value)
    if isinstance(value, list | tuple):
        content = b"".join(map(value_bytes, value))
        return b"A" + len(content).to_bytes(4, "big") + content
    if isinstance(value, dt.datetime):
        return b"T" + _U64.pack(calendar.timegm(value.utctimetuple()))
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    raise InvalidMessage(f"a header of type {type(value).__name__}: AMQP cannot carry it")


def _decimal(value: decimal.Decimal) -> bytes:
    exponent = value.normalize().as_tuple().exponent
    scale = -exponent if isinstance(exponent, int) and exponent < 0 else 0
    return b"D" + struct.pack(">Bi", scale, int(value.scaleb(scale)))


# --------------------------------------------------------------------------------------------------------- reading
_SHORTS: Final = (
    ("content_type", CONTENT_TYPE), ("content_encoding", CONTENT_ENCODING), ("headers", HEADERS),
    ("delivery_mode", DELIVERY_MODE), ("priority", PRIORITY), ("correlation_id", CORRELATION_ID),
    ("reply_to", REPLY_TO), ("expiration", EXPIRATION), ("message_id", MESSAGE_ID), ("timestamp", TIMESTAMP),
    ("type", TYPE), ("user_id", 0x0010), ("app_id", APP_ID), ("cluster_id", 0x0004),
)  # fmt: skip
_FIXED: Final = {
    b: struct.Struct(f">{code}")
    for b, code in zip(b"bBUsuIiLlfd", ["b", "B", "h", "h", "H", "i", "I", "q", "q", "f", "d"], strict=True)
}


def read_properties(header: bytes) -> dict[str, Any]:
    """The properties in a content header's payload; those that are not there are left out."""
    flags, at = int.from_bytes(header[12:14], "big"), 14
    while header[at - 1] & 1:  # more flags than there are properties: skipped
        at += 2
    found: dict[str, Any] = {}
    for name, flag in _SHORTS:
        if not flags & flag:
            continue
        if name == "headers":
            found[name], at = read_table(header, at)
        elif name in ("delivery_mode", "priority"):
            found[name], at = header[at], at + 1
        elif name == "timestamp":
            found[name], at = int.from_bytes(header[at : at + 8], "big"), at + 8
        else:
            found[name], at = _read_short(header, at)
    return found


def _read_short(data: bytes, at: int) -> tuple[str | bytes, int]:
    end = at + 1 + data[at]
    return _decoded(data[at + 1 : end]), end


def _decoded(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def read_table(data: bytes, at: int) -> tuple[dict[str | bytes, Any], int]:
    """A field table and where it ends. What follows a type that nobody knows is left out."""
    end = at + 4 + int.from_bytes(data[at : at + 4], "big")
    at += 4
    found: dict[str | bytes, Any] = {}
    while at < end:
        name, at = _read_short(data, at)
        try:
            found[name], at = _read_value(data, at)
        except _UnknownType:
            break
    return found, end


class _UnknownType(ValueError):
    pass


def _read_value(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at]
    at += 1
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed.unpack_from(data, at)[0], at + fixed.size
    if kind in b"Sx":
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        raw = data[at + 4 : end]
        return (raw if kind == 120 else _decoded(raw)), end
    if kind == 116:  # t
        return data[at] != 0, at + 1
    if kind == 70:  # F
        return read_table(data, at)
    if kind == 65:  # A
        return _read_array(data, at)
    if kind == 84:  # T
        return _moment(int.from_bytes(data[at : at + 8], "big")), at + 8
    if kind == 68:  # D
        scale, value = data[at], int.from_bytes(data[at + 1 : at + 5], "big", signed=True)
        return decimal.Decimal(value).scaleb(-scale), at + 5
    if kind == 86:  # V
        return None, at
    raise _UnknownType(chr(kind))


def _read_array(data: bytes, at: int) -> tuple[list[Any], int]:
    end = at + 4 + int.from_bytes(data[at : at + 4], "big")
    at += 4
    found: list[Any] = []
    while at < end:
        try:
            value, at = _read_value(data, at)
        except _UnknownType:
            break
        found.append(value)
    return found, end


def _moment(seconds: int) -> dt.datetime | int:
    """A date, or the number where the calendar ends before it."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, OSError, ValueError):
        return seconds


# ---------------------------------------------------------------------------------------------------------- frames
def publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The basic.publish method frame."""
    payload = (
        b"\x00\x3c\x00\x28\x00\x00"
        + short(exchange)
        + short(routing_key)
        + (b"\x01" if mandatory else b"\x00")
    )
    return _HEAD.pack(FRAME_METHOD, channel, len(payload)) + payload + FRAME_END


def content(channel: int, properties: bytes, body: bytes, body_frame_max: int, out: list[bytes]) -> int:
    """Append the content header and the body frames to `out`; returns their size."""
    size = len(body)
    out.append(_CONTENT.pack(FRAME_HEADER, channel, 12 + len(properties), 60, 0, size))
    out.append(properties)
    if not size:
        out.append(FRAME_END)
        return 20 + len(properties)
    if size <= body_frame_max:
        out.append(FRAME_END + _HEAD.pack(FRAME_BODY, channel, size))
        out.append(body)
        out.append(FRAME_END)
        return 28 + len(properties) + size
    out.append(FRAME_END)
    for start in range(0, size, body_frame_max):
        chunk = body[start : start + body_frame_max]
        out.append(_HEAD.pack(FRAME_BODY, channel, len(chunk)))
        out.append(chunk)
        out.append(FRAME_END)
    return 20 + len(properties) + size


def ack(channel: int, tag: int, multiple: bool) -> bytes:
    return _ACK.pack(FRAME_METHOD, channel, 13, ACK, tag, 1 if multiple else 0, FRAME_END_BYTE)


def nack_requeue(channel: int, tag: int) -> bytes:
    return _NACK.pack(FRAME_METHOD, channel, 13, NACK, tag, 2, FRAME_END_BYTE)


def qos(channel: int, prefetch_count: int) -> bytes:
    return _QOS.pack(FRAME_METHOD, channel, 11, 0x003C000A, 0, prefetch_count, 0, FRAME_END_BYTE)
