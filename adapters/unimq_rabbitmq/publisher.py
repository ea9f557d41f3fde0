"""What a sender link is made of: its route, a batch ready to be written, and its confirm channel with the books.

A channel opened while a quorum queue has no leader may refuse all it is given for as long as it lives (seen on 3.10, when a
member of the cluster had died). One that has taken nothing and refused for `REFUSED_ALL_S` is given up: the core opens another.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import pika.spec

from unimq.driver import Failed
from unimq.errors import ConnectionFailed, Rejected, ResourceExhausted, Unroutable

from . import errors
from .confirms import Ledger, Open

if TYPE_CHECKING:
    from .sender import RabbitSender

REFUSED_ALL_S: Final = 1.0
_log = logging.getLogger("unimq.rabbitmq")


class Route:
    """How a link publishes: exchange, routing key (None = the subject), mandatory, and whether the place delays."""

    __slots__ = ("exchange", "key", "mandatory", "waits", "text")

    def __init__(self, exchange: str, key: str | None, *, mandatory: bool, waits: bool, text: str) -> None:
        self.exchange = exchange
        self.key = key
        self.mandatory = mandatory
        self.waits = waits
        self.text = text


class Parcel:
    """An encoded batch: `parts` are (first index, count, frames)."""

    __slots__ = ("open", "parts", "deadline", "count", "native")

    def __init__(
        self,
        batch: Open,
        parts: list[tuple[int, int, list[bytes]]],
        deadline: float,
        count: int,
        native: list[tuple[str, bytes, bytes]],
    ) -> None:
        self.open = batch
        self.parts = parts
        self.deadline = deadline
        self.count = count
        self.native = native


def unroutable(where: str, method: Any) -> Unroutable:
    return Unroutable(
        f"nobody takes messages at {where}: {method.reply_code} {method.reply_text}; mq.declare(...) makes it",
        adapter=errors.ADAPTER,
    )


class Publisher:
    """A link's confirm channel with its books. I/O thread only."""

    def __init__(self, link: RabbitSender) -> None:
        self.link = link
        self.channel: Any = None
        self.number = 0
        self.finished: deque[Open] = deque()
        self.ledger = Ledger(self.finished.append)
        self._took = False  # a message, ever
        self._refusing_since: float | None = None

    # -- the frames of a channel (see loop.FastChannel)
    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        raise AssertionError("nothing is consumed on a sender's channel")

    def on_qos_ok(self) -> None:
        pass

    def on_confirm(self, tag: int, multiple: bool, ok: bool) -> None:
        if ok:
            self._took = True
        elif self._refusing_since is None:
            self._refusing_since = time.monotonic()
        self.link.finished_count += self.ledger.confirm(tag, multiple, None if ok else self._nacked)

    def after_read(self) -> None:
        self.link.complete()
        if self._refusing_since is not None:
            self._look_at_refusals(time.monotonic() - self._refusing_since)

    def _look_at_refusals(self, since_s: float) -> None:
        if self._took or self.link.limit() is not None or since_s < REFUSED_ALL_S or not self.ledger.idle:
            return
        self._refusing_since = None
        text = f"{self.link.route.text} has refused everything since its channel was opened"
        self.link.give_up(ConnectionFailed(text, adapter=errors.ADAPTER))

    def _nacked(self) -> Failed:
        text = f"{self.link.route.text} refused it (basic.nack)"
        if (limit := self.link.limit()) is not None:
            full = ResourceExhausted(f"{text}: the queue is full, {limit}", adapter=errors.ADAPTER)
            return Failed(full, handed_over=True)
        why = ": full with overflow reject-publish, or a queue without a quorum"
        return Failed(Rejected(text + why, retryable=True, adapter=errors.ADAPTER), handed_over=True)

    def on_pika_confirm(self, frame: Any) -> None:
        """Where pika reads the confirms."""
        method = frame.method
        self.on_confirm(method.delivery_tag, method.multiple, isinstance(method, pika.spec.Basic.Ack))
        self.after_read()

    def on_return(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        error = unroutable(self.link.route.text, method)
        if not self.ledger.returned(
            properties.message_id, method.routing_key, body, Failed(error, handed_over=True)
        ):
            _log.error("a returned message fits none that was sent to %s", self.link.route.text)
