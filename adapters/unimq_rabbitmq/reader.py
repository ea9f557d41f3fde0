"""pika's connection with our reader: deliveries, confirms and barriers are read here, every other frame is pika's.

Rules
- A channel's hot frames go to whoever is in `fast` for its number; signals follow once per read of the socket.
- What is given to `emit` is written with one system call where the socket takes it.
- It stands on names inside pika; where they are missing (`FAST` is False) pika reads and writes everything itself.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

import pika
import pika.frame
import pika.spec

from . import wire

RECV_BYTES: Final = 65_536
_CLOSED: Final = pika.connection.Connection.CONNECTION_CLOSED

# the names inside pika that the fast path stands on; with another pika everything still works, through pika alone
FAST: Final = all(
    hasattr(pika.connection.Connection, name)
    for name in ("_on_data_available", "_process_frame", "_adapter_emit_data", "_output_marshaled_frames")
) and hasattr(pika.SelectConnection, "_proto_connection_made")


class _OwnQuestions(logging.Filter):
    """pika warns of every channel that the broker closes; "not found" as the answer to a question of ours is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(getattr(argument, "unimq_asks", False) for argument in arguments)


logging.getLogger("pika.channel").addFilter(_OwnQuestions())


class FastChannel(Protocol):
    """Who takes a channel's hot frames."""

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None: ...
    def on_confirm(self, tag: int, multiple: bool, ok: bool) -> None: ...
    def on_qos_ok(self) -> None: ...
    def after_read(self) -> None: ...


class FastConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types for us
    """pika's connection with our reader. `fast` maps channel numbers to those who take their hot frames."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fast: dict[int, FastChannel] = {}
        self._open_content: dict[int, list[Any]] = {}
        self._frame_buffer: bytes
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:
        if hasattr(transport, "_MAX_RECV_BYTES"):
            transport._MAX_RECV_BYTES = RECV_BYTES
        super()._proto_connection_made(transport)

    def _on_data_available(self, data: bytes) -> None:
        if not self.fast:
            super()._on_data_available(data)
            return
        left = self._frame_buffer
        buffer = left + data if left else data
        self._frame_buffer = b""
        position, touched = self._frames(buffer)
        if self.connection_state != _CLOSED:
            self._frame_buffer = self._frame_buffer or buffer[position:]
        for channel in touched:
            channel.after_read()

    def _frames(self, buffer: bytes) -> tuple[int, set[FastChannel]]:
        """Read all whole frames; where the rest begins, and who got something."""
        position, end = 0, len(buffer)
        fast, contents = self.fast, self._open_content
        touched: set[FastChannel] = set()
        while end - position >= wire.FRAME_OVERHEAD:
            kind = buffer[position]
            number = (buffer[position + 1] << 8) | buffer[position + 2]
            start = position + 7
            stop = start + int.from_bytes(buffer[position + 3 : start], "big")
            if stop >= end and kind != 65:  # 65: the A of a protocol header, which has no size
                break
            taker = fast.get(number)
            if (
                taker is not None
                and kind <= wire.FRAME_BODY
                and buffer[stop] == wire.FRAME_END_BYTE
                and self._take(taker, kind, number, buffer, start, stop, contents, touched)
            ):
                self.bytes_received += stop + 1 - position
                self.frames_received += 1
                position = stop + 1
                continue
            consumed, frame = pika.frame.decode_frame(
                buffer[position : stop + 1] if kind != 65 else buffer[position:]
            )
            if frame is None:
                break
            position += consumed
            self.bytes_received += consumed
            self._process_frame(frame)
            if self.connection_state == _CLOSED:
                break
        return position, touched

    def _take(
        self,
        taker: FastChannel,
        kind: int,
        number: int,
        buffer: bytes,
        start: int,
        stop: int,
        contents: dict[int, list[Any]],
        touched: set[FastChannel],
    ) -> bool:
        """True when the frame was one of ours."""
        if kind == wire.FRAME_METHOD:
            method = int.from_bytes(buffer[start : start + 4], "big")
            if method == wire.DELIVER:
                contents[number] = [buffer[start:stop], b"", 0, 0, None]  # method, header, size, got, chunks
                return True
            if method in (wire.ACK, wire.NACK):
                tag = int.from_bytes(buffer[start + 4 : start + 12], "big")
                taker.on_confirm(tag, bool(buffer[start + 12] & 1), method == wire.ACK)
                touched.add(taker)
                return True
            if method == wire.QOS_OK:
                taker.on_qos_ok()
                touched.add(taker)
                return True
            return False
        content = contents.get(number)
        if content is None:
            return False  # the content of a basic.return or basic.get: pika's
        if kind == wire.FRAME_HEADER:
            content[1] = buffer[start:stop]
            content[2] = int.from_bytes(buffer[start + 4 : start + 12], "big")
            if content[2]:
                return True
            body = b""
        elif stop - start == content[2]:
            body = buffer[start:stop]
        else:
            content[4] = content[4] or []
            content[4].append(buffer[start:stop])
            content[3] += stop - start
            if content[3] < content[2]:
                return True
            body = b"".join(content[4])
        del contents[number]
        taker.on_deliver(content[0], content[1], body)
        touched.add(taker)
        return True

    def forget(self, number: int) -> None:
        self.fast.pop(number, None)
        self._open_content.pop(number, None)

    def emit(self, data: bytes) -> None:
        """Write whole frames: at once where the socket takes them, the rest as pika does."""
        self.bytes_sent += len(data)
        self.frames_sent += 1
        transport = self._transport
        if transport is None:
            return
        if (
            not getattr(transport, "_tx_buffers", True)
            and type(transport).__name__ == "_AsyncPlaintextTransport"
        ):
            try:
                sent = transport._sock.send(data)
            except OSError:
                sent = 0  # full, or broken: pika's own write finds out which and says so in its way
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)


class Raw:
    """A delivery as pika has it: `method` (Basic.Deliver) and `properties` (BasicProperties), decoded on first use."""

    __slots__ = ("_method_bytes", "_header_bytes", "_method", "_properties")

    def __init__(
        self, method: bytes = b"", header: bytes = b"", decoded: tuple[Any, Any] = (None, None)
    ) -> None:
        self._method_bytes = method
        self._header_bytes = header
        self._method, self._properties = decoded

    @property
    def method(self) -> Any:
        if self._method is None:
            self._method = pika.spec.Basic.Deliver().decode(self._method_bytes, 4)
        return self._method

    @property
    def properties(self) -> Any:
        if self._properties is None:
            self._properties = pika.spec.BasicProperties(**wire.read_properties(self._header_bytes))
        return self._properties
