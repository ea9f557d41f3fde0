"""What a receiver hands out.

Rules
- The driver makes one per message, with its own subclass: `raw`, `body`, `tag`, `place` and `link` are set when it is
  made; everything else is read from `raw` on first use, once (`_read`), and never before: a consumer that looks only
  at the body pays for nothing else.
- Verbs are plain functions, the same in both worlds. They enqueue and raise only local errors: `AlreadySettled`,
  `LockLost`, `Unsupported`. They may be called from any thread.
- A delivery is bound to the link that brought it: after a reconnect or close its verbs raise `LockLost`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from .address import Address, HeaderValue, Queue, Subscription
from .codec import decode as decode_body
from .errors import UnimqError

if TYPE_CHECKING:
    from .codec import Codecs
    from .driver import Place, ReceiverLink

T = TypeVar("T")


class Metadata:
    """A message's fields as the driver read them. `headers` are the user's; `headers_raw` are all, duplicates kept.

    `attempts` are the tries made by earlier stages (`unimq-attempt`), `copies` the copies ever made
    (`unimq-copies`), `unimq` every header of ours by its canonical name (with dashes).
    """

    __slots__ = (
        "key", "subject", "headers", "headers_raw", "content_type", "message_id", "correlation_id", "reply_to",
        "priority", "timestamp", "expires_at", "position", "session_id", "delivery_count", "redelivered",
        "broker_message_id", "unimq",
    )  # fmt: skip

    def __init__(
        self,
        *,
        key: str | bytes | None = None,
        subject: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        headers_raw: Sequence[tuple[str, Any]] = (),
        content_type: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: Address | str | None = None,
        priority: int | None = None,
        timestamp: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        position: Any = None,
        session_id: str | None = None,
        delivery_count: int | None = None,
        redelivered: bool = False,
        broker_message_id: str | None = None,
        unimq: Mapping[str, Any] | None = None,
    ) -> None:
        self.key = key
        self.subject = subject
        self.headers = headers if headers is not None else {}
        self.headers_raw = headers_raw
        self.content_type = content_type
        self.message_id = message_id
        self.correlation_id = correlation_id
        self.reply_to = reply_to
        self.priority = priority
        self.timestamp = timestamp
        self.expires_at = expires_at
        self.position = position
        self.session_id = session_id
        self.delivery_count = delivery_count
        self.redelivered = redelivered
        self.broker_message_id = broker_message_id
        self.unimq = unimq if unimq is not None else {}

    @property
    def attempts(self) -> int:
        return _whole(self.unimq.get("unimq-attempt"))

    @property
    def copies(self) -> int:
        return _whole(self.unimq.get("unimq-copies"))


def _whole(value: Any) -> int:
    """A counter of ours from a header that anybody may have written: what is not a count is 0."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError):
        return 0


class NativeDeath:
    """What a broker wrote when it dead-lettered a message by itself, in our words (`unimq.retry.REASONS`)."""

    __slots__ = ("reason", "description", "attempts", "first_at", "at")

    def __init__(
        self,
        reason: str,
        description: str = "",
        attempts: int | None = None,
        first_at: dt.datetime | None = None,
        at: dt.datetime | None = None,
    ) -> None:
        self.reason = reason
        self.description = description
        self.attempts = attempts
        self.first_at = first_at
        self.at = at


class Settler(Protocol):
    """What a delivery's verbs call: the receiver's settlement desk (`_settlement.py`)."""

    source: Queue | Subscription
    codecs: Codecs

    def ack(self, delivery: Delivery) -> None: ...
    def release(self, delivery: Delivery) -> None: ...
    def retry(self, delivery: Delivery, delay_s: float) -> None: ...
    def dead_letter(self, delivery: Delivery, reason: str, description: str) -> None: ...
    def defer(self, delivery: Delivery) -> None: ...
    def renew_lock(self, delivery: Delivery) -> bool: ...
    def enter(self, delivery: Delivery) -> None: ...
    def leave(self, delivery: Delivery, error: BaseException | None) -> bool: ...


