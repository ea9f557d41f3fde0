"""One API for message brokers. Start with `connect(url)` or `connect_async(url)`.

Nothing is imported from a client library, and no thread, loop or socket is made, before `connect`.
"""

import logging as _logging
from typing import TYPE_CHECKING

from ._connect import connect, connect_async
from ._dead import DeadLetter
from ._explain import Explanation, explain
from ._intake import DEFAULT
from ._outgoing import Middleware
from ._sync.client import Client
from ._sync.dead_letters import DeadLetters
from ._sync.receiver import Receiver
from ._sync.sender import Pending, Sender
from .address import Address, Queue, Subscription, Topic
from .capabilities import Capabilities, Support
from .codec import Codec
from .delivery import Delivery
from .driver import Password, Token
from .errors import (
    AdapterMissing,
    AlreadySettled,
    AuthenticationFailed,
    Closed,
    ConnectionFailed,
    DecodeError,
    InvalidMessage,
    LockLost,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    Rejected,
    RemoteError,
    RequestTimeout,
    ResourceExhausted,
    SendOutcomeUnknown,
    SendTimeout,
    SettlementLost,
    TopologyMismatch,
    UnimqError,
    Unroutable,
    Unsupported,
)
from .message import Message, Receipt, SendReport
from .retry import Retry, RetryLater
from .stats import Health, Stats
from .topology import TopologyReport

if TYPE_CHECKING:
    from ._async.client import AsyncClient
    from ._async.dead_letters import AsyncDeadLetters
    from ._async.receiver import AsyncReceiver
    from ._async.sender import AsyncPending, AsyncSender
    from .worker import Worker

__version__ = "0.1.0"

_logging.getLogger("unimq").addHandler(_logging.NullHandler())  # a library is silent until somebody asks

__all__ = [
    "DEFAULT", "AdapterMissing", "Address", "AlreadySettled", "AsyncClient", "AsyncDeadLetters", "AsyncPending",
    "AsyncReceiver", "AsyncSender", "AuthenticationFailed", "Capabilities", "Client", "Closed", "Codec", "ConnectionFailed",
    "DeadLetter", "DeadLetters", "DecodeError", "Delivery", "Explanation", "Health", "InvalidMessage", "LockLost", "Message",
    "MessageTooLarge", "Middleware", "NotFound", "Password", "Pending", "PermissionDenied", "Queue", "Receipt", "Receiver",
    "Rejected", "RemoteError", "RequestTimeout", "ResourceExhausted", "Retry", "RetryLater", "SendOutcomeUnknown",
    "SendReport", "SendTimeout", "Sender", "SettlementLost", "Stats", "Subscription", "Support", "Token", "Topic",
    "TopologyMismatch", "TopologyReport", "UnimqError", "Unroutable", "Unsupported", "Worker", "connect", "connect_async",
    "explain",
]  # fmt: skip


# Imported when they are asked for: who only sends should not pay for asyncio and the worker.
_LATER = {
    "AsyncClient": "_async.client",
    "AsyncDeadLetters": "_async.dead_letters",
    "AsyncPending": "_async.sender",
    "AsyncReceiver": "_async.receiver",
    "AsyncSender": "_async.sender",
    "Worker": "worker",
}


def __getattr__(name: str) -> object:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    return found
