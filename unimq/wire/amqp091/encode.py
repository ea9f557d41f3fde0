"""Whole frames, ready to be written.

Rules
- `method_frame` serves every method. Deliver and ack, which are made per message, have paths of their own.
- A body is cut so that no frame is larger than the `frame_max` that was agreed (0: no bound).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

from .limits import FRAME_OVERHEAD_BYTES
from .methods import BY_NAME
from .spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD

_FRAME: Final = struct.Struct(">BHI")
_HEADER: Final = struct.Struct(
    ">BHIHHQ"
)  # frame header and the fixed part of a content header of class basic
_HEADER_FIXED_BYTES: Final = 12
_BODY_AT: Final = struct.Struct(">cBHI")
_DELIVER_MIDDLE: Final = struct.Struct(">QB")
_ACK: Final = struct.Struct(">BHIHHQBB")
_BASIC: Final = 60
_END: Final = b"\xce"
_DELIVER_PREFIX: Final = BY_NAME["basic.deliver"].prefix


def method_frame(channel: int, name: str, *args: Any) -> bytes:
    payload = BY_NAME[name].encode(args)
    return _FRAME.pack(FRAME_METHOD, channel, len(payload)) + payload + _END


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    return _ACK.pack(FRAME_METHOD, channel, 13, _BASIC, 80, tag, multiple, 0xCE)


def nack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    return _ACK.pack(FRAME_METHOD, channel, 13, _BASIC, 120, tag, multiple, 0xCE)


def content_frames(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """What follows a method with content."""
    size = len(body)
    header = _HEADER.pack(FRAME_HEADER, channel, _HEADER_FIXED_BYTES + len(properties), _BASIC, 0, size)
    if not size:
        return header + properties + _END
    room = frame_max - FRAME_OVERHEAD_BYTES
    if frame_max == 0 or size <= room:
        return b"".join((header, properties, _BODY_AT.pack(_END, FRAME_BODY, channel, size), body, _END))
    parts = [header, properties, _END]
    for start in range(0, size, room):
        piece = body[start : start + room]
        parts += (_FRAME.pack(FRAME_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


@lru_cache(maxsize=1024)
def shortstr(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return bytes((len(raw),)) + raw


def deliver_frames(
    channel: int,
    consumer_tag: str,
    tag: int,
    redelivered: bool,
    exchange: str,
    routing_key: str,
    properties: bytes,
    body: bytes,
    frame_max: int,
) -> bytes:
    """basic.deliver and its content."""
    consumer, place, key = shortstr(consumer_tag), shortstr(exchange), shortstr(routing_key)
    length = 13 + len(consumer) + len(place) + len(key)
    size = len(body)
    if size and (frame_max == 0 or size <= frame_max - FRAME_OVERHEAD_BYTES):
        return b"".join(
            (
                _FRAME.pack(FRAME_METHOD, channel, length),
                _DELIVER_PREFIX,
                consumer,
                _DELIVER_MIDDLE.pack(tag, redelivered),
                place,
                key,
                _END,
                _HEADER.pack(FRAME_HEADER, channel, _HEADER_FIXED_BYTES + len(properties), _BASIC, 0, size),
                properties,
                _BODY_AT.pack(_END, FRAME_BODY, channel, size),
                body,
                _END,
            )
        )
    return b"".join(
        (
            _FRAME.pack(FRAME_METHOD, channel, length),
            _DELIVER_PREFIX,
            consumer,
            _DELIVER_MIDDLE.pack(tag, redelivered),
            place,
            key,
            _END,
            content_frames(channel, properties, body, frame_max),
        )
    )
