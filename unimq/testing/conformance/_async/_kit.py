"""What the cases need of their world, asyncio here, threads in the twin; both are written by hand, with the same names.

Rules
- Where something runs beside something else it is given as a callable (`lambda: mq.send(...)`), so that one source reads
  the same in both worlds: here it makes an awaitable, there a thread calls it.
- Everything has a time-out.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

import unimq
from unimq import AsyncClient, Worker

from ...harness import Harness

T = TypeVar("T")
WORLD: Final = "async"
STEP_S: Final = 0.02


def client(h: Harness, url: str | None = None, **options: Any) -> AbstractAsyncContextManager[AsyncClient]:
    """A client of the harness' broker, for `async with`."""
    return unimq.connect_async(url or h.url, **{**h.options, **options})


def working(worker: Worker) -> AbstractAsyncContextManager[Worker]:
    """The worker at work, from its start to its graceful stop, for `async with`; here on the case's own loop."""
    return worker


class Gate:
    """What a handler waits at until the case opens it; never longer than `limit_s`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def open(self) -> None:
        self._event.set()

    async def wait(self, limit_s: float = 30.0) -> None:
        await asyncio.wait_for(self._event.wait(), limit_s)


class Task:
    """Something that runs beside the case."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def done(self) -> bool:
        return self._task.done()

    async def result(self, timeout_s: float) -> Any:
        done, _ = await asyncio.wait([self._task], timeout=timeout_s)
        if not done:
            raise AssertionError(f"it did not end within {timeout_s:g} s")
        return self._task.result()


def spawn(start: Callable[[], Awaitable[Any]]) -> Task:
    async def run() -> Any:
        return await start()

    return Task(asyncio.get_running_loop().create_task(run()))


async def gather(*starts: Callable[[], Awaitable[T]], timeout_s: float = 60.0) -> list[T]:
    """All at once; their results in order, or the first error."""
    return list(await asyncio.wait_for(asyncio.gather(*(start() for start in starts)), timeout_s))


async def confirmed(pending: Any, timeout_s: float = 30.0) -> Any:
    """The receipt of a `submit`."""
    return await pending.result(timeout_s)


async def awaited(pending: Any) -> Any:
    """The same by `await pending`, which only this world has."""
    return await pending


async def give_up(receive: Callable[[float], Awaitable[list[T]]], after_s: float) -> list[T]:
    """A receive that its caller leaves: cancelled here, timed out in the twin. What it brought, if it was in time."""
    task = asyncio.ensure_future(receive(30.0))
    await asyncio.wait([task], timeout=after_s)
    if task.done():
        return list(task.result())
    task.cancel()
    try:
        return list(await task)  # it may have been done just as it was cancelled
    except asyncio.CancelledError:
        return []


async def elsewhere(call: Callable[[], T]) -> T:
    """A plain call on another thread."""
    return await asyncio.to_thread(call)


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def eventually(check: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Wait until `check()`, awaited where it is a coroutine, is true."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(STEP_S)


async def misuse(call: Callable[[], Any]) -> str:
    """Use from where it is forbidden: another loop here, a forked child in the twin. The error's class by name."""

    def other_loop() -> str:
        async def run() -> None:
            await asyncio.wait_for(call(), 10.0)

        try:
            asyncio.run(run())
        except Exception as error:  # the answer is which one
            return type(error).__name__
        return "nothing was raised"

    return await asyncio.to_thread(other_loop)


def extra_tasks() -> int:
    """Tasks beside the one that asks."""
    return len(asyncio.all_tasks()) - 1
