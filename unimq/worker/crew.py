"""Who works on one handler: exactly `concurrency` threads, or as many tasks on the worker's loop.

Rules
- `put` never waits: what is queued here is bounded by the receiver's prefetch.
- Unordered sources have one lane that all work on. Ordered ones have a lane for each worker, chosen by the hash of the order
  key: one key is always in one lane, in order.
- Closing starts nothing more: what is queued goes back to the broker with the link. `busy` says who is still at it.
- Threads are daemons: a stuck handler cannot keep the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, Protocol

from ..delivery import Delivery
from .post import Post

PAUSE_LOOK_S: Final = 3600.0
_log = logging.getLogger("unimq.worker")


class Busy(NamedTuple):
    """Since when (time.monotonic), and at what."""

    since: float
    at: Sequence[Delivery | None]


class Crew(Protocol):
    post: Post

    def put(self, delivery: Delivery) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None:
        """Begin nothing more. On the loop."""
        ...

    def cancel(self) -> None:
        """Give up what is still busy. On the loop."""
        ...

    @property
    def busy(self) -> dict[object, Busy]:
        """Who works now. Any thread."""
        ...


Broken = Callable[[BaseException], None]


def crew(post: Post, *, ordered: bool, broken: Broken) -> Crew:
    """On the loop. `broken` is told what only a restart can mend."""
    make: type[_Threads] | type[_Tasks] = _Tasks if post.shape.is_async else _Threads
    return make(post, ordered=ordered, broken=broken)


def _lane_of(delivery: Delivery, lanes: int) -> int:
    return 0 if lanes == 1 else hash(delivery.order_key) % lanes


class _Threads:
    def __init__(self, post: Post, *, ordered: bool, broken: Broken) -> None:
        self.post = post
        self.busy: dict[object, Busy] = {}
        self._broken = broken
        self._closed = False
        self._open = threading.Event()  # not paused
        self._open.set()
        count = post.handler.wish.concurrency
        self._lanes: list[SimpleQueue[Delivery | None]] = [
            SimpleQueue() for _ in range(count if ordered else 1)
        ]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(self._lanes[number % len(self._lanes)],),
                name=f"unimq-{post.handler.name}-{number}",
                daemon=True,
            )
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, delivery: Delivery) -> None:
        self._lanes[_lane_of(delivery, len(self._lanes))].put(delivery)

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._closed = True
        self._open.set()
        for number in range(len(self._threads)):
            self._lanes[number % len(self._lanes)].put(None)

    def cancel(self) -> None:
        """A thread cannot be: it ends with its handler, or with the process."""

    def _run(self, lane: SimpleQueue[Delivery | None]) -> None:
        size = self.post.handler.wish.batch
        me = threading.current_thread()
        while True:
            first = lane.get()
            while not self._open.is_set():
                self._open.wait(PAUSE_LOOK_S)
            # busy first: whoever closes looks at it afterwards, and must not miss one that has just begun
            self.busy[me] = Busy(time.monotonic(), (first,))
            try:
                if first is None or self._closed:
                    return
                if size is None:
                    self.post.handle(first)
                else:
                    batch = _more(first, lane, size)
                    self.busy[me] = Busy(time.monotonic(), batch)
                    self.post.handle_batch(batch)
            except BaseException as error:  # SystemExit too: it ends the worker, not just one thread of it
                _log.exception("%s cannot go on", self.post.handler.name)
                self._broken(error)
                return
            finally:
                del self.busy[me]


def _more(first: Delivery, lane: SimpleQueue[Delivery | None], size: int) -> list[Delivery]:
    """What is there, up to `size`: a batch never waits to be full."""
    batch = [first]
    while len(batch) < size:
        try:
            found = lane.get_nowait()
        except Empty:
            break
        if found is None:
            lane.put(None)  # the end, for the next look
            break
        batch.append(found)
    return batch


class _Lane:
    """A queue for tasks of one loop: `get` does not suspend while there is something."""

    def __init__(self) -> None:
        self.items: deque[Delivery] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()

    def put(self, delivery: Delivery) -> None:
        self.items.append(delivery)
        self.wake()

    def wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self.items:
                self.wake()  # the call was for somebody
            raise


class _Tasks:
    def __init__(self, post: Post, *, ordered: bool, broken: Broken) -> None:
        self.post = post
        self.busy: dict[object, Busy] = {}
        self._broken = broken
        self._closed = False
        self._open = asyncio.Event()
        self._open.set()
        count = post.handler.wish.concurrency
        self._lanes = [_Lane() for _ in range(count if ordered else 1)]
        self._tasks = [
            asyncio.create_task(
                self._run(self._lanes[number % len(self._lanes)]), name=f"unimq-{post.handler.name}-{number}"
            )
            for number in range(count)
        ]

    def put(self, delivery: Delivery) -> None:
        self._lanes[_lane_of(delivery, len(self._lanes))].put(delivery)

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            if task not in self.busy:
                task.cancel()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, lane: _Lane) -> None:
        me = asyncio.current_task()
        assert me is not None
        size = self.post.handler.wish.batch
        while not self._closed:
            if not lane.items:
                await lane.wait()
                continue
            if not self._open.is_set():
                await self._open.wait()
                continue
            first = lane.items.popleft()
            self.busy[me] = Busy(time.monotonic(), (first,))
            try:
                if size is None:
                    await self.post.handle_async(first)
                else:
                    batch = [first, *(lane.items.popleft() for _ in range(min(size - 1, len(lane.items))))]
                    self.busy[me] = Busy(time.monotonic(), batch)
                    await self.post.handle_batch_async(batch)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # as for threads
                _log.exception("%s cannot go on", self.post.handler.name)
                self._broken(error)
                if not isinstance(error, Exception):
                    return
            finally:
                del self.busy[me]


async def gone(crews: Iterable[Crew]) -> None:
    """Wait until cancelled tasks are over. Threads are not waited for."""
    tasks = [task for each in crews if isinstance(each, _Tasks) for task in each._tasks]
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
