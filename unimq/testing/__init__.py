"""Testing with unimq: a delivery for a unit test, a clean slate, and the conformance suite for adapters.

Rules
- Importing this imports neither pytest nor a client library; the pytest fixtures are in `unimq.testing.plugin`.
- `delivery(...)` makes a real Delivery that belongs to no broker: its verbs are written down in `.settled`.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from ..address import Address, HeaderValue, Queue, Subscription
from ..codec import Codec, Codecs, encode
from ..delivery import Delivery, Metadata
from ..driver import ReceiverLink
from ..errors import AlreadySettled
from ..retry import DeadLetter, RetryLater
from .harness import Clock, Harness, Line

if TYPE_CHECKING:
    from .running import Outcomes, run

__all__ = ["Clock", "Harness", "Line", "Outcomes", "Settled", "TestDelivery", "delivery", "reset", "run"]


@dataclass(frozen=True)
class Settled:
    """What became of a delivery: `verb` is ack, release, retry, dead_letter or defer; the rest is what it was given."""

    verb: str
    delay_s: float = 0.0
    reason: str = ""
    description: str = ""
    error: BaseException | None = field(default=None, compare=False)


class TestDelivery(Delivery):
    """A Delivery whose verbs are written down in `settled` (None = not settled yet)."""

    __slots__ = ("settled", "locks_renewed", "_fields")
    __test__ = False  # pytest: not a test class

    def __init__(self, body: bytes | None, fields: Metadata, desk: _Desk) -> None:
        super().__init__(None, body, tag=0, place=None, link=cast(ReceiverLink, None))
        self.settled: Settled | None = None
        self.locks_renewed = 0
        self._fields = fields
        self._owner = desk

    def _read(self) -> Metadata:
        return self._fields


class _Desk:
    """The settler of deliveries that no broker knows."""

    def __init__(self, source: Queue | Subscription, codecs: Codecs) -> None:
        self.source = source
        self.codecs = codecs

    def _settle(self, delivery: Delivery, settled: Settled) -> None:
        mine = cast(TestDelivery, delivery)
        if mine.settled is not None:
            raise AlreadySettled(f"this delivery is settled already: {mine.settled.verb}")
        mine.settled = settled

    def ack(self, delivery: Delivery) -> None:
        self._settle(delivery, Settled("ack"))

    def release(self, delivery: Delivery) -> None:
        self._settle(delivery, Settled("release"))

    def retry(self, delivery: Delivery, delay_s: float) -> None:
        self._settle(delivery, Settled("retry", delay_s=delay_s))

    def dead_letter(self, delivery: Delivery, reason: str, description: str) -> None:
        self._settle(delivery, Settled("dead_letter", reason=reason, description=description))

    def defer(self, delivery: Delivery) -> None:
        self._settle(delivery, Settled("defer"))

    def renew_lock(self, delivery: Delivery) -> bool:
        cast(TestDelivery, delivery).locks_renewed += 1
        return True

    def enter(self, delivery: Delivery) -> None:
        if cast(TestDelivery, delivery).settled is not None:
            raise AlreadySettled("this delivery is settled already")

    def leave(self, delivery: Delivery, error: BaseException | None) -> bool:
        """As a receiver does it: ack on success; what a policy would take is written down as a retry."""
        if cast(TestDelivery, delivery).settled is not None:
            return False
        if error is None:
            self._settle(delivery, Settled("ack"))
        elif isinstance(error, DeadLetter):
            self._settle(delivery, Settled("dead_letter", 0.0, error.reason, error.description, error))
        elif isinstance(error, RetryLater):
            self._settle(delivery, Settled("retry", error.delay_s, error=error))
        elif isinstance(error, Exception):
            self._settle(delivery, Settled("retry", error=error))
        else:
            self._settle(delivery, Settled("release", error=error))
        return isinstance(error, Exception)


def delivery(
    body: Any = b"",
    *,
    source: Queue | Subscription | None = None,
    key: str | bytes | None = None,
    subject: str | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    content_type: str | None = None,
    message_id: str | None = "test-1",
    correlation_id: str | None = None,
    reply_to: Address | str | None = None,
    priority: int | None = None,
    timestamp: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    position: Any = None,
    session_id: str | None = None,
    delivery_count: int | None = None,
    redelivered: bool = False,
    attempt: int = 1,
    codecs: list[Codec] | None = None,
) -> TestDelivery:
    """A Delivery for calling a handler in a unit test. `body` is encoded as `send` would: `delivery({"id": 1})`."""
    book = Codecs(codecs or ())
    content, encoded_type = encode(body, content_type, book)
    fields = Metadata(
        key=key,
        subject=subject,
        headers=dict(headers or {}),
        headers_raw=list((headers or {}).items()),
        content_type=encoded_type,
        message_id=message_id,
        correlation_id=correlation_id,
        reply_to=reply_to,
        priority=priority,
        timestamp=timestamp,
        expires_at=expires_at,
        position=position,
        session_id=session_id,
        delivery_count=delivery_count,
        redelivered=redelivered,
        unimq={"unimq-attempt": attempt - 1} if attempt > 1 else None,
    )
    return TestDelivery(content, fields, _Desk(source or Queue("test"), book))


def reset(url: str | None = None) -> None:
    """Forget all in-process brokers (or the one at `url`): queues, messages, clocks. Clients of them are left dead.

    Goes to every adapter that is loaded and has a `reset`; what was never used has nothing to forget.
    """
    registry = sys.modules.get("unimq.registry")
    if registry is None:
        return
    loaded = [*registry._by_hand.values(), *registry._loaded.values()]
    for adapter in {id(each): each for each in loaded}.values():
        forget = getattr(adapter, "reset", None)
        if callable(forget):
            forget(url)


def __getattr__(name: str) -> Any:
    """`run` brings the whole worker with it: imported when it is asked for."""
    if name in ("run", "Outcomes"):
        from . import running

        return getattr(running, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
