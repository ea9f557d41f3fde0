"""One API for message brokers. Start with `connect(url)` or `connect_async(url)`.

Nothing is imported from a client library, and no thread, loop or socket is made, before `connect`.
"""

import logging as _logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._async.client import AsyncClient
    from ._async.dead_letters import AsyncDeadLetters
    from ._async.receiver import AsyncReceiver
    from ._async.sender import AsyncPending, AsyncSender
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


# Everything is imported when it is asked for: who only sends does not pay for asyncio and the worker, and `unimq broker` for
# neither.
_ROOMS = {
    "_async.client": "AsyncClient",
    "_async.dead_letters": "AsyncDeadLetters",
    "_async.receiver": "AsyncReceiver",
    "_async.sender": "AsyncPending AsyncSender",
    "_connect": "connect connect_async",
    "_dead": "DeadLetter",
    "_explain": "Explanation explain",
    "_intake": "DEFAULT",
    "_outgoing": "Middleware",
    "_sync.client": "Client",
    "_sync.dead_letters": "DeadLetters",
    "_sync.receiver": "Receiver",
    "_sync.sender": "Pending Sender",
    "address": "Address Queue Subscription Topic",
    "capabilities": "Capabilities Support",
    "codec": "Codec",
    "delivery": "Delivery",
    "driver": "Password Token",
    "errors": (
        "AdapterMissing AlreadySettled AuthenticationFailed Closed ConnectionFailed DecodeError "
        "InvalidMessage LockLost MessageTooLarge NotFound PermissionDenied Rejected RemoteError "
        "RequestTimeout ResourceExhausted SendOutcomeUnknown SendTimeout SettlementLost "
        "TopologyMismatch UnimqError Unroutable Unsupported"
    ),
    "message": "Message Receipt SendReport",
    "retry": "Retry RetryLater",
    "stats": "Health Stats",
    "topology": "TopologyReport",
    "worker": "Worker",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}
_MODULES = frozenset(room for room in _ROOMS if "." not in room and room[0] != "_")


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{room}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
