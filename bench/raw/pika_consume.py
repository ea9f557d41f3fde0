"""Consuming with a prefetch and an ack per message, in the consumer's callback: the way pika's documentation shows.

Rules
- The clock runs between two messages in the middle of a full queue, so that opening a consumer is not measured.
- It stops when the broker has every ack: a `basic.qos` round trip behind the last one.
"""

from __future__ import annotations

from typing import Any

from bench.raw.pika_select import IoThread
from bench.session import BenchFailed, Stopwatch
from bench.stats import Run


def consume(
    url: str, queue: str, lead: int, count: int, *, prefetch: int, body_bytes: int, ack_every: int = 1
) -> Run:
    """`lead` messages before the clock starts, then `count`. `ack_every` > 1 acks that many with one `multiple`."""
    with IoThread(url) as io:
        job = _Consuming(io, queue, lead, count, prefetch, ack_every)
        io.run(job.start)
        run = job.run
    if run is None or job.size != (lead + count) * body_bytes:
        raise BenchFailed(f"{job.size} bytes came, not {(lead + count) * body_bytes}")
    return run


class _Consuming:
    def __init__(
        self, io: IoThread, queue: str, lead: int, count: int, prefetch: int, ack_every: int
    ) -> None:
        self._io = io
        self._queue = queue
        self._lead = lead
        self._count = count
        self._prefetch = prefetch
        self._ack_every = ack_every
        self._seen = 0
        self.size = 0
        self.watch = Stopwatch()
        self.run: Run | None = None

    def start(self) -> None:
        channel = self._io.channel

        def consume(_frame: Any) -> None:
            channel.basic_consume(
                self._queue, self._on_message if self._ack_every == 1 else self._on_message_of_many
            )

        channel.basic_qos(prefetch_count=self._prefetch, callback=consume)

    def _on_message(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self.size += len(body)
        channel.basic_ack(method.delivery_tag)
        self._seen += 1
        if self._seen == self._lead:
            self.watch.start()
        elif self._seen == self._lead + self._count:
            channel.basic_qos(prefetch_count=self._prefetch, callback=self._stop)

    def _on_message_of_many(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self.size += len(body)
        self._seen += 1
        if self._seen % self._ack_every == 0 or self._seen == self._lead + self._count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if self._seen == self._lead:
            self.watch.start()
        elif self._seen == self._lead + self._count:
            channel.basic_qos(prefetch_count=self._prefetch, callback=self._stop)

    def _stop(self, _frame: Any) -> None:
        self.run = self.watch.stop(self._count)
        self._io.done()
