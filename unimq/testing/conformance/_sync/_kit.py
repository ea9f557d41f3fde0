"""The threads twin of `_async/_kit.py`: the same names, written by hand. See there."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

import unimq
from unimq import Client, Worker

from ...harness import Harness

T = TypeVar("T")
WORLD: Final = "sync"
STEP_S: Final = 0.02
START_S: Final = 30.0
STOP_S: Final = 45.0


def client(h: Harness, url: str | None = None, **options: Any) -> AbstractContextManager[Client]:
    """A client of the harness' broker, for `with`."""
    return unimq.connect(url or h.url, **{**h.options, **options})


@contextmanager
def working(worker: Worker) -> Iterator[Worker]:
    """The worker at work, from its start to its graceful stop; here on a thread of its own."""
    run = Task(worker.run)
    try:
        eventually(lambda: run.done() or worker.health().ok, START_S, "the worker is at work")
        if run.done():
            run.result(0.0)  # why it could not start
        yield worker
    finally:
        if worker.health().details.get("stage") not in ("draining", "closing"):  # a second stop would hurry
            worker.stop()
        run.result(STOP_S)


class Gate:
    """What a handler waits at until the case opens it; never longer than `limit_s`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        self._event.set()

    def wait(self, limit_s: float = 30.0) -> None:
        if not self._event.wait(limit_s):
            raise TimeoutError(f"nobody opened the gate within {limit_s:g} s")


class Task:
    """Something that runs beside the case."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._start = start
        self._thread = threading.Thread(target=self._run, name="conformance beside", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._start()
        except BaseException as error:  # it is the caller's, in `result`
            self._error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, timeout_s: float) -> Any:
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise AssertionError(f"it did not end within {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self._value


def spawn(start: Callable[[], Any]) -> Task:
    return Task(start)


def gather(*starts: Callable[[], T], timeout_s: float = 60.0) -> list[T]:
    """All at once; their results in order, or the first error."""
    deadline = time.monotonic() + timeout_s
    tasks = [Task(start) for start in starts]
    return [task.result(max(deadline - time.monotonic(), 0.0)) for task in tasks]


def confirmed(pending: Any, timeout_s: float = 30.0) -> Any:
    """The receipt of a `submit`."""
    return pending.result(timeout_s)


def awaited(pending: Any) -> Any:
    """In the twin this is `await pending`."""
    return pending.result(30.0)


def give_up(receive: Callable[[float], list[T]], after_s: float) -> list[T]:
    """A receive that its caller leaves: timed out here, cancelled in the twin."""
    return list(receive(after_s))


def elsewhere(call: Callable[[], T]) -> T:
    """A plain call on another thread."""
    return Task(call).result(30.0)  # type: ignore[no-any-return]


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def eventually(check: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Wait until `check()` is true."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(STEP_S)


def misuse(call: Callable[[], Any]) -> str:
    """Use from where it is forbidden: a forked child here, another loop in the twin. The error's class by name."""
    if not hasattr(os, "fork"):
        return "Closed"  # no fork, nothing to misuse
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is being tested
        child = os.fork()
    if child == 0:
        name = "nothing was raised"
        try:
            call()
        except BaseException as error:  # the answer is which one
            name = type(error).__name__
        finally:
            os.write(writing, name.encode())
            os._exit(0)
    os.close(writing)
    try:
        # the child's own thread is bounded by the case's hard limit; it is ended below in any case
        watch = threading.Timer(15.0, os.kill, (child, 9))
        watch.daemon = True
        watch.start()
        try:
            return os.read(reading, 200).decode() or "the child hung"
        finally:
            watch.cancel()
            watch.join()
    finally:
        os.close(reading)
        os.waitpid(child, 0)


def extra_tasks() -> int:
    """There are no tasks in this world."""
    return 0
