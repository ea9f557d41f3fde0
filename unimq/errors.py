"""Every error unimq raises.

Rules
- One tree under `UnimqError`; nothing of a client library reaches the caller except as `cause`.
- `retryable`: the same call may succeed later without anybody changing anything.
- `may_have_been_sent`: the message may be at the broker. False means that it certainly never left.
- A text says what failed and what to do next; it never contains a secret (`redact`).
- Errors pickle: the raw cause travels as its repr where it does not pickle itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .delivery import Delivery
    from .message import Message

# greedy: to the last @ of the word, since a password may hold an @, a / or a comma that nobody escaped
_URL_PASSWORD = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^:@\s'\"/]*):[^\s'\"]*@", re.I)
_KEYED_SECRET = re.compile(
    r"(?P<key>SharedAccessKey|SharedAccessSignature|password|passwd|token)(?P<sep>['\"]?\s*[=:]\s*['\"]?)[^\s;,'\"&]+",
    re.I,
)


def redact(text: str) -> str:
    """`text` without the passwords of URLs and connection strings."""
    text = _URL_PASSWORD.sub(r"\g<scheme>\g<user>:***@", text)
    return _KEYED_SECRET.sub(r"\g<key>\g<sep>***", text)


class UnimqError(Exception):
    """Base of all errors.

    `code` is a stable word for logs and metrics; `adapter` names the adapter ("" = the core); `cause` is the
    raw error of the client library; `message` is the message as it was sent, where one was.
    """

    code: str = "error"
    retryable: bool = False
    may_have_been_sent: bool = False

    def __init__(
        self,
        text: str = "",
        *,
        code: str | None = None,
        retryable: bool | None = None,
        may_have_been_sent: bool | None = None,
        adapter: str = "",
        cause: BaseException | None = None,
        message: Message | None = None,
    ) -> None:
        super().__init__(redact(text))
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable
        if may_have_been_sent is not None:
            self.may_have_been_sent = may_have_been_sent
        self.adapter = adapter
        self.cause = cause
        self.message = message
        if cause is not None:
            self.__cause__ = cause

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        state["cause"] = None if self.cause is None else _portable(self.cause)
        return (_rebuild, (type(self), self.args, state))

    def for_message(self, message: Message) -> UnimqError:
        """This error as one message's own: a batch's failure is shared, `.message` is not."""
        own = _rebuild(type(self), self.args, dict(self.__dict__))
        own.__cause__ = self.__cause__
        own.message = message
        return own


class CauseText(Exception):
    """Stands in for a cause that could not travel to another process: its text."""


def _portable(cause: BaseException) -> BaseException:
    import pickle

    try:
        pickle.loads(pickle.dumps(cause))
    # a library's error may fail in any way of its own; its text is what can be kept
    except Exception as error:
        return CauseText(redact(f"{cause!r} (not picklable: {type(error).__name__})"))
    return cause


def _rebuild(cls: type[UnimqError], args: tuple[Any, ...], state: dict[str, Any]) -> UnimqError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class ConnectionFailed(UnimqError, ConnectionError):
    """No connection, or it died. Retryable: the supervisor is at it."""

    code, retryable = "connection-failed", True


class SendTimeout(UnimqError, TimeoutError):
    """The time was up and nothing had left the process. Sending `.message` again is safe."""

    code, retryable = "send-timeout", True


class RequestTimeout(UnimqError, TimeoutError):
    """No reply within the time."""

    code, retryable, may_have_been_sent = "request-timeout", True, True


class SendOutcomeUnknown(UnimqError):
    """The message left and no confirmation came. It may be at the broker; sending `.message` again keeps its id."""

    code, retryable, may_have_been_sent = "send-outcome-unknown", True, True


class Rejected(UnimqError):
    """The broker refused the message."""

    code = "rejected"


class Unroutable(UnimqError):
    """Nobody takes messages at that address; the text says how to declare it."""

    code = "unroutable"


class AuthenticationFailed(UnimqError):
    """User, password or token were refused. Permanent at the first connect."""

    code = "authentication-failed"


class PermissionDenied(UnimqError):
    """The broker refused the operation; the text names the right."""

    code = "permission-denied"


class NotFound(UnimqError):
    """The place does not exist; the text says `mq.declare(...)`."""

    code = "not-found"


class TopologyMismatch(UnimqError):
    """What exists differs from what was asked for; `differences` says how: name → (there, asked)."""

    code = "topology-mismatch"

    def __init__(
        self, text: str = "", *, differences: dict[str, tuple[object, object]] | None = None, **more: Any
    ) -> None:
        super().__init__(text, **more)
        self.differences = differences or {}


class InvalidMessage(UnimqError):
    """A field that no broker, or this one, can carry. Raised before any I/O."""

    code = "invalid-message"


class MessageTooLarge(UnimqError):
    """Larger than the link, topic or broker takes."""

    code = "message-too-large"


class DecodeError(UnimqError):
    """The body is not what `decode(T)` was asked for."""

    code = "decode-error"


class ResourceExhausted(UnimqError):
    """The broker is out of room or a limit of ours is reached."""

    code, retryable = "resource-exhausted", True


class Unsupported(UnimqError):
    """This broker lacks what was asked for. Raised before a message moves; names what is missing."""

    code = "unsupported"


class LockLost(UnimqError):
    """The delivery is no longer ours: its link is gone or its lock expired. The broker hands it out again."""

    code = "lock-lost"


class SettlementLost(UnimqError):
    """Verbs were enqueued and the broker did not take them; `.deliveries` come back as redeliveries."""

    code = "settlement-lost"

    def __init__(self, text: str = "", *, deliveries: Sequence[Delivery] = (), **more: Any) -> None:
        super().__init__(text, **more)
        self.deliveries = list(deliveries)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (cls, args, state) = super().__reduce__()
        state["deliveries"] = []  # bound to a link of this process
        return (rebuild, (cls, args, state))


class AlreadySettled(UnimqError):
    """A second verb on a delivery."""

    code = "already-settled"


class RemoteError(UnimqError):
    """A responder failed; its error's type and text."""

    code = "remote-error"


class Closed(UnimqError):
    """The object was closed, or belongs to the process before a fork, or to another event loop."""

    code = "closed"


class AdapterMissing(UnimqError):
    """No adapter is installed for that scheme; the text says what to install."""

    code = "adapter-missing"


class SendManyFailed(UnimqError):
    """Some items of a `send_many` failed; `.errors` has them by index."""

    code = "send-many-failed"

    def __init__(self, text: str = "", *, errors: dict[int, UnimqError] | None = None, **more: Any) -> None:
        super().__init__(text, **more)
        self.errors = errors or {}


class HandlerSignal(Exception):
    """Base of what a handler raises to say what becomes of its message; never an error of unimq's own."""
