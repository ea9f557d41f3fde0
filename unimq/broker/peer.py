"""One connection: `sessions.line.Line` towards its session, asyncio's protocol towards the loop.

Rules
- One read is one turn: the session carries it out, then the broker writes what there is to say, once.
- While the peer does not take what was written, nothing is delivered to it and nothing is read from it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .limits import CONNECTIONS_MAX, OUTPUT_HIGH_BYTES, OUTPUT_LOW_BYTES, OUTPUT_MAX_BYTES

if TYPE_CHECKING:
    from .server import Broker
    from .sessions.line import Session

_log = logging.getLogger("unimq.broker")


class Peer(asyncio.Protocol):
    def __init__(self, broker: Broker, make: Callable[[Peer], Session]) -> None:
        self._broker = broker
        self._make = make
        self.session: Any = None  # a Session while the line is up
        self._transport: asyncio.Transport
        self._timers: set[asyncio.TimerHandle] = set()
        self._paused: set[str] = set()  # reasons for not reading
        self._turn_coming = False
        self.writable = True
        self.peer = ""
        self.certificate_name: str | None = None

    # ------------------------------------------------------------------------------------------------ asyncio's
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        broker = self._broker
        if broker.ended or len(broker.peers) >= CONNECTIONS_MAX:
            transport.abort()
            return
        transport.set_write_buffer_limits(OUTPUT_HIGH_BYTES, OUTPUT_LOW_BYTES)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if address else "?"
        self.certificate_name = _common_name(transport)
        broker.peers.add(self)
        self.session = self._make(self)

    def data_received(self, data: bytes) -> None:
        session = self.session
        if session is None:
            return
        session.receive(data)
        self._broker.touched[self] = None
        self._broker.end_turn()

    def eof_received(self) -> bool:
        return False  # the transport closes; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget()

    def forget(self) -> None:
        """The session ends here, whatever becomes of the line. Idempotent."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        broker = self._broker
        broker.peers.discard(self)
        broker.touched.pop(self, None)
        session, self.session = self.session, None
        if session is not None:
            session.lost()
            broker.end_turn()

    def pause_writing(self) -> None:
        self.writable = False
        self.pause_reading("output")

    def resume_writing(self) -> None:
        self.writable = True
        self.resume_reading("output")
        if self.session is not None:
            self.session.writable_again()
            self._broker.end_turn()

    # --------------------------------------------------------------------------------------------- the session's
    def flush_soon(self) -> None:
        self._broker.touched[self] = None
        self._broker.end_turn_soon()

    def write_out(self) -> None:
        session = self.session
        if session is None:
            return
        session.flushing()
        out = session.out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > OUTPUT_MAX_BYTES:
            _log.warning("%s does not read: cut with more than %d bytes waiting", self.peer, OUTPUT_MAX_BYTES)
            self.cut()
        elif session.wants_turn and self.writable and not self._turn_coming:
            self._turn_coming = True
            self._broker.loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_coming = False
        if self.session is not None and self.writable:
            self.session.writable_again()
            self._broker.touched[self] = None
            self._broker.end_turn()

    def close(self) -> None:
        if self._broker.committed():
            self.write_out()
        self._transport.close()

    def cut(self) -> None:
        self._transport.abort()

    @property
    def reading(self) -> bool:
        return not self._paused

    def waiting_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def pause_reading(self, reason: str) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused.add(reason)

    def resume_reading(self, reason: str) -> None:
        if reason not in self._paused:
            return
        self._paused.remove(reason)
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            self._timers.discard(timer)
            call()
            self._broker.end_turn()

        def stop() -> None:
            self._timers.discard(timer)
            timer.cancel()

        timer = self._broker.loop.call_later(seconds, run)
        self._timers.add(timer)
        return stop

    def now(self) -> float:
        return time.monotonic()


def _common_name(transport: asyncio.Transport) -> str | None:
    """Of a client certificate that the TLS layer has verified."""
    certificate = transport.get_extra_info("peercert")
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return None
