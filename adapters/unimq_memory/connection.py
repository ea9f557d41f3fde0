"""A client's line to the broker, and the links on it.

Rules
- A line that is broken or closed stays so: its links are dead, the core makes a new one.
- What blocks waits at a silent broker for `connect_timeout_s`, then raises `TimeoutError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from unimq.address import Source, Target
from unimq.driver import ConnectOptions, Facts, Lost, Place, ReceiverOptions, SenderOptions, Sink
from unimq.stats import Stats
from unimq.topology import Declaration, TopologyReport

from . import admin, topology
from .capabilities import CAPABILITIES
from .errors import LineLost
from .receiver import MemoryReceiver, open_receiver
from .sender import MemorySender, open_sender

if TYPE_CHECKING:
    from . import outbox
    from .broker import MemoryBroker

Link = MemorySender | MemoryReceiver


class MemoryConnection:
    capabilities = CAPABILITIES
    facts = Facts(flavour="memory")

    def __init__(self, broker: MemoryBroker, options: ConnectOptions, sink: Sink) -> None:
        self.broker = broker
        self.sink = sink
        self.error: BaseException | None = None
        self._answer_s = options.connect_timeout_s
        self._links: dict[Link, None] = {}
        self._wait_for_answer()
        with broker.turn:
            if broker.refusals:
                if broker.refusals is not True:
                    broker.refusals -= 1
                raise ConnectionRefusedError(f"the memory broker {broker.name!r} refuses connections")
            broker.connections.append(self)

    # ------------------------------------------------------------------------------------------------ the seam
    def sender(self, target: Target | Place, options: SenderOptions) -> MemorySender:
        self._wait_for_answer()
        with self.broker.turn:
            self.check()
            link = open_sender(self, target, options)
            self._links[link] = None
        return link

    def receiver(self, source: Source | Place, options: ReceiverOptions) -> MemoryReceiver:
        self._wait_for_answer()
        with self.broker.turn:
            self.check()
            link = open_receiver(self, source, options)
            self._links[link] = None
        return link

    def declare(self, topology_: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
        self._wait_for_answer()
        with self.broker.turn:
            self.check()
            return topology.declare(self.broker.engine, topology_, verify_only=verify_only)

    def close(self, timeout_s: float) -> None:
        with self.broker.turn as calls:
            if self.error is None:
                self._end(LineLost("the connection is closed"), calls)

    # ----------------------------------------------------------------------------------------------- questions
    def stats(self, place: Source | Target | Place) -> Stats:
        self._wait_for_answer()
        with self.broker.turn:
            self.check()
            return admin.stats(self.broker, place)

    def purge(self, place: Source | Place) -> int | None:
        self._wait_for_answer()
        with self.broker.turn:
            self.check()
            return admin.purge(self.broker, place)

    def delete(self, place: Source | Target | Place) -> None:
        self._wait_for_answer()
        with self.broker.turn as calls:
            self.check()
            admin.delete(self.broker, place, calls)

    def cancel(self, target: Target | Place, position: object) -> bool:
        self._wait_for_answer()
        with self.broker.turn:
            self.check()
            return admin.cancel(self.broker, target, position)

    # -------------------------------------------------------------------------- for links and faults; under the lock
    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def links(self, kind: Literal["sender", "receiver"] | None = None) -> list[Link]:
        if kind is None:
            return list(self._links)
        return [link for link in self._links if isinstance(link, MemorySender) is (kind == "sender")]

    def forget(self, link: Link) -> None:
        self._links.pop(link, None)

    def break_line(self, error: BaseException, calls: list[outbox.Call]) -> None:
        self._end(error, calls)
        calls.append(lambda: self.sink(Lost(None, error)))

    def go_on(self, calls: list[outbox.Call]) -> None:
        """The broker takes sends again, or answers again."""
        for link in list(self._links):
            link.go_on(calls)

    def _end(self, error: BaseException, calls: list[outbox.Call]) -> None:
        self.error = error
        for link in list(self._links):
            link.die(error, calls)
        if self in self.broker.connections:
            self.broker.connections.remove(self)

    def _wait_for_answer(self) -> None:
        if not self.broker.awake.wait(self._answer_s):
            raise TimeoutError(f"the memory broker {self.broker.name!r} does not answer")
