"""The few AMQP 0-9-1 frames of the hot path, as bytes: publish out, deliver and confirms in. Everything else is pika's.

Rules
- Pure: no socket, no pika object. What is written here is byte for byte what pika writes (a test compares them).
- A value is encoded as pika encodes it; a float, which pika cannot, as a double (only in copies of foreign messages).
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
_NO_ARGS: Final = b""


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
