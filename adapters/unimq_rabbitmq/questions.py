"""Blocking questions to an I/O thread: for opening links, topology and admin.

Rules
- Every question has a time-out, and fails at once when the channel or the connection it was asked on ends.
- The broker answers "not there" and "differs" by closing the channel: `Channels` opens a fresh one for the next question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from unimq.errors import ConnectionFailed

from .loop import Loop, Work


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

    @property
    def over(self) -> bool:
        return self._event.is_set()

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
