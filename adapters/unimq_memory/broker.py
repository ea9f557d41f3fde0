"""One broker of the process: the engine, its lock, its clock, its timer, and the lines of its clients.

Rules
- One lock. The engine is called inside `with broker.turn`, and nothing else is: what is to be told to the outside is
  appended to the list that `turn` gives, and called when the lock is free again (`outbox.py`).
- Time is real time plus what tests added. One lazy daemon thread wakes up for what is due; with nothing due there is none.
- What was stored survives a lost line and a restart; leases and private subscriptions do not.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from unimq.broker.engine import Engine, QueueCore

from . import outbox
from .errors import LineLost
from .faults import Faults

if TYPE_CHECKING:
    from types import TracebackType

    from .connection import MemoryConnection
    from .receiver import MemoryReceiver

TIMER_WAIT_MAX_S: Final = 3600.0


class BrokerClock:
    """Seconds since the epoch; never goes back, whatever happens to the system's clock."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._base_s = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._base_s

    def advance(self, seconds: float) -> None:
        """Move time; what is due by then has happened when this returns."""
        if not seconds >= 0:
            raise ValueError(f"time only moves forward, not by {seconds!r} s")
        broker = self._broker
        with broker.turn:
            self._base_s += seconds
            broker.engine.tick()
            broker.timer.look_again()

    def until_due_s(self) -> float | None:
        """How long until the next thing is due; None when nothing is."""
        broker = self._broker
        with broker.turn:
            due = broker.engine.due()
            return None if due is None else max(due - self.now(), 0.0)


class Turn:
    """`with broker.turn as calls`: the lock, and what is to be called after it."""

    __slots__ = ("_broker", "_calls", "_lock")

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._calls: list[outbox.Call] = []

    def __enter__(self) -> list[outbox.Call]:
        self._lock.acquire()
        return self._calls

    def later(self, call: outbox.Call) -> None:
        """Under the lock, where the list is not at hand."""
        self._calls.append(call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        calls, self._calls = self._calls, []
        self._broker.timer.look()
        self._lock.release()
        if calls:
            outbox.make(calls)


class Timer:
    """The thread for what is due. Its methods but `_run` are called under the broker's lock."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._thread: threading.Thread | None = None
        self._due = float("inf")
        self._changed = threading.Event()

    def look(self) -> None:
        """Be there for the next thing due, if there is one."""
        due = self._broker.engine.due()
        if due is None or due >= self._due:
            return
        self._due = due
        if self._thread is None:
            name = f"unimq-memory-{self._broker.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        else:
            self._changed.set()

    def look_again(self) -> None:
        """The clock was moved: how long to wait has changed."""
        self._due = float("inf")
        self._changed.set()

    def _run(self) -> None:
        engine, turn = self._broker.engine, self._broker.turn
        while True:
            with turn:
                engine.tick()
                due = engine.due()
                self._due = float("inf") if due is None else due
                if due is None:
                    self._thread = None
                    return
                wait_s = due - engine.clock.now()
                self._changed.clear()
            self._changed.wait(min(max(wait_s, 0.0), TIMER_WAIT_MAX_S))


class MemoryBroker(Faults):
    """What tests get from `unimq_memory.broker(name)`: `.clock.advance(s)` and the faults of `Faults`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.clock = BrokerClock(self)
        self.engine = Engine(self.clock)
        self.timer = Timer(self)
        self.turn = Turn(self)
        self.connections: list[MemoryConnection] = []
        self.consumers: dict[QueueCore, list[MemoryReceiver]] = {}
        self._privates = 0

    def places(self) -> set[str]:
        """Names of all queues and topics."""
        with self.turn:
            engine = self.engine
            return {queue.name for queue in engine.queues} | {topic.name for topic in engine.topics}

    def private_number(self) -> int:
        """Under the lock."""
        self._privates += 1
        return self._privates

    def end(self) -> None:
        """`reset()`: everything is forgotten, every client loses its line."""
        with self.turn as calls:
            for queue in self.engine.queues:
                self.engine.delete_queue(queue.name)
            for connection in list(self.connections):
                connection.break_line(LineLost("the memory broker was reset"), calls)

    def __repr__(self) -> str:
        return f"<MemoryBroker {self.name!r}>"
