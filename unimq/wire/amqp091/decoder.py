"""The incremental reader: bytes in any pieces → methods with their contents.

Rules
- `feed` yields `(channel, name, args)`. A method with content is yielded once, when its body is complete, with
  `(properties as raw bytes, body)` behind its arguments. `HEARTBEAT` and `PROTOCOL_HEADER` are yielded like methods.
- What precedes a malformed frame is yielded first; then `WireError` is raised, and the decoder is spent.
- It holds one unfinished frame, never larger than `frame_max`, and the contents under way, never more than
  ASSEMBLING_MAX_BYTES. Feeding costs what is fed: waiting for the rest of a frame copies nothing again.
- Contents are assembled only on channels in `channels`; a content on another is yielded at once, without one, for the
  session to refuse. Frames on a channel in `closing` are dropped, but for its close, close-ok and open.

A channel expects   and gets                      then
------------------  ----------------------------  -----------------------------------------------
method              method without content        yields it
method              method with content           expects header
header              header of class basic         expects body; yields when the size is 0
body                body                          yields when complete
any                 any other                     505
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from .errors import WireError, octets
from .limits import (
    ASSEMBLING_MAX_BYTES,
    FRAME_MIN_BYTES,
    FRAME_OVERHEAD_BYTES,
    MESSAGE_MAX_BYTES,
    ROUTING_CACHE_MAX,
    ROUTING_CACHED_MAX_BYTES,
)
from .methods import BY_NAME, BY_PREFIX, Method
from .spec import FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD

Event: TypeAlias = tuple[int, str, tuple[Any, ...]]

HEARTBEAT: Final = "heartbeat"
PROTOCOL_HEADER: Final = "protocol-header"
TOO_LARGE: Final = "content-too-large"  # args: size, limit. The content's frames are dropped.

_FRAME: Final = struct.Struct(">BHI")
_CONTENT: Final = struct.Struct(">BHIHHQ")  # a frame header and the fixed part of a content header
_CONTENT_HEADER: Final = struct.Struct(">HHQ")
_ACK: Final = struct.Struct(">QB")
_PROTOCOL_HEADER_BYTES: Final = 8
_FRAME_HEADER_BYTES: Final = 7
_PUBLISH: Final = BY_NAME["basic.publish"]
_ACK_PREFIX: Final = BY_NAME["basic.ack"].prefix
_BASIC: Final = 60
# RabbitMQ's words (rabbit_command_assembler)
_NO_METHOD: Final = "expected method frame, got non method frame instead"
_NO_HEADER: Final = "expected content header for class {}, got non content header frame instead"
_NO_BODY: Final = "expected content body, got non content body frame instead"
_WHILE_CLOSING: Final = frozenset(("channel.close", "channel.close-ok", "channel.open"))
_SHOWN_BYTES: Final = 16  # of a payload, in an error text


class _Assembly:
    """A content under way on one channel. `size` is None while its header is awaited."""

    __slots__ = ("args", "body", "method", "properties", "size", "taken")

    def __init__(self, method: Method, args: tuple[Any, ...]) -> None:
        self.method = method
        self.args = args
        self.size: int | None = None
        self.taken = 0
        self.properties = b""
        self.body: bytes | bytearray = b""  # the first piece as it came; joined in place from the second on


class Decoder:
    def __init__(self, *, expect_protocol_header: bool = True) -> None:
        self.frame_max = FRAME_MIN_BYTES  # the session changes it when it is agreed; 0: no bound
        self.message_max_bytes = MESSAGE_MAX_BYTES
        self.channels: set[int] = set()
        self.closing: set[int] = set()
        self.assembling_bytes = 0
        self._header = expect_protocol_header
        self._rest = bytearray()
        self._needed = 0
        self._assemblies: dict[int, _Assembly] = {}
        self._routings: dict[bytes, tuple[str, str, bool, bool]] = {}

    def forget_channel(self, channel: int) -> None:
        """What was under way on it is dropped."""
        there = self._assemblies.pop(channel, None)
        if there is not None:
            self.assembling_bytes -= there.taken

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest = bytearray()
        pos = 0
        size = len(data)
        if self._header:
            if size < _PROTOCOL_HEADER_BYTES:
                self._keep(data, 0, _PROTOCOL_HEADER_BYTES)
                return
            self._header = False
            pos = _PROTOCOL_HEADER_BYTES
            yield 0, PROTOCOL_HEADER, (data[:pos],)
        while size - pos >= _FRAME_HEADER_BYTES:
            kind, channel, length = _FRAME.unpack_from(data, pos)
            if self.frame_max and length > self.frame_max:
                limit = self.frame_max - FRAME_OVERHEAD_BYTES
                raise _frame_error(kind, channel, b"", f"{{frame_too_large,{length},{limit}}}")
            start = pos + _FRAME_HEADER_BYTES
            end = start + length
            if end >= size:
                self._keep(data, pos, end + 1 - pos)
                return
            if data[end] != FRAME_END:
                raise _frame_error(
                    kind, channel, data[start:end], f"{{invalid_frame_end_marker,{data[end]}}}"
                )
            pos = end + 1
            event: Event | None
            if kind == FRAME_METHOD:
                if channel in self.channels and channel not in self._assemblies:
                    prefix = data[start : start + 4]
                    if prefix == _ACK_PREFIX and length == 13:
                        tag, multiple = _ACK.unpack_from(data, start + 4)
                        yield channel, "basic.ack", (tag, multiple != 0)
                        continue
                    if prefix == _PUBLISH.prefix:
                        whole = self._whole_publish(data, start, end, channel, size)
                        if whole is not None:
                            pos, args = whole
                            yield channel, "basic.publish", args
                            continue
                event = self._method(channel, data, start, end)
            elif kind == FRAME_HEADER:
                event = self._content_header(channel, data, start, end)
            elif kind == FRAME_BODY:
                event = self._content_body(channel, data, start, end)
            elif kind == FRAME_HEARTBEAT:
                if length:
                    raise _frame_error(kind, channel, data[start:end], "unknown_frame")
                if channel:
                    raise WireError(505, f"type {kind}, all octets = <<>>", channel=channel)
                event = (channel, HEARTBEAT, ())
            else:
                raise _frame_error(kind, channel, data[start:end], "unknown_frame")
            if event is not None:
                yield event
        if pos < size:
            self._keep(data, pos, _FRAME_HEADER_BYTES)

    def _keep(self, data: bytes, pos: int, needed: int) -> None:
        """Wait until there are `needed` bytes from `pos` on."""
        self._rest = bytearray(data[pos:])
        self._needed = needed

    def _whole_publish(
        self, data: bytes, start: int, end: int, channel: int, size: int
    ) -> tuple[int, tuple[Any, ...]] | None:
        """basic.publish with header and body in one piece, the common case: where it ends, and the arguments."""
        routing = data[start + 4 : end]
        args = self._routings.get(routing)
        if args is None:
            args = _PUBLISH.decode(data, start + 4, end)
            if len(routing) <= ROUTING_CACHED_MAX_BYTES:
                if len(self._routings) >= ROUTING_CACHE_MAX:
                    self._routings.clear()
                self._routings[routing] = args
        at = end + 1
        if size - at < 19:
            return None
        kind, on, length, class_id, weight, body_bytes = _CONTENT.unpack_from(data, at)
        stop = at + _FRAME_HEADER_BYTES + length
        if (
            kind != FRAME_HEADER
            or on != channel
            or length < 14
            or stop >= size
            or class_id != _BASIC
            or weight
        ):
            return None
        if data[stop] != FRAME_END or (self.frame_max and length > self.frame_max):
            return None
        properties = data[at + 19 : stop]
        if not body_bytes:
            return stop + 1, (*args, properties, b"")
        at = stop + 1
        if size - at < _FRAME_HEADER_BYTES or body_bytes > self.message_max_bytes:
            return None
        kind, on, length = _FRAME.unpack_from(data, at)
        start = at + _FRAME_HEADER_BYTES
        stop = start + length
        if kind != FRAME_BODY or on != channel or length != body_bytes or stop >= size:
            return None
        if data[stop] != FRAME_END or (self.frame_max and length > self.frame_max):
            return None
        return stop + 1, (*args, properties, data[start:stop])

    def _method(self, channel: int, data: bytes, start: int, end: int) -> Event | None:
        method = BY_PREFIX.get(data[start : min(start + 4, end)])
        if channel in self.closing and (method is None or method.name not in _WHILE_CLOSING):
            return None
        there = self._assemblies.get(channel)
        if there is not None:
            text = _NO_HEADER.format(there.method.class_id) if there.size is None else _NO_BODY
            raise _unexpected(text, there.method, channel)
        if method is None:
            raise _unknown_method(channel, data[start:end])
        args = method.decode(data, start + 4, end)
        if not method.content:
            return channel, method.name, args
        if channel not in self.channels:
            return channel, method.name, (*args, b"", b"")
        self._assemblies[channel] = _Assembly(method, args)
        return None

    def _content_header(self, channel: int, data: bytes, start: int, end: int) -> Event | None:
        if channel in self.closing:
            return None
        there = self._assemblies.get(channel)
        if there is None:
            raise _unexpected(_NO_METHOD, None, channel)
        method = there.method
        if there.size is not None:
            raise _unexpected(_NO_BODY, method, channel)
        if end - start < _CONTENT_HEADER.size + 2:
            raise _frame_error(FRAME_HEADER, channel, data[start:end], "unknown_frame")
        class_id, weight, size = _CONTENT_HEADER.unpack_from(data, start)
        if class_id != method.class_id:
            raise _unexpected(
                f"expected content header for class {method.class_id}, got one for class {class_id} instead",
                method,
                channel,
            )
        if weight:
            raise _unexpected(_NO_HEADER.format(method.class_id), method, channel)
        there.properties = data[start + _CONTENT_HEADER.size : end]
        if size > self.message_max_bytes:
            self.forget_channel(channel)
            return channel, TOO_LARGE, (size, self.message_max_bytes)
        there.size = size
        return self._complete(channel, there) if size == 0 else None

    def _content_body(self, channel: int, data: bytes, start: int, end: int) -> Event | None:
        if channel in self.closing:
            return None
        there = self._assemblies.get(channel)
        if there is None:
            raise _unexpected(_NO_METHOD, None, channel)
        method = there.method
        if there.size is None:
            raise _unexpected(_NO_HEADER.format(method.class_id), method, channel)
        there.taken += end - start
        self.assembling_bytes += end - start
        if there.taken > there.size:
            raise _unexpected(_NO_BODY, method, channel)
        if self.assembling_bytes > ASSEMBLING_MAX_BYTES:
            raise WireError(506, f"contents under way hold more than {ASSEMBLING_MAX_BYTES} bytes")
        if not there.body:
            there.body = data[start:end]
        else:
            if isinstance(there.body, bytes):
                there.body = bytearray(there.body)
            there.body += data[start:end]
        return self._complete(channel, there) if there.taken == there.size else None

    def _complete(self, channel: int, there: _Assembly) -> Event:
        del self._assemblies[channel]
        self.assembling_bytes -= there.taken
        return channel, there.method.name, (*there.args, there.properties, bytes(there.body))


def _unexpected(text: str, method: Method | None, channel: int) -> WireError:
    ids = (0, 0) if method is None else (method.class_id, method.method_id)
    return WireError(505, text, channel=channel, class_id=ids[0], method_id=ids[1])


def _unknown_method(channel: int, payload: bytes) -> WireError:
    if len(payload) < 4:
        return _frame_error(FRAME_METHOD, channel, payload, "unknown_frame")
    class_id, method_id = struct.unpack_from(">HH", payload)
    text = f"unknown method {class_id}.{method_id}"
    return WireError(540, text, channel=channel, class_id=class_id, method_id=method_id)


def _frame_error(kind: int, channel: int, payload: bytes, what: str) -> WireError:
    shown = "all" if len(payload) <= _SHOWN_BYTES else f"first {_SHOWN_BYTES}"
    text = f"type {kind}, {shown} octets = {octets(payload[:_SHOWN_BYTES])}: {what}"
    return WireError(501, text, channel=channel)
