"""The async wait kit: everything in the facade that suspends does it here. Hand-written; its twin is `_sync/_wait.py`.

Rules
- One future per task that really suspends; never one shared by tasks (a cancelled neighbour would cancel it).
- Wake-ups from other threads are coalesced: a deque and one `call_soon_threadsafe` while armed.
- A cancelled wait takes nothing with it: what arrives stays where the next call finds it.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import Future
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final, Self, TypeAlias, TypeVar

from .._errand import Errand
from .._latch import Latch, Turnstile
from ..delivery import Delivery
from ..driver import ReceiverLink
from ..errors import Closed, ConnectionFailed, UnimqError
from ..message import Receipt

R = TypeVar("R")
Promise: TypeAlias = Future[Receipt]


GIVE_UP_S: Final = 0.1  # what raises in time by itself has the better text


class _Waker:
    """One per loop."""

    __slots__ = ("_loop", "_ready", "_armed", "__weakref__")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._ready: deque[list[Future[None]]] = deque()
        self._armed = False

    def post(self, futures: list[Future[None]]) -> None:
        """Any thread."""
        self._ready.append(futures)
        if self._armed:
            return
        self._armed = True
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            return  # the loop was closed just now: nobody waits there any more

    def _run(self) -> None:
        self._armed = False  # before looking: what is posted from here on arms again
        ready = self._ready
        while ready:
            try:
                futures = ready.popleft()
            except IndexError:
                return
            for future in futures:
                if not future.done():
                    future.set_result(None)
            futures.clear()


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waker] = weakref.WeakKeyDictionary()


class Connecting:
    """What makes `await connect_async(url)` work."""

    async def _connect(self) -> Self:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, Self]:
        return self._connect().__await__()


class Awaited:
    """What makes `await pending` work."""

    __slots__ = ()

    async def result(self, timeout_s: float | None = None) -> Receipt:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, Receipt]:
        return self.result().__await__()


def future(latch: Latch, outcome: Callable[[], Receipt]) -> Future[Receipt]:
    """The outcome as a future of the running loop, for callers that live from futures."""
    made: Future[Receipt] = asyncio.get_running_loop().create_future()

    def over(_: object) -> None:
        if not made.done():
            _resolve(made, outcome)

    slot(latch).add_done_callback(over)
    return made


def _resolve(made: Future[Receipt], outcome: Callable[[], Receipt]) -> None:
    try:
        made.set_result(outcome())
    except UnimqError as error:
        made.set_exception(error)


def home() -> object:
    """What an object made here belongs to: the running loop."""
    return asyncio.get_running_loop()


def check_home(loop: object) -> None:
    """Raise `Closed` when called from another loop than the client's."""
    if asyncio.get_running_loop() is not loop:
        raise Closed("this client belongs to another event loop: make one per loop", code="wrong-loop")


def slot(latch: Latch) -> Future[None]:
    """A future that resolves when the latch is set. A plain function: the caller awaits the future itself."""
    loop = asyncio.get_running_loop()
    future: Future[None] = loop.create_future()
    if latch.is_set:
        future.set_result(None)
        return future
    loops = latch.loops
    if loops is None:
        loops = latch.loops = {}
    futures: Any = loops.get(id(loop))
    if futures is None:
        futures = loops[id(loop)] = [future]
        waker = _wakers.get(loop)
        if waker is None:
            waker = _wakers[loop] = _Waker(loop)
        latch.add(partial(waker.post, futures))
    else:
        futures.append(future)
        if latch.is_set and not future.done():  # set while we looked: its wake-up may have passed already
            future.set_result(None)
    return future


async def latch(latch: Latch, timeout_s: float | None) -> bool:
    """Wait for a latch; False at the time-out."""
    if latch.is_set or (timeout_s is not None and timeout_s <= 0):
        return latch.is_set
    loop = asyncio.get_running_loop()
    future = slot(latch)
    timer = None if timeout_s is None else loop.call_later(timeout_s, _expire, future)
    try:
        await future
    finally:
        if timer is not None:
            timer.cancel()
        if not latch.is_set and latch.loops is not None:
            futures: Any = latch.loops.get(id(loop))
            if futures is not None and future in futures:
                futures.remove(future)
    return latch.is_set


def _expire(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def call(function: Callable[..., R], *arguments: Any) -> R:
    """Run a function that blocks, on a thread of its own that ends with it: opening and closing are rare, and an executor
    would leave its threads behind. Cancelled, the function still runs to its end."""
    errand = Errand(function, *arguments)
    await slot(errand)
    return errand.outcome()  # type: ignore[no-any-return]


async def within(timeout_s: float, what: str, function: Callable[..., R], *arguments: Any) -> R:
    """Run a function that blocks and takes a time-out last, and wait no longer than that even if it does."""
    errand = Errand(function, *arguments, timeout_s)
    if not await latch(errand, timeout_s + GIVE_UP_S):
        raise ConnectionFailed(f"opening {what}: no answer within {timeout_s:.3g} s")
    return errand.outcome()  # type: ignore[no-any-return]


async def arrivals(
    link: ReceiverLink, count: int, timeout_s: float | None, changed: Turnstile
) -> Sequence[Delivery]:
    """What the link has, waiting for the first one. Empty at the time-out, and whenever `changed` turned."""
    found = link.receive(count, 0)
    if found or (timeout_s is not None and timeout_s <= 0):
        return found
    turned = changed.latch()
    found = link.receive(count, 0)  # between the first look and the latch something may have come
    if found:
        return found
    await latch(turned, timeout_s)
    return ()


async def breathe() -> None:
    """Let other tasks run: called now and then where nothing had to be waited for."""
    await asyncio.sleep(0)


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
