"""One I/O thread around one `pika.SelectConnection`.

Theory of operation
- pika is used by this thread alone. Work from other threads is appended to a deque; one `add_callback_threadsafe` wakes
  the thread while it is armed, so a thousand calls cost one wake-up.
- `FastConnection` reads deliveries and confirms itself (`wire.py`), hands every other frame to pika, and writes what it is
  given with one system call. Where pika's inside is not as expected (`FAST`), or `fast=False`, pika does it all.
- When the connection is gone (`dead`), work is still run, by whoever brings it: it finds `error` set and completes as failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import pika
import pika.exceptions
import pika.frame
import pika.spec

from unimq.errors import ConnectionFailed

from . import errors, wire

Work = Callable[[], None]

JOIN_MAX_S: Final = 2.0  # for the thread to end after its connection was aborted
CONNECT_GRACE_S: Final = 0.25  # pika's own time-outs come first; then ours
RECV_BYTES: Final = 65_536
_CLOSED: Final = pika.connection.Connection.CONNECTION_CLOSED
_log = logging.getLogger("unimq.rabbitmq")

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


class Loop:
    """See the module. `on_lost(loop, error)` is called once, on the I/O thread, for an open connection that ended."""

    def __init__(
        self,
        *,
        name: str,
        on_lost: Callable[[Loop, BaseException], None],
        on_blocked: Callable[[Loop, str | None], None],
        fast: bool = True,
    ) -> None:
        self.name = name
        self._on_lost = on_lost
        self._on_blocked = on_blocked
        self._work: deque[Work] = deque()
        self._armed = False
        self._running_dead = threading.Lock()
        self._opened = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.on_end: dict[
            object, Callable[[BaseException], None]
        ] = {}  # links, told when the loop ends without pika's word
        self.fast = fast and FAST
        self.connection: Any = None
        self.error: BaseException | None = None  # why it is dead
        self.dead = False
        self.blocked = False

    # -------------------------------------------------------------------------------------------------- opening
    def open(self, parameters: Any, timeout_s: float) -> None:
        """Blocks; raises what pika says, unwrapped, or `ConnectionFailed` when the peer stays silent."""
        self._thread = threading.Thread(target=self._run, args=(parameters,), name=self.name, daemon=True)
        self._thread.start()
        if not self._opened.wait(timeout_s + CONNECT_GRACE_S):
            self._abandon(
                ConnectionFailed(f"no answer within {timeout_s:g} s: the peer accepts and stays silent")
            )
        if self.error is not None:
            error = self.error
            self._join(JOIN_MAX_S)
            raise errors.root(error)

    def _run(self, parameters: Any) -> None:
        try:
            kind = FastConnection if self.fast else pika.SelectConnection
            self.connection = kind(
                parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_open_error,
                on_close_callback=self._on_close,
                custom_ioloop=pika.adapters.select_connection.IOLoop(),
            )
            self.connection.ioloop.start()
        except (
            Exception
        ) as error:  # the end of the thread: whatever it was, links and waiters must hear of it
            if self.error is None:
                _log.exception("%s ended", self.name)
                self.error = error
        finally:
            self._end()

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(
            lambda _c, frame: self._set_blocked(frame.method.reason or "blocked")
        )
        connection.add_on_connection_unblocked_callback(lambda _c, _f: self._set_blocked(None))
        self._opened.set()

    def _set_blocked(self, reason: str | None) -> None:
        self.blocked = reason is not None
        self._on_blocked(self, reason)

    def _on_open_error(self, connection: Any, error: BaseException) -> None:
        self.error = self.error or error
        connection.ioloop.stop()

    def _on_close(self, connection: Any, error: BaseException) -> None:
        self.error = self.error or error
        connection.ioloop.stop()

    def _end(self) -> None:
        """The last act of the thread."""
        opened = self._opened.is_set()
        if self.error is None:
            self.error = ConnectionFailed("the connection was abandoned")
        self._drop_socket()
        self.dead = True
        self._opened.set()
        for told in list(self.on_end.values()):
            told(self.error)
        self.on_end.clear()
        if opened and not self._closing:
            self._on_lost(self, self.error)
        self._run_dead()
        if self.connection is not None:
            try:
                self.connection.ioloop.close()
            except (
                Exception
            ):  # pika's own clean-up of an abandoned loop; there is nothing left that could be lost
                _log.debug("%s: closing the loop", self.name, exc_info=True)

    def _drop_socket(self) -> None:
        transport = getattr(self.connection, "_transport", None)
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            sock.close()

    # ------------------------------------------------------------------------------------------------------ work
    def call(self, work: Work) -> None:
        """Run `work` on the I/O thread, in order. Any thread; never blocks. `work` looks at `dead` itself."""
        self._work.append(work)
        if self.dead:
            self._run_dead()
        elif not self._armed:
            self._armed = True
            self.connection.ioloop.add_callback_threadsafe(self._drain)

    def _drain(self) -> None:
        self._armed = False
        work = self._work
        while work:
            work.popleft()()

    def _run_dead(self) -> None:
        """Work after the end, on any thread but on one at a time; a nested call leaves its work to the outer one."""
        while self._work and self._running_dead.acquire(blocking=False):
            try:
                while True:
                    try:
                        work = self._work.popleft()
                    except IndexError:
                        break
                    work()
            finally:
                self._running_dead.release()

    @property
    def here(self) -> bool:
        return threading.current_thread() is self._thread

    # -------------------------------------------------------------------------------------------------- writing
    def write(self, data: bytes) -> None:
        """Whole frames. I/O thread only."""
        if self.fast:
            self.connection.emit(data)
        else:
            self.connection._output_marshaled_frames([data])

    @property
    def body_frame_max(self) -> int:
        return int(getattr(self.connection, "_body_max_length", None) or 131_064)

    # -------------------------------------------------------------------------------------------------- closing
    def close(self, timeout_s: float) -> None:
        """Blocks. Says goodbye, and cuts the line when the peer does not answer in time. Idempotent."""
        self._closing = True
        if self._thread is None:
            return
        if not self.dead:
            self.call(self._goodbye)
            self._join(max(timeout_s, 0.0))
        if self._thread.is_alive():
            self._abandon(ConnectionFailed("closed"))
            self._join(JOIN_MAX_S)

    def _goodbye(self) -> None:
        if not self.dead and self.connection.is_open:
            self.connection.close()

    def cut(self, error: BaseException) -> None:
        """End it because of `error`, without a word. Any thread; never blocks."""
        self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        if self.dead:
            return
        self.error = self.error or error
        connection = self.connection
        if connection is not None:
            connection.ioloop.add_callback_threadsafe(connection.ioloop.stop)

    def _join(self, timeout_s: float) -> None:
        if self._thread is not None and not self.here:
            self._thread.join(timeout_s)


class Answer:
    """One blocking question to an I/O thread: `ask` starts it there, `wait` takes the answer or the error."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def set(self, value: Any = None) -> None:
        if not self._event.is_set():
            self._value = value
            self._event.set()

    def fail(self, error: BaseException) -> None:
        if not self._event.is_set():
            self._error = error
            self._event.set()

    def wait(self, timeout_s: float, what: str) -> Any:
        if not self._event.wait(max(timeout_s, 0.0)):
            raise ConnectionFailed(f"{what}: no answer within {timeout_s:.3g} s")
        if self._error is not None:
            raise self._error
        return self._value


