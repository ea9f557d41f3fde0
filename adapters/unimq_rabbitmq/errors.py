"""pika's errors and the broker's codes → ours. Pure, by name, so that pika need not be imported.

Rules
- The tables are read in order, the most derived class first: `Probable…Error` are subclasses of AMQPConnectionError, and
  whoever takes that one for "try again" tries a wrong password for ever.
- A channel's close is told apart by code, and code 406 by text.
- What was written and not confirmed when the connection died is an unknown outcome, never "not sent".
- What no table knows is counted (`unknown`) and comes back as `UnimqError(code="unknown")`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

from unimq.driver import Op
from unimq.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    InvalidMessage,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SendOutcomeUnknown,
    TopologyMismatch,
    UnimqError,
    Unroutable,
    Unsupported,
)

ADAPTER: Final = "rabbitmq"
CAUSE_DEPTH_MAX: Final = 8  # pika wraps the reason of a failed connect in the errors of its phases

unknown: Counter[str] = Counter()

# class name → (ours, retryable), most derived first
CONNECTION: Final[tuple[tuple[str, type[UnimqError], bool | None], ...]] = (
    ("ProbableAuthenticationError", AuthenticationFailed, None),
    ("AuthenticationError", AuthenticationFailed, None),
    ("ProbableAccessDeniedError", PermissionDenied, None),
    ("IncompatibleProtocolError", ConnectionFailed, False),
    ("ConnectionBlockedTimeout", ResourceExhausted, None),
    ("NoFreeChannels", ResourceExhausted, None),
    ("AMQPConnectionError", ConnectionFailed, None),
    ("AMQPConnectorException", ConnectionFailed, None),
    ("ChannelWrongStateError", ConnectionFailed, None),
    ("ChannelClosedByClient", ConnectionFailed, None),
    ("SSLCertVerificationError", ConnectionFailed, False),
    ("SSLEOFError", ConnectionFailed, None),
    ("SSLZeroReturnError", ConnectionFailed, None),
    ("SSLError", ConnectionFailed, False),
    ("OSError", ConnectionFailed, None),
)
# a connect that failed, pika's class and text → (ours, what it means, retryable): neither TLS nor pika says much by itself
CONNECTING: Final[tuple[tuple[str, re.Pattern[str], type[UnimqError], str, bool | None], ...]] = (
    (
        "",
        re.compile(r"ALERT_(UNKNOWN_CA|ACCESS_DENIED|(BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_\w+)"),
        AuthenticationFailed,
        "the broker refused our certificate",
        None,
    ),
    (
        "SSLError",
        re.compile(r"WRONG_VERSION"),
        ConnectionFailed,
        "the port does not speak TLS, or no AMQP",
        False,
    ),
    (
        "IncompatibleProtocolError",
        re.compile(r"StreamLostError.*SSL"),
        ConnectionFailed,
        "the broker ended the line when TLS was agreed: perhaps it wants a certificate, or another one",
        True,
    ),
    (
        "IncompatibleProtocolError",
        re.compile(r"StreamLostError"),
        ConnectionFailed,
        "the broker ended the line before AMQP began: perhaps its port speaks TLS (amqps://), or it refused our certificate",
        True,
    ),
)
CONTENT: Final = ("ShortStringTooLong", "UnsupportedAMQPFieldException", "UnicodeEncodeError")

# text in a 406 → (ours, code, retryable)
PRECONDITION: Final[tuple[tuple[re.Pattern[str], type[UnimqError], str | None, bool | None], ...]] = (
    (re.compile(r"delivery acknowledgement.*timed out", re.S), UnimqError, "consumer-timeout", True),
    (re.compile(r"unknown delivery tag"), UnimqError, "unknown-delivery-tag", True),
    (re.compile(r"message size .* larger"), MessageTooLarge, None, None),
    (re.compile(r"inequivalent arg"), TopologyMismatch, None, None),
    (re.compile(r"fast reply consumer"), UnimqError, "reply-consumer", True),
    (re.compile(r"invalid (expiration|arg|message)|invalid_arg"), InvalidMessage, None, None),
)
_DOWN: Final = re.compile(
    r"is down or inaccessible|process is stopped by supervisor|has crashed and failed to restart|due to timeout"
)
_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<arg>[^']+)' for (?P<kind>queue|exchange) '(?P<name>.*?)' in vhost '.*?':"
    r" received (?P<asked>none|the value '.*?' of type '\w+'|'.*?') but current is "
    r"(?P<there>none|the value '.*?' of type '\w+'|'.*')",
    re.S,
)
_NUMBERS: Final = frozenset(
    {"x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-delivery-limit"}
    | {
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-quorum-initial-group-size",
        "x-stream-max-segment-size-bytes",
    }
)
_VALUE: Final = re.compile(r"the value '(?P<value>.*)' of type '(?P<type>\w+)'", re.S)


def classify(error: BaseException, *, op: Op, handed_over: bool) -> UnimqError:
    if isinstance(error, UnimqError):
        return error
    error = root(error)
    if isinstance(error, UnimqError):
        return error
    known = {cls.__name__ for cls in type(error).__mro__}
    if "ChannelClosedByBroker" in known:
        return _channel(error, op, handed_over)
    if "ConnectionClosedByBroker" in known:
        return _closed(error, op, handed_over)
    if "ConsumerCancelled" in known:
        return NotFound(
            "the broker ended the consumer: its queue is gone; mq.declare(...) makes it again", **_of(error)
        )
    for name, ours, retryable in CONNECTION:
        if name in known:
            return _connection(error, ours, retryable, op, handed_over)
    if isinstance(error, ValueError) and "getpeername" in str(error):
        # pika asks a socket that was reset while it connected who its peer is; it has no error of its own for that. Opening
        # a link may connect too.
        return _connection(error, ConnectionFailed, None, op, handed_over)
    if known.intersection(CONTENT):
        return InvalidMessage(f"AMQP cannot carry it: {text_of(error)}", **_of(error))
    unknown[type(error).__name__] += 1
    return UnimqError(
        f"unknown: {type(error).__name__}: {text_of(error)}",
        code="unknown",
        may_have_been_sent=handed_over and op is Op.SEND,
        **_of(error),
    )


def root(error: BaseException) -> BaseException:
    """The reason inside pika's wrappers of a connect that failed."""
    for _ in range(CAUSE_DEPTH_MAX):
        inner: Any = getattr(error, "exception", None)
        if not isinstance(inner, BaseException):
            many = getattr(error, "exceptions", None)
            inner = many[-1] if isinstance(many, list | tuple) and many else None
        if (
            not isinstance(inner, BaseException)
            and type(error).__name__ == "AMQPConnectionError"
            and error.args
        ):
            inner = error.args[0]
        if not isinstance(inner, BaseException):
            return error
        error = inner
    return error


