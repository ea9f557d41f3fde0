"""Publishing with pipelined confirms: at most `WINDOW` messages without an outcome, refilled from the confirms' callback.

Rules
- The outcome of each message is known: a deque of tags in order, and a set of those confirmed out of order.
- No answer but an ack may come: a nack or a returned message fails the run.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import pika

from bench.raw.pika_select import IoThread
from bench.session import BenchFailed, Stopwatch
from bench.stats import Run

WINDOW: Final = 1_000
PERSISTENT: Final = 2
_PREFIX: Final = secrets.token_hex(8)
_numbers = itertools.count(1)


def publish(url: str, queue: str, body: bytes, count: int, headers: Mapping[str, Any] | None = None) -> Run:
    """`count` messages to `queue`, all confirmed; the clock starts when the channel is ready."""
    with IoThread(url) as io:
        job = _Publishing(io, queue, body, count, headers)
        io.run(job.prepare)
        io.run(job.start)
        return job.watch.stop(job.confirmed)


class _Publishing:
    def __init__(
        self, io: IoThread, queue: str, body: bytes, count: int, headers: Mapping[str, Any] | None
    ) -> None:
        self._io = io
        self._queue = queue
        self._body = body
        self._count = count
        self._headers = headers
        self._published = 0
        self._order: deque[int] = deque()
        self._early: set[int] = set()
        self.confirmed = 0
        self.watch = Stopwatch()

    def prepare(self) -> None:
        channel = self._io.channel
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._io.done())

    def start(self) -> None:
        self.watch.start()
        self._fill()

    def _fill(self) -> None:
        publish, queue, body, headers, order = (
            self._io.channel.basic_publish,
            self._queue,
            self._body,
            self._headers,
            self._order,
        )
        while self._published < self._count and self._published - self.confirmed < WINDOW:
            self._published += 1
            order.append(self._published)
            properties = pika.BasicProperties(
                delivery_mode=PERSISTENT, message_id=f"{_PREFIX}-{next(_numbers):x}", headers=headers
            )
            publish("", queue, body, properties, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        if type(method) is not pika.spec.Basic.Ack:
            self._io.fail(BenchFailed("the broker refused a message"))
            return
        tag, order, early = method.delivery_tag, self._order, self._early
        if method.multiple:
            while order and order[0] <= tag:
                one = order.popleft()
                if one in early:
                    early.discard(one)
                else:
                    self.confirmed += 1
        else:
            self.confirmed += 1
            if order[0] == tag:
                order.popleft()
            else:
                early.add(tag)
        while early and order[0] in early:
            early.discard(order.popleft())
        if self.confirmed == self._count:
            self._io.done()
        else:
            self._fill()

    def _on_return(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        self._io.fail(BenchFailed(f"a message came back: {method.reply_text}"))