class Delivery:
    """A message in hand. See `Metadata` for the fields; `raw` is the client library's own object."""

    __slots__ = (
        "raw", "body", "tag", "place", "link", "locked_until", "lock_lost", "try_in_hand", "_owner", "_meta",
    )  # fmt: skip

    def __init__(
        self, raw: Any, body: bytes | None, tag: Any, place: Place | None, link: ReceiverLink
    ) -> None:
        self.raw = raw
        self.body = body
        self.tag = tag  # the driver's own handle for settling; unique and hashable within the link
        self.place = place  # where it lay; None = the source itself
        self.link = link
        self.locked_until: dt.datetime | None = None
        self.lock_lost = False
        self.try_in_hand = 1
        self._owner: Settler | None = None
        self._meta: Metadata | None = None

    # -- for drivers
    def _read(self) -> Metadata:
        """Decode `raw` into Metadata; pure, called at most once."""
        raise NotImplementedError

    def native_death(self) -> NativeDeath | None:
        """What the broker itself wrote when it dead-lettered this; None where it did not. Drivers override it."""
        return None

    @property
    def order_key(self) -> str | bytes | None:
        """What order is kept by; the worker gives one lane to each."""
        return self.key

    # -- fields
    @property
    def metadata(self) -> Metadata:
        meta = self._meta
        if meta is None:
            meta = self._meta = self._read()
        return meta

    @property
    def key(self) -> str | bytes | None:
        """`bytes` where a foreign producer's key is not UTF-8."""
        return self.metadata.key

    @property
    def subject(self) -> str | None:
        return self.metadata.subject

    @property
    def headers(self) -> Mapping[str, HeaderValue]:
        return self.metadata.headers

    @property
    def headers_raw(self) -> Sequence[tuple[str, Any]]:
        return self.metadata.headers_raw

    @property
    def content_type(self) -> str | None:
        return self.metadata.content_type

    @property
    def message_id(self) -> str | None:
        return self.metadata.message_id

    @property
    def correlation_id(self) -> str | None:
        return self.metadata.correlation_id

    @property
    def reply_to(self) -> Address | str | None:
        return self.metadata.reply_to

    @property
    def priority(self) -> int | None:
        return self.metadata.priority

    @property
    def timestamp(self) -> dt.datetime | None:
        return self.metadata.timestamp

    @property
    def expires_at(self) -> dt.datetime | None:
        return self.metadata.expires_at

    @property
    def position(self) -> Any:
        return self.metadata.position

    @property
    def session_id(self) -> str | None:
        return self.metadata.session_id

    @property
    def delivery_count(self) -> int | None:
        """How often the broker says it handed this out before; None where it does not count."""
        return self.metadata.delivery_count

    @property
    def redelivered(self) -> bool:
        return self.metadata.redelivered

    @property
    def attempt(self) -> int:
        """The number of this try over all stages: 1, 2, 3 …"""
        return self.metadata.attempts + self.try_in_hand

    @property
    def source(self) -> Queue | Subscription | None:
        """The address as it was opened."""
        return None if self._owner is None else self._owner.source

    @property
    def group(self) -> str | None:
        source = self.source
        return source.name if source is not None else None

    @overload
    def decode(self, kind: type[T]) -> T: ...
    @overload
    def decode(self, kind: Any = ...) -> Any: ...
    def decode(self, kind: Any = Any) -> Any:
        """The body as `kind`. `bytes` never fails, `str` needs UTF-8, anything else goes by content type (none =
        JSON). Raises `DecodeError`."""
        codecs = None if self._owner is None else self._owner.codecs
        return decode_body(self.body, kind, self.content_type, codecs)

    # -- verbs
    def _settler(self) -> Settler:
        if self._owner is None:
            raise UnimqError("this delivery belongs to no receiver: it was only looked at", code="not-held")
        return self._owner

    def ack(self) -> None:
        """Done with; the broker may forget it."""
        self._settler().ack(self)

    def release(self) -> None:
        """Back to the broker now, for anybody."""
        self._settler().release(self)

    def retry(self, delay_s: float = 0.0) -> None:
        """Come back after `delay_s`, counted; beyond the policy it goes to the dead letters as `exhausted`."""
        self._settler().retry(self, delay_s)

    def dead_letter(self, reason: str, description: str = "") -> None:
        """To the dead-letter place, with its reason."""
        self._settler().dead_letter(self, reason, description)

    def defer(self) -> None:
        """Set aside, to be received by number later."""
        self._settler().defer(self)

    def renew_lock(self) -> bool:
        """Prolong the lock. False where the broker has no locks."""
        return self._settler().renew_lock(self)

    def __enter__(self) -> Delivery:
        self._settler().enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # bool by behaviour: True only for an Exception that the policy took; typed False so that code after a
        # `with` whose body always returns is still seen as reachable only when it is
        return self._settler().leave(self, error)  # type: ignore[return-value]

    def __repr__(self) -> str:
        body = "None" if self.body is None else f"{len(self.body)} bytes"
        return f"<{type(self).__name__} {body} place={self.place} tag={self.tag!r}>"