def text_of(error: BaseException) -> str:
    """pika's texts are often empty; then the class is what can be said."""
    text = getattr(error, "reply_text", None) or str(error) or type(error).__name__
    code = getattr(error, "reply_code", None)
    return f"{code} {text}" if code is not None else text


def _of(error: BaseException) -> dict[str, Any]:
    return {"adapter": ADAPTER, "cause": error}


def _connection(
    error: BaseException, ours: type[UnimqError], retryable: bool | None, op: Op, handed_over: bool
) -> UnimqError:
    text = text_of(error)
    if text.startswith("StreamLostError"):
        # pika guesses from the phase (login refused, another protocol); a broker that refuses says so with a close, a line
        # that breaks says nothing. What it can mean while connecting for the first time is in CONNECTING.
        ours, retryable = ConnectionFailed, None
    if op is Op.CONNECT:
        for name, pattern, kind, hint, again in CONNECTING:
            if name in (type(error).__name__, "") and pattern.search(text):
                return kind(f"{hint}: {text}", retryable=again, **_of(error))
    if ours is PermissionDenied and "not found" in text:
        return NotFound(f"the vhost is not there: {text}", **_of(error))
    if op is Op.SEND and handed_over and issubclass(ours, ConnectionFailed | ResourceExhausted):
        return SendOutcomeUnknown(f"the connection died before the confirmation came: {text}", **_of(error))
    return ours(_SAYS.get(ours, "") + text, retryable=retryable, **_of(error))


_SAYS: Final[dict[type[UnimqError], str]] = {
    AuthenticationFailed: "user, password or mechanism refused: ",
    PermissionDenied: "no access to the vhost: ",
    ConnectionFailed: "no connection: ",
}


