"""stomp.py's transport made safe: its receiver loop, framing and parser; connecting, writing and closing are ours.

What is kept of stomp.py is what it does well: one receiver thread, and frames from bytes. What is replaced, and why:
- `sendall` in the caller's thread blocks for ever on a full socket, under a lock that its heart-beat thread waits for:
  the time-out it should find is never found. Here a write never blocks: what the socket does not take at once waits in
  an outbox that the receiver thread empties. So there is one thread a connection, and no other.
- Over TLS it never notices the end of the stream (it reads b"" for ever, at full speed), takes no SSLContext, and its
  send queue blocks after some hundred frames, in a callback for ever. Here TLS goes the same way as plain text.
- A callback that raises kills the connection, silently. Here frames go to one function, and its error is logged.
- Its import looks up the host's own name (seconds without DNS), for a feature that is not used here: skipped.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .errors import PeerSilent


def _import_stomp() -> Any:
    said = os.environ.get("STOMP_SKIP_HOSTNAME_SCAN")
    os.environ["STOMP_SKIP_HOSTNAME_SCAN"] = "1"
    try:
        import stomp.transport
    finally:
        if said is None:
            del os.environ["STOMP_SKIP_HOSTNAME_SCAN"]
        else:
            os.environ["STOMP_SKIP_HOSTNAME_SCAN"] = said
    return stomp.transport.Transport


_StompTransport: Any = _import_stomp()
_log = logging.getLogger("unimq.activemq")

TICK_S: Final = 0.25
SILENT_FACTOR: Final = 2.0  # a peer is given up after so many of its heart-beat intervals
BEAT_FACTOR: Final = 0.5  # ours go out well before the interval is over
OUTBOX_MAX_BYTES: Final = 1024 * 1024  # beyond this a link accepts no more; one frame may exceed it
_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Written:
    """How far the frames of one write came: `ends` are offsets in the connection's stream, None = all are out."""

    __slots__ = ("begun", "ends")

    def __init__(self) -> None:
        self.begun = False
        self.ends: list[int] | None = None


