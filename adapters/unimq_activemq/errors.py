"""What went wrong, in this driver's words, and the table that makes unimq's errors of it.

Rules
- STOMP has no error codes: an ERROR frame is text. The texts below are matched because there is nothing else; each
  names the broker it is from. A text that is not known is `UnimqError(code="unknown")`, with the text.
- `handed_over` decides between "it never left" and "it may be there", never the text.
- No error of ours contains the CONNECT frame or a password; the brokers' texts name the user only.
"""

from __future__ import annotations

import ssl

from unimq.driver import Fault, Op
from unimq.errors import (
    AuthenticationFailed,
    Closed,
    ConnectionFailed,
    InvalidMessage,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    Rejected,
    ResourceExhausted,
    SendOutcomeUnknown,
    SendTimeout,
    UnimqError,
    Unsupported,
)  # fmt: skip

ADAPTER = "activemq"
ERROR_TEXT_MAX_CHARS = 500


class StompError(Exception):
    """An ERROR frame."""

    def __init__(self, text: str, *, connecting: bool = False) -> None:
        super().__init__(text[:ERROR_TEXT_MAX_CHARS])
        self.connecting = connecting


class PeerSilent(ConnectionError):
    """Nothing came from the broker for longer than its heart-beats allow, or no answer within a bound."""


class NoReceipt(Exception):
    """A frame was written and its receipt did not come before the deadline."""


class DeadlinePassed(Exception):
    """The deadline was over before the message was begun."""


class NotActiveMQ(Exception):
    """CONNECTED, but the `server` header names another broker."""


# text (lower case) → class. Classic: messages of its SecurityException, ProtocolException, ResourceAllocationException.
# Artemis: AMQ numbers of its message bundle, stable over versions; "Security Error" is its StompConnection's own.
_TEXTS: tuple[tuple[str, type[UnimqError]], ...] = (
    ("password is invalid", AuthenticationFailed),  # Classic: "User name [x] or password is invalid."
    ("unable to validate user", AuthenticationFailed),  # Artemis AMQ229031
    ("security error occurred", AuthenticationFailed),  # Artemis, refused at CONNECT
    ("does not have permission", PermissionDenied),  # Artemis AMQ229032, AMQ229213
    ("not authorized", PermissionDenied),  # Classic: "User x is not authorized to write to: …"
    ("maximum frame size", MessageTooLarge),  # Classic
    ("maxdatalength", MessageTooLarge),  # Classic: "The maximum data length was exceeded"
    ("maximum data length", MessageTooLarge),  # Classic
    ("usage manager memory limit reached", ResourceExhausted),  # Classic, sendFailIfNoSpace
    ("usagemanager", ResourceExhausted),  # Classic
    ("is full", ResourceExhausted),  # Artemis AMQ229102 "Address x is full"
    ("address does not exist", NotFound),  # Artemis AMQ339016, auto-create off
    ("queue does not exist", NotFound),  # Artemis AMQ229017, auto-create off
    ("amq339016", NotFound),
    ("amq229017", NotFound),
)


def _of_text(error: StompError, op: Op) -> UnimqError:
    text = str(error)
    lower = text.lower()
    for part, kind in _TEXTS:
        if part in lower:
            # Artemis refuses a user without rights with the same words as a wrong password, but after CONNECTED
            if kind is AuthenticationFailed and not error.connecting:
                kind = PermissionDenied
            return kind(f"the broker: {text}", adapter=ADAPTER, cause=error)
    if op is Op.SEND:
        return Rejected(f"the broker refused the message: {text}", adapter=ADAPTER, cause=error)
    return UnimqError(f"the broker: {text}", code="unknown", adapter=ADAPTER, cause=error)


def classify(error: BaseException, *, op: Op, handed_over: bool) -> Fault:
    if isinstance(error, UnimqError):
        return error
    if isinstance(error, NotActiveMQ):
        return Unsupported(str(error), adapter=ADAPTER, cause=error)
    if isinstance(error, StompError):
        return _of_text(error, op)
    if op is Op.SEND and isinstance(error, DeadlinePassed):
        return SendTimeout("the time was up before the message was begun", adapter=ADAPTER, cause=error)
    if op is Op.SEND and handed_over and isinstance(error, NoReceipt | OSError):
        return SendOutcomeUnknown(
            f"written, but no receipt came ({error}): the message may be at the broker",
            adapter=ADAPTER,
            cause=error,
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionFailed(
            f"the broker's certificate was refused: {error.verify_message}",
            retryable=False,
            adapter=ADAPTER,
            cause=error,
        )
    if isinstance(error, NoReceipt):
        return ConnectionFailed(f"no answer from the broker: {error}", adapter=ADAPTER, cause=error)
    if isinstance(error, OSError):
        return ConnectionFailed(f"{type(error).__name__}: {error}", adapter=ADAPTER, cause=error)
    if isinstance(error, UnicodeEncodeError):
        return InvalidMessage(f"a text that is not Unicode: {error.reason}", adapter=ADAPTER, cause=error)
    return UnimqError(
        f"{type(error).__name__}: {error}",
        code="unknown",
        may_have_been_sent=handed_over,
        adapter=ADAPTER,
        cause=error,
    )


def closed(what: str) -> Closed:
    return Closed(f"the {what} is closed", adapter=ADAPTER)