def _closed(error: BaseException, op: Op, handed_over: bool) -> UnimqError:
    """The broker closed the connection."""
    code, text = getattr(error, "reply_code", 0), text_of(error)
    if code == 403:
        return (AuthenticationFailed if op is Op.CONNECT else PermissionDenied)(text, **_of(error))
    if op is Op.SEND and handed_over:
        return SendOutcomeUnknown(
            f"the broker closed the connection before the confirmation: {text}", **_of(error)
        )
    if code == 530:
        return NotFound(text, **_of(error)) if "not found" in text else PermissionDenied(text, **_of(error))
    if code == 540:
        return Unsupported(text, **_of(error))
    return ConnectionFailed(f"the broker closed the connection: {text}", **_of(error))


_RIGHTS: Final = {Op.DECLARE: "configure", Op.SEND: "write", Op.RECEIVE: "read", Op.OPEN: "read or write"}


def is_missing(error: BaseException) -> bool:
    return getattr(error, "reply_code", 0) == 404 and not is_down(error)


def is_down(error: BaseException) -> bool:
    """A 404 that means: later. The queue lies on a member of the cluster that is away, or its process is."""
    return getattr(error, "reply_code", 0) == 404 and _DOWN.search(text_of(error)) is not None


def _channel(error: BaseException, op: Op, handed_over: bool) -> UnimqError:
    """The broker closed one channel; the connection lives."""
    code, text = getattr(error, "reply_code", 0), text_of(error)
    of = _of(error)
    if is_down(error):
        return ConnectionFailed(f"the queue is there, and down: {text}", code="queue-down", **of)
    if code == 404:
        ours: type[UnimqError] = Unroutable if op is Op.SEND else NotFound
        return ours(
            f"{text}; mq.declare(...) makes it", may_have_been_sent=handed_over and op is Op.SEND, **of
        )
    if code == 403 and "token has expired" in text:
        return AuthenticationFailed(text, code="token-expired", retryable=True, **of)
    if code == 403:
        return PermissionDenied(f"needs the right to {_RIGHTS.get(op, 'access it')}: {text}", **of)
    if code == 405:
        return ResourceExhausted(f"in exclusive use by another connection: {text}", **of)
    if code in (311, 501):
        return MessageTooLarge(text, **of) if code == 311 else UnimqError(text, code="frame-error", **of)
    if code in (312, 313):
        return Unroutable(text, **of)
    if code == 540:
        return Unsupported(text, **of)
    if code == 406:
        for pattern, kind, word, retryable in PRECONDITION:
            if pattern.search(text):
                if kind is TopologyMismatch:
                    return mismatch(error)
                return kind(text, code=word, retryable=retryable, **of)
        return UnimqError(text, code="precondition-failed", **of)
    if op is Op.SEND and handed_over:
        return SendOutcomeUnknown(f"the channel closed before the confirmation: {text}", **of)
    unknown[f"channel {code}"] += 1
    return UnimqError(text, code="unknown", **of)


# ------------------------------------------------------------------------------------------------ inequivalent args
def mismatch(error: BaseException) -> TopologyMismatch:
    found = inequivalent(error)
    if found is None:
        return TopologyMismatch(text_of(error), **_of(error))
    kind, name, arg, there, asked = found
    return TopologyMismatch(
        f"the {kind} {name!r}: {arg} is {there!r}, asked for {asked!r}",
        differences={f"{name}: {arg}": (there, asked)},
        **_of(error),
    )


def inequivalent(error: BaseException) -> tuple[str, str, str, object, object] | None:
    """(kind, name, argument, there, asked) from the broker's text about a declare that does not fit."""
    found = _INEQUIVALENT.search(getattr(error, "reply_text", "") or "")
    if found is None:
        return None
    arg = found["arg"]
    return found["kind"], found["name"], arg, _value(found["there"], arg), _value(found["asked"], arg)


def _value(text: str, arg: str) -> object:
    if text == "none":
        return None
    found = _VALUE.fullmatch(text)
    if found is None:  # where both are there the broker leaves out the types
        plain = text.strip("'")
        if arg in _NUMBERS and plain.isdigit():
            return int(plain)
        return {"true": True, "false": False}.get(plain, plain)
    value, kind = found["value"], found["type"]
    if kind == "bool":
        return value == "true"
    return int(value) if kind != "longstr" and value.lstrip("-").isdigit() else value
