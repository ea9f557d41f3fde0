"""Direct reply-to: the requests go out on the very channel on which the replies come in, or the broker refuses them.

Rules
- One reply consumer per connection, on the publishing connection, without acks (the broker allows no others): what is in
  flight is bounded by the requests.
- A request without a reply consumer fails before it is written.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pika.spec

from unimq.driver import BatchResult, Done, Failed, ReceiverOptions, Sink
from unimq.errors import ConnectionFailed, Rejected, SendTimeout

from . import errors, wire
from .confirms import Ledger, Open
from .publisher import unroutable
from .reader import Raw
from .receiver import RabbitReceiver

if TYPE_CHECKING:
    from .connection import RabbitConnection
    from .loop import Loop

_NO_CONSUMER: Final = (
    "no reply consumer is open on this connection: open the receiver of the reply place first"
)


class Requests:
    """The publishing half of the reply channel. I/O thread only."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._channel: Any = None
        self._finished: deque[Open] = deque()
        self._ledger = Ledger(self._finished.append)
        self._texts: dict[str, str] = {}
        self._completing = False

    def attach(self, channel: Any) -> None:
        self._channel = channel
        self._ledger = Ledger(self._finished.append)
        channel.add_on_return_callback(self._on_return)

    def detach(self, error: BaseException) -> None:
        self._channel = None
        self._ledger.all_failed(Failed(error, handed_over=True))
        self.complete()

    def publish(
        self, what: tuple[str, str, bytes, bytes, str], deadline: float, done: Done[BatchResult]
    ) -> None:
        exchange, key, properties, body, text = what
        error: BaseException | None = None
        if self._loop.dead or self._channel is None or not self._channel.is_open:
            error = (
                self._loop.error
                if self._loop.dead
                else ConnectionFailed(_NO_CONSUMER, adapter=errors.ADAPTER)
            )
        elif deadline < time.monotonic():
            error = SendTimeout("the time was up before it was begun", adapter=errors.ADAPTER)
        if error is not None:
            done(BatchResult({0: Failed(error, handed_over=False)}))
            return
        decoded = pika.spec.BasicProperties().decode(properties)
        request = Open(
            1, done, lambda _i, message_id, k, b: message_id == decoded.message_id and k == key and b == body
        )
        self._texts[key] = text
        self._ledger.published(request, 0, 1)
        if self._loop.fast:
            number = self._channel.channel_number
            out = [wire.publish_method(number, exchange, key, True)]
            wire.content(number, properties, body, self._loop.body_frame_max, out)
            self._loop.write(b"".join(out))
        else:
            self._channel.basic_publish(exchange, key, body, decoded, mandatory=True)

    def confirm(self, tag: int, multiple: bool, ok: bool) -> None:
        refused = Failed(
            Rejected("the broker refused the request (basic.nack)", adapter=errors.ADAPTER), handed_over=True
        )
        self._ledger.confirm(tag, multiple, None if ok else lambda: refused)

    def _on_return(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        failed = Failed(
            unroutable(self._texts.get(method.routing_key, method.routing_key), method), handed_over=True
        )
        self._ledger.returned(properties.message_id, method.routing_key, body, failed)

    def complete(self) -> None:
        """Tell what is finished; not re-entrant."""
        if self._completing:
            return
        self._completing = True
        try:
            while self._finished:
                request = self._finished.popleft()
                request.done(request.result())
        finally:
            self._completing = False
        if self._ledger.idle:
            self._texts.clear()


class ReplyReceiver(RabbitReceiver):
    """The consumer of direct reply-to: its channel is also the one on which requests are published."""

    def __init__(
        self, connection: RabbitConnection, loop: Loop, queue: str, options: ReceiverOptions, sink: Sink
    ) -> None:
        super().__init__(connection, loop, queue, options, sink, steps=(self._confirms,), no_ack=True)
        self._requests = connection.requests

    def _confirms(self, channel: Any, done: Callable[[Any], None]) -> None:
        self._requests.attach(channel)
        channel.confirm_delivery(self._on_pika_confirm, callback=done)

    def _on_pika_confirm(self, frame: Any) -> None:
        method = frame.method
        self.on_confirm(method.delivery_tag, method.multiple, isinstance(method, pika.spec.Basic.Ack))
        self.after_read()

    def on_confirm(self, tag: int, multiple: bool, ok: bool) -> None:
        self._requests.confirm(tag, multiple, ok)

    def after_read(self) -> None:
        self._requests.complete()
        super().after_read()

    def _arrived(self, tag: int, raw: Raw, body: bytes) -> None:
        super()._arrived(tag, raw, body)
        self._held, self._held_bytes = 0, 0  # nothing is settled here: the requests in flight are the bound

    def _ended_channel(self, error: BaseException) -> None:
        self._requests.detach(error)
