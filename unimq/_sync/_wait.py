"""The sync wait kit: everything in the facade that blocks does it here. Hand-written; its twin is `_async/_wait.py`.

Rules
- A wait is one raw lock, released by the latch: no condition, no event, no poll.
- Ctrl-C ends any wait; what arrives stays where the next call finds it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeAlias, TypeVar

from .._errand import Errand
from .._latch import Latch, Turnstile
from ..delivery import Delivery
from ..driver import ReceiverLink
from ..errors import ConnectionFailed, UnimqError
from ..message import Receipt

R = TypeVar("R")
Promise: TypeAlias = Future[Receipt]
GIVE_UP_S: Final = 0.1  # what raises in time by itself has the better text
FOREVER_S: Final = 3600.0  # one turn of a receive without a time-out


class Connecting:
    """Nothing to await."""


class Awaited:
    """Nothing to await."""

    __slots__ = ()


def future(latch: Latch, outcome: Callable[[], Receipt]) -> Future[Receipt]:
    """The outcome as a future, for callers that live from futures."""
    made: Future[Receipt] = Future()

    def over() -> None:
        try:
            made.set_result(outcome())
        except UnimqError as error:
            made.set_exception(error)

    latch.add(over)
    return made


def home() -> object:
    """What an object made here belongs to: nothing; any thread may use it."""
    return None


def check_home(loop: object) -> None:
    """Nothing to check: a client may be used from any thread."""


def slot(latch: Latch) -> None:
    """Block until the latch is set. Packs are always set by their deadline, so there is no time-out."""
    if latch.is_set:
        return
    lock = threading.Lock()
    lock.acquire()
    latch.add(lock.release)
    lock.acquire()


def latch(latch: Latch, timeout_s: float | None) -> bool:
    """Wait for a latch; False at the time-out."""
    if latch.is_set or (timeout_s is not None and timeout_s <= 0):
        return latch.is_set
    lock = threading.Lock()
    lock.acquire()
    latch.add(lock.release)
    if not lock.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)):
        latch.discard(lock.release)
    return latch.is_set


def call(function: Callable[..., R], *arguments: Any) -> R:
    """Run a function that blocks: here."""
    return function(*arguments)


def within(timeout_s: float, what: str, function: Callable[..., R], *arguments: Any) -> R:
    """Run a function that blocks and takes a time-out last, and wait no longer than that even if it does."""
    errand = Errand(function, *arguments, timeout_s)
    if not latch(errand, timeout_s + GIVE_UP_S):
        raise ConnectionFailed(f"opening {what}: no answer within {timeout_s:.3g} s")
    return errand.outcome()  # type: ignore[no-any-return]


def arrivals(
    link: ReceiverLink, count: int, timeout_s: float | None, changed: Turnstile
) -> Sequence[Delivery]:
    """What the link has, waiting for the first one. Empty at the time-out, and when the link was woken."""
    return link.receive(count, FOREVER_S if timeout_s is None else max(timeout_s, 0.0))


def breathe() -> None:
    """Other threads run anyway."""


def pause(seconds: float) -> None:
    time.sleep(seconds)
