"""What is sent, and what a send answers.

Rules
- `Message` is a plain slots class: making one is on the hot path (a frozen dataclass costs four times as much).
- `send` never changes a Message. Ids are made at send; the receipt has them.
- Body bytes are never wrapped; metadata goes into native fields of the broker.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from .address import Address, HeaderValue
from .errors import InvalidMessage, SendManyFailed, UnimqError

RESERVED_PREFIX = "unimq-"
PRIORITY_MAX = 9
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Message:
    """A message to send.

    `body`: bytes or None (a tombstone) go as they are; any other object is encoded by its content type.
    `ttl_s`, `delay_s`: seconds; `deliver_at`, `timestamp`: aware datetimes. Only `body` is needed.
    """

    __slots__ = (
        "body", "key", "headers", "subject", "content_type", "message_id", "correlation_id", "reply_to",
        "priority", "ttl_s", "delay_s", "deliver_at", "timestamp",
    )  # fmt: skip

    def __init__(
        self,
        body: Any = b"",
        *,
        key: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        subject: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: Address | str | None = None,
        priority: int | None = None,
        ttl_s: float | None = None,
        delay_s: float | None = None,
        deliver_at: dt.datetime | None = None,
        timestamp: dt.datetime | None = None,
    ) -> None:
        self.body = body
        self.key = key
        self.headers = headers
        self.subject = subject
        self.content_type = content_type
        self.message_id = message_id
        self.correlation_id = correlation_id
        self.reply_to = reply_to
        self.priority = priority
        self.ttl_s = ttl_s
        self.delay_s = delay_s
        self.deliver_at = deliver_at
        self.timestamp = timestamp

    def __repr__(self) -> str:
        said = [f"{len(self.body)} bytes" if isinstance(self.body, bytes) else type(self.body).__name__]
        said += [
            f"{name}={getattr(self, name)!r}"
            for name in self.__slots__[1:]
            if getattr(self, name) is not None
        ]
        return f"Message({', '.join(said)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def copy(self, **changes: Any) -> Message:
        """A copy with some fields changed."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields.update(changes)
        return Message(**fields)


PLAIN_FIELDS = ("key", "subject", "content_type", "message_id", "correlation_id")


def check(message: Message) -> None:
    """Raise `InvalidMessage` for what no broker carries. Called by the core before any I/O; on the hot path, so fields that
    are not set cost one comparison each."""
    for value in (
        message.key,
        message.subject,
        message.content_type,
        message.message_id,
        message.correlation_id,
    ):
        if value is not None and not isinstance(value, str):
            _check_strings(message)
    if message.headers:
        check_headers(message)
    if (
        message.reply_to is not None
        or message.priority is not None
        or message.ttl_s is not None
        or message.delay_s is not None
        or message.deliver_at is not None
        or message.timestamp is not None
    ):
        _check_rare(message)


def _check_strings(message: Message) -> None:
    for name in PLAIN_FIELDS:
        value = getattr(message, name)
        if value is not None and not isinstance(value, str):
            raise InvalidMessage(f"{name} must be a str, not {type(value).__name__}", message=message)


def _check_rare(message: Message) -> None:
    if message.reply_to is not None and not isinstance(message.reply_to, str | Address):
        raise InvalidMessage("reply_to must be an Address or a str", message=message)
    priority = message.priority
    if priority is not None and (type(priority) is not int or not 0 <= priority <= PRIORITY_MAX):
        raise InvalidMessage(
            f"priority must be an int, 0 to {PRIORITY_MAX}, not {priority!r}", message=message
        )
    for name in ("ttl_s", "delay_s"):
        value = getattr(message, name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12
        ):
            raise InvalidMessage(f"{name} must be seconds, 0 or more, not {value!r}", message=message)
    if message.delay_s is not None and message.deliver_at is not None:
        raise InvalidMessage("give delay_s or deliver_at, not both", message=message)
    for name in ("deliver_at", "timestamp"):
        value = getattr(message, name)
        if value is not None and (not isinstance(value, dt.datetime) or value.tzinfo is None):
            raise InvalidMessage(f"{name} must be an aware datetime, not {value!r}", message=message)


def check_headers(message: Message) -> None:
    for name, value in (message.headers or {}).items():
        if not isinstance(name, str) or not name:
            raise InvalidMessage(
                f"a header's name must be a str that is not empty, not {name!r}", message=message
            )
        if name.startswith((RESERVED_PREFIX, "unimq_")):
            raise InvalidMessage(
                f"header {name!r}: names that begin with unimq- are unimq's own; a forwarded message starts afresh",
                message=message,
            )
        if not isinstance(value, str | int | float | bool | bytes):
            raise InvalidMessage(
                f"header {name!r} is a {type(value).__name__}: str, int, float, bool or bytes can be carried",
                message=message,
            )
        if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
            raise InvalidMessage(f"header {name!r}: ints are 64 bits, {value} is not", message=message)


class Receipt:
    """What the broker confirmed: the id, the position where the broker tells one, the delay that was taken."""

    __slots__ = ("message_id", "position", "delay_s", "target")

    def __init__(self, message_id: str | None, position: Any = None, delay_s: float | None = None) -> None:
        self.message_id = message_id
        self.position = position
        self.delay_s = delay_s
        self.target: Address | None = None  # where it went, for `cancel`

    def __repr__(self) -> str:
        return (
            f"Receipt(message_id={self.message_id!r}, position={self.position!r}, delay_s={self.delay_s!r})"
        )


class SendReport:
    """The outcome of a `send_many`: `sent` counts confirmations, `errors` has the rest by index."""

    __slots__ = ("sent", "errors", "_receipts")

    def __init__(self, sent: int, errors: dict[int, UnimqError], receipts: Any) -> None:
        self.sent = sent
        self.errors = errors
        self._receipts = receipts

    @property
    def receipts(self) -> Sequence[Receipt | None]:
        """One per message, None where it failed. Made on demand: most callers never look."""
        if callable(self._receipts):
            self._receipts = self._receipts()
        return self._receipts  # type: ignore[no-any-return]

    def raise_for_errors(self) -> None:
        if self.errors:
            index, first = next(iter(self.errors.items()))
            raise SendManyFailed(
                f"{len(self.errors)} of {self.sent + len(self.errors)} messages failed; the first, {index}: {first}",
                errors=self.errors,
                retryable=all(error.retryable for error in self.errors.values()),
                may_have_been_sent=any(error.may_have_been_sent for error in self.errors.values()),
                cause=first,
            )

    def __repr__(self) -> str:
        return f"SendReport(sent={self.sent}, errors={self.errors!r})"
