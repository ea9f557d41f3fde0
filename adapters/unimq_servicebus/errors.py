"""The library's errors as ours: two tables and one function. Pure; needs no client library.

Rules
- The AMQP condition decides, then the class, then what is wrapped. The classes alone mislead: their defaults are overwritten.
- A *refusal* is the broker's (or the library's own, before any I/O) definite no: the message is not there. Silence (a
  time-out, a lost connection) after the write is `SendOutcomeUnknown`.
- What is in no table is `code="unknown"`, counted in `UNKNOWN`, logged, never swallowed and never guessed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from unimq.driver import Op
from unimq.errors import (
    AuthenticationFailed,
    Closed,
    ConnectionFailed,
    InvalidMessage,
    LockLost,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    Rejected,
    ResourceExhausted,
    SendOutcomeUnknown,
    TopologyMismatch,
    UnimqError,
    Unroutable,
    Unsupported,
)

_log = logging.getLogger("unimq.servicebus")
UNKNOWN: Final[Counter[str]] = Counter()
CAUSES_MAX: Final = 8  # how deep a wrapped error is looked for


@dataclass(frozen=True, slots=True)
class Row:
    """`refusal`: a definite no. `ends_link`: nothing more will come of this link."""

    kind: type[UnimqError]
    refusal: bool = True
    retryable: bool | None = None
    ends_link: bool = False
    hint: str = ""


_DECLARE: Final = "; make it with mq.declare(...)"
_SILENCE: Final = Row(ConnectionFailed, refusal=False, ends_link=True)
_TIMEOUT: Final = Row(ConnectionFailed, refusal=False)
_LOCK: Final = Row(LockLost)

CONDITIONS: Final[dict[str, Row]] = {
    "com.microsoft:message-lock-lost": _LOCK,
    "com.microsoft:session-lock-lost": Row(LockLost, ends_link=True),
    "com.microsoft:session-cannot-be-locked": Row(
        ResourceExhausted, hint="; another receiver holds the session"
    ),
    "com.microsoft:message-not-found": Row(NotFound),
    "com.microsoft:server-busy": Row(ResourceExhausted),
    "com.microsoft:timeout": _TIMEOUT,
    "com.microsoft:auth-failed": Row(AuthenticationFailed, ends_link=True),
    "com.microsoft:entity-disabled": Row(
        PermissionDenied, retryable=True, ends_link=True, hint="; the entity is disabled"
    ),
    "com.microsoft:entity-already-exists": Row(TopologyMismatch),
    "com.microsoft:argument-error": Row(Rejected),
    "com.microsoft:argument-out-of-range": Row(Rejected),
    "com.microsoft:precondition-failed": Row(Rejected),
    "com.microsoft:container-close": _SILENCE,
    "amqp:not-found": Row(NotFound, ends_link=True, hint=_DECLARE),
    "amqp:resource-deleted": Row(NotFound, ends_link=True, hint=_DECLARE),
    "amqp:unauthorized-access": Row(
        PermissionDenied, ends_link=True, hint="; it needs the Send, Listen or Manage claim"
    ),
    "amqp:not-allowed": Row(
        Rejected, hint="; an entity with sessions needs a key on each message and a session at the receiver"
    ),
    "amqp:not-implemented": Row(Unsupported),
    "amqp:precondition-failed": Row(Rejected),
    "amqp:invalid-field": Row(Rejected),
    "amqp:decode-error": Row(Rejected),
    "amqp:resource-limit-exceeded": Row(ResourceExhausted),
    "amqp:link:message-size-exceeded": Row(MessageTooLarge),
    "amqp:link:detach-forced": _SILENCE,
    "amqp:link:stolen": _SILENCE,
    "amqp:connection:forced": _SILENCE,
    "amqp:socket-error": _SILENCE,
    "amqp:internal-error": Row(ConnectionFailed, refusal=False),
    "amqp:illegal-state": _SILENCE,
}

# Of azure.servicebus.exceptions and azure.core.exceptions, by name: a table of classes would need the library here.
CLASSES: Final[dict[str, Row]] = {
    "MessageSizeExceededError": Row(MessageTooLarge),
    "MessageLockLostError": _LOCK,
    "SessionLockLostError": Row(LockLost, ends_link=True),
    "MessageAlreadySettled": _LOCK,
    "MessageNotFoundError": Row(NotFound),
    "SessionCannotBeLockedError": Row(ResourceExhausted, hint="; another receiver holds the session"),
    "MessagingEntityNotFoundError": Row(NotFound, ends_link=True, hint=_DECLARE),
    "MessagingEntityDisabledError": Row(PermissionDenied, retryable=True, ends_link=True),
    "MessagingEntityAlreadyExistsError": Row(TopologyMismatch),
    "ServiceBusQuotaExceededError": Row(ResourceExhausted),
    "ServiceBusServerBusyError": Row(ResourceExhausted),
    "ServiceBusAuthenticationError": Row(AuthenticationFailed, ends_link=True),
    "ServiceBusAuthorizationError": Row(PermissionDenied, ends_link=True),
    "OperationTimeoutError": _TIMEOUT,
    "ServiceBusConnectionError": _SILENCE,
    "ServiceBusCommunicationError": _SILENCE,
    "ClientAuthenticationError": Row(AuthenticationFailed),
    "ResourceNotFoundError": Row(NotFound, hint=_DECLARE),
    "ResourceExistsError": Row(TopologyMismatch),
    "ServiceRequestError": _SILENCE,
    "ServiceResponseError": _SILENCE,
}


def condition_of(error: BaseException) -> str | None:
    # `_condition` is private, but the only place where the library keeps the broker's own word
    condition = getattr(error, "_condition", None)
    return condition if isinstance(condition, str) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps (`inner_exception` of azure.core), outermost first."""
    seen: Any = error
    for _ in range(CAUSES_MAX):
        if not isinstance(seen, BaseException):
            return
        yield seen
        seen = getattr(seen, "inner_exception", None) or seen.__cause__


