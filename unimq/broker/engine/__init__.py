"""The pure heart of the reference broker: queues, topics and dead-lettering, without any I/O.

Rules
- No socket, thread, event loop or wall clock in here: time comes from a `Clock`, chance from a seed.
- One thread at a time: the caller locks. Every operation first does what is due by the clock.
- Nothing protocol-specific: where brokers differ there is an option (`options.py`) or an argument.
- Nothing grows without bound: every byte held is charged to one `Budget`.
"""

from .broker import Engine, Mismatch, Published
from .clock import Clock, ManualClock
from .deadletter import Death
from .limits import EngineLimit
from .matcher import EVERYTHING, Filter, Pattern
from .message import Entry, Stored, make_stored
from .options import QueueOptions
from .queue import QueueCore
from .results import Budget, Depth, PutOutcome, Refusal
from .session import Session, SessionTable
from .topic import Subscription, Topic

__all__ = [
    "EVERYTHING",
    "Budget",
    "Clock",
    "Death",
    "Depth",
    "Engine",
    "EngineLimit",
    "Entry",
    "Filter",
    "ManualClock",
    "Mismatch",
    "Pattern",
    "Published",
    "PutOutcome",
    "QueueCore",
    "QueueOptions",
    "Refusal",
    "Session",
    "SessionTable",
    "Stored",
    "Subscription",
    "Topic",
    "make_stored",
]
