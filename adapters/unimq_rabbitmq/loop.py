"""One I/O thread around one `pika.SelectConnection`.

Theory of operation
- pika is used by this thread alone. Work from other threads is appended to a deque; one `add_callback_threadsafe` wakes
  the thread while it is armed, so a thousand calls cost one wake-up.
- Hot frames are read and written by `reader.py`, or with `fast=False` by pika itself.
- When the connection is gone (`dead`), work is still run, by whoever brings it: it finds `error` set and completes as failed.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pika
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from unimq.errors import ConnectionFailed

from . import errors
from .reader import FAST, FastConnection

Work = Callable[[], None]

JOIN_MAX_S: Final = 2.0  # for the thread to end after its connection was aborted
CONNECT_GRACE_S: Final = 0.25  # pika's own time-outs come first; then ours
_log = logging.getLogger("unimq.rabbitmq")


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
        # links, told when the loop ends without pika's word
        self.on_end: dict[object, Callable[[BaseException], None]] = {}
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
                custom_ioloop=Services(IOLoop()),
            )
            self.connection.ioloop.start()
        # the end of the thread: whatever it was, links and waiters must hear of it
        except Exception as error:
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
            # pika's own clean-up of an abandoned loop; there is nothing left that could be lost
            except Exception:
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


class Services(SelectorIOServicesAdapter):  # type: ignore[misc]  # pika has no types for us
    """pika's I/O services, which start a thread for each look-up; an IP address needs none."""

    def getaddrinfo(
        self, host: str, port: int, on_done: Callable[[Any], None], *kind: Any, **kinds: Any
    ) -> Any:
        flags = kinds.get("flags", 0) | socket.AI_NUMERICHOST
        try:
            found = socket.getaddrinfo(
                host, port, kinds.get("family", 0), kinds.get("socktype", 0), kinds.get("proto", 0), flags
            )
        except socket.gaierror:
            return super().getaddrinfo(host, port, on_done, *kind, **kinds)
        return self.call_later(0, lambda: on_done(found))