def row_of(error: BaseException) -> Row | None:
    for layer in _causes(error):
        condition = condition_of(layer)
        if condition in CONDITIONS:
            return CONDITIONS[condition]
        for kind in type(layer).__mro__:
            if kind.__name__ in CLASSES:
                return CLASSES[kind.__name__]
        # TimeoutError, ConnectionError, ssl.SSLError, a name that does not resolve
        if isinstance(layer, OSError):
            return _SILENCE
        # the library's own checks and its codec, before any I/O
        if isinstance(layer, ValueError | TypeError):
            return Row(Closed if "already been shutdown" in str(layer) else InvalidMessage)
    return None


def is_refusal(error: BaseException) -> bool:
    """The message is certainly not there because of this."""
    if isinstance(error, UnimqError):
        return not error.may_have_been_sent
    row = row_of(error)
    return row is not None and row.refusal


def retryable(error: BaseException) -> bool:
    """The same call may go through later: trying its parts one by one now would only add load."""
    row = row_of(error)
    return row is not None and (row.kind.retryable if row.retryable is None else row.retryable)


def ends_link(error: BaseException) -> bool:
    row = row_of(error)
    return row is None or row.ends_link


def classify(error: BaseException, *, op: Op, handed_over: bool) -> UnimqError:
    if isinstance(error, UnimqError):
        return error
    row = row_of(error)
    if row is None:
        return _unknown(error, op, handed_over)
    kind = _kind(row, op, handed_over)
    return kind(
        f"{op.value}: {error}{row.hint}",
        retryable=row.retryable,
        may_have_been_sent=handed_over and not row.refusal if op is Op.SEND else None,
        adapter="servicebus",
        cause=error,
    )


def _kind(row: Row, op: Op, handed_over: bool) -> type[UnimqError]:
    if op is Op.SEND:
        if not row.refusal and handed_over:
            return SendOutcomeUnknown
        if row.kind is NotFound:
            return Unroutable
    elif row.kind is InvalidMessage or (row.kind is Rejected and op is Op.OPEN):
        return TopologyMismatch if op is Op.OPEN else UnimqError
    return row.kind


def _unknown(error: BaseException, op: Op, handed_over: bool) -> UnimqError:
    name = condition_of(error) or f"{type(error).__module__}.{type(error).__qualname__}"
    UNKNOWN[name] += 1
    if UNKNOWN[name] == 1:
        _log.warning("an error that is in no table, while doing %s: %s", op.value, name)
    return UnimqError(
        f"{op.value}: {error}",
        code="unknown",
        may_have_been_sent=handed_over if op is Op.SEND else None,
        adapter="servicebus",
        cause=error,
    )