class Channels:
    """Blocking channel operations for topology and admin: a throw-away channel, renewed after the broker closed one."""

    def __init__(self, loop: Loop, timeout_s: float) -> None:
        self._loop = loop
        self._deadline = time.monotonic() + timeout_s
        self._channel: Any = None
        self._answer: Answer | None = None
        loop.on_end[self] = self._on_end

    def _on_end(self, reason: BaseException) -> None:
        self._on_close(None, reason)

    def run(self, what: str, operation: Callable[[Any, Callable[[Any], None]], Any]) -> Any:
        """`operation(channel, done)` on the I/O thread; returns what `done` got. Raises the broker's own error."""
        answer = Answer()

        def start() -> None:
            if self._loop.dead:
                answer.fail(self._loop.error or ConnectionFailed("the connection is gone"))
                return
            self._answer = answer
            if self._channel is not None and self._channel.is_open:
                go(self._channel)
                return
            self._channel = self._loop.connection.channel(on_open_callback=go)
            self._channel.unimq_asks = True
            self._channel.add_on_close_callback(self._on_close)

        def go(channel: Any) -> None:
            try:
                operation(channel, answer.set)
            except Exception as error:  # a callback boundary: the caller waits for it in another thread
                answer.fail(error)

        self._loop.call(guarded(start, answer))
        return answer.wait(self._deadline - time.monotonic(), what)

    def _on_close(self, _channel: Any, reason: BaseException) -> None:
        self._channel = None
        if self._answer is not None:
            self._answer.fail(reason)

    def close(self) -> None:
        def end() -> None:
            self._loop.on_end.pop(self, None)
            if not self._loop.dead and self._channel is not None and self._channel.is_open:
                self._channel.close()

        self._loop.call(end)

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def guarded(work: Work, answer: Answer) -> Work:
    """`work`, whose exception goes to whoever waits instead of ending the I/O thread."""

    def run() -> None:
        try:
            work()
        except Exception as error:  # a callback boundary, see above
            answer.fail(error)

    return run
