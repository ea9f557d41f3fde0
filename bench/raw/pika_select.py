"""pika.SelectConnection in a thread of its own: pika's documentation's fast way, both directions.

Rules
- All of pika is called on that thread; the one who asked waits on an event with a limit, and costs nothing meanwhile.
- What goes wrong on the thread (a channel closed, a message returned) ends the wait with that error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Self

import pika

from bench.session import BenchFailed

OPEN_LIMIT_S: Final = 10.0
RUN_LIMIT_S: Final = 120.0


class IoThread:
    """A connection with one channel. `call` runs work there; `wait` is for what `done` or `fail` ends."""

    def __init__(self, url: str) -> None:
        self.channel: Any = None
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._connection: Any = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=lambda _connection, error: self.fail(error),
            on_close_callback=self._closed,
        )
        self._thread = threading.Thread(target=self._connection.ioloop.start, name="twin", daemon=True)
        self._thread.start()
        try:
            self.wait(OPEN_LIMIT_S)
        except BaseException:
            self.close()
            raise

    def _opened(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_close_callback(lambda _channel, error: self.fail(error))
        self.done()

    def _closed(self, connection: Any, error: BaseException) -> None:
        self.fail(error)
        connection.ioloop.stop()

    def done(self) -> None:
        self._over.set()

    def fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._over.set()

    def wait(self, limit_s: float = RUN_LIMIT_S) -> None:
        if not self._over.wait(limit_s):
            raise BenchFailed(f"the twin did not end within {limit_s:g} s")
        self._over.clear()
        if self._error is not None:
            raise self._error

    def call(self, work: Callable[[], object]) -> None:
        self._connection.ioloop.add_callback_threadsafe(work)

    def run(self, work: Callable[[], object], limit_s: float = RUN_LIMIT_S) -> None:
        """`work` on the thread, and wait until something it started says `done`."""
        self.call(work)
        self.wait(limit_s)

    def close(self) -> None:
        def goodbye() -> None:
            if self._connection.is_open:
                self._connection.close()
            else:
                self._connection.ioloop.stop()

        if self._thread.is_alive():
            self.call(goodbye)
            self._thread.join(OPEN_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