class Transport(_StompTransport):  # type: ignore[misc]  # stomp.py says nothing of its types
    """One socket. `on_frame` and `on_tick` run on the receiver thread, `on_closed` there once, last."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        name: str,
        on_frame: Callable[[Any], None],
        on_tick: Callable[[], None],
        on_closed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(
            [(host, port)],
            prefer_localhost=False,
            try_loopback_connect=False,
            reconnect_attempts_max=1,
            auto_decode=False,
            recv_bytes=65_536,
        )
        self.socket: Any = None
        self._host, self._port, self._tls, self._name = host, port, tls, name
        self._on_frame, self._on_tick, self._on_closed = on_frame, on_tick, on_closed
        self._timeout_s = 10.0
        self._lock = threading.Lock()
        self._outbox: deque[memoryview] = deque()
        self.backlog = 0
        self.queued = 0  # offsets of the stream: given to us, taken by the socket
        self.taken = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._gone = False
        self._error: BaseException | None = None
        self._reported = False
        self._thread: threading.Thread | None = None
        self.last_read = self.last_write = time.monotonic()
        self.beat_out_s = self.beat_in_s = 0.0
        self._waker, self._wakee = socket.socketpair()
        self._waker.setblocking(False)
        self._wakee.setblocking(False)
        self.override_threading(self._start_thread)

    # ------------------------------------------------------------------------------------------- connecting
    def open(self, timeout_s: float) -> None:
        """Connects and starts the receiver thread. Raises what the socket raised."""
        self._timeout_s = timeout_s
        try:
            self.start()
        except BaseException:
            self._waker.close()
            self._wakee.close()
            raise

    def attempt_connection(self) -> None:
        raw = socket.create_connection((self._host, self._port), self._timeout_s)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = raw if self._tls is None else self._tls.wrap_socket(raw, server_hostname=self._host)
            self.socket.setblocking(False)
        except BaseException:
            raw.close()
            self.socket = None
            raise
        self.current_host_and_port = (self._host, self._port)
        self.blocking = False  # stomp.py's loop then asks `sel` instead of a blocking recv
        self.sel = self
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.socket, selectors.EVENT_READ)
        self._selector.register(self._wakee, selectors.EVENT_READ)
        self._watching = selectors.EVENT_READ

    def _start_thread(self, loop: Callable[[], None]) -> threading.Thread:
        self._thread = threading.Thread(target=loop, name=f"unimq-activemq-{self._name}", daemon=True)
        self._thread.start()
        return self._thread

    # ---------------------------------------------------------------------------------------------- writing
    def write(self, data: bytes, written: Written | None = None, sizes: list[int] | None = None) -> None:
        """Never blocks; any thread. Nothing happens on a transport that is gone: `on_closed` tells."""
        left = False
        with self._lock:
            if self._gone:
                return
            start = self.queued
            self.queued += len(data)
            if written is not None:
                written.begun = True
            view = memoryview(data)
            if not self._outbox:
                view = view[self._send(view) :]
            if view:
                left = True
                self._outbox.append(view)
                self.backlog += len(view)
                if written is not None and sizes is not None:
                    written.ends = ends = []
                    for size in sizes:
                        start += size
                        ends.append(start)
        if left:
            self._wake()

    def reached(self, written: Written, position: int) -> bool:
        """Whether the whole frame at `position` of a write went to the socket: what was cut is no frame."""
        return written.begun and (written.ends is None or written.ends[position] <= self.taken)

    def _send(self, view: memoryview) -> int:
        try:
            sent: int = self.socket.send(view)
        except _WOULD_BLOCK:
            return 0
        except OSError as error:
            self._error = self._error or error
            self.running = False  # the receiver thread ends and reports
            self._wake()
            return 0
        self.taken += sent
        self.last_write = time.monotonic()
        return sent

    def _drain(self) -> None:
        with self._lock:
            while self._outbox and not self._gone:
                view = self._outbox[0]
                sent = self._send(view)
                self.backlog -= sent
                if sent < len(view):
                    self._outbox[0] = view[sent:]
                    break
                self._outbox.popleft()

    def call_soon(self, call: Callable[[], None]) -> None:
        """`call` on the receiver thread, soon; in this one when that has ended."""
        self._calls.append(call)
        if self._reported:
            self._run_calls()
        else:
            self._wake()

    def _run_calls(self) -> None:
        while self._calls:
            try:
                call = self._calls.popleft()
            except IndexError:  # another thread took the last
                return
            call()

    def _wake(self) -> None:
        try:
            self._waker.send(b"w")
        except (BlockingIOError, OSError):  # full: it is awake already; closed: nobody is there to wake
            return

    # ---------------------------------------------------------------------------------- stomp.py's loop calls
    def select(self) -> list[tuple[selectors.SelectorKey, int]]:
        """In place of a selector: writes and time are dealt with here; the loop hears of what can be read."""
        want = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
        if want != self._watching:
            self._selector.modify(self.socket, want)
            self._watching = want
        readable: list[tuple[selectors.SelectorKey, int]] = []
        for key, mask in self._selector.select(TICK_S):
            if key.fileobj is self._wakee:
                self._wakee.recv(4096)
                continue
            if mask & selectors.EVENT_WRITE:
                self._drain()
            if mask & selectors.EVENT_READ:
                readable.append((key, selectors.EVENT_READ))
        self._guarded(self._run_calls)
        self._beat()
        self._guarded(self._on_tick)
        return readable if self.running else []

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        # the boundary to our own callbacks: stomp.py would drop the connection without a word
        except Exception:
            _log.exception("a callback of the %s connection failed", self._name)

    def _beat(self) -> None:
        now = time.monotonic()
        if self.beat_in_s and now - self.last_read > self.beat_in_s * SILENT_FACTOR:
            self.kill(PeerSilent(f"no heart-beat from the broker for {now - self.last_read:.0f} s"))
        elif self.beat_out_s and now - self.last_write > self.beat_out_s * BEAT_FACTOR and not self._outbox:
            self.write(b"\n")

    def receive(self) -> bytes:
        try:
            if self._tls is None:
                data: bytes = self.socket.recv(65_536)
            else:
                with self._lock:  # an SSL object is for one thread at a time
                    data = self.socket.recv(65_536)
        except _WOULD_BLOCK as error:
            raise ssl.SSLWantReadError() from error  # what the loop takes for "nothing yet"
        except OSError as error:
            self._error = self._error or error
            self.running = False
            raise
        if not data:
            self._error = self._error or ConnectionResetError("the broker closed the connection")
            self.running = False
        self.last_read = time.monotonic()
        return data

    def process_frame(self, frame: Any, raw: bytes) -> None:
        try:
            self._on_frame(frame)
        except Exception:  # see `_guarded`
            _log.exception("a frame on the %s connection could not be handled", self._name)

    def notify(self, kind: str, frame: Any = None) -> None:
        if kind == "receiver_loop_completed":
            self._end()

    def cleanup(self) -> None:
        """The loop is over, for whatever reason."""
        self.running = False
        with self._lock:
            self._gone = True
            sock, self.socket = self.socket, None
        if sock is not None:
            self._selector.close()
            sock.close()

    def disconnect_socket(self) -> None:
        self.kill(None)

    def shutdown_queue(self) -> None:
        """There is no queue of stomp.py's."""

    def _end(self) -> None:
        self.cleanup()
        error = self._error or ConnectionResetError("the connection ended")
        self._guarded(lambda: self._on_closed(error))
        self._reported = True
        self._guarded(self._run_calls)
        self._waker.close()
        self._wakee.close()

    # ---------------------------------------------------------------------------------------------- closing
    def kill(self, error: BaseException | None) -> None:
        """Ends it at once, any thread; never blocks."""
        self._error = self._error or error
        self.running = False
        self._wake()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
