"""The faults that a test can have of a memory broker.

Rules
- A fault is what a network or a broker does, seen from the client: nothing here loses what was confirmed.
- `drop_connections`, `restart`: each client is told `Lost`; what was sent and not answered stays unknown.
- `block`: the broker says that it takes no sends, and they wait. `pause`: it says nothing at all (a half-open line).
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Literal

from unimq.driver import Blocked, Lost, Unblocked

from .errors import LineLost

if TYPE_CHECKING:
    from .broker import Turn
    from .connection import MemoryConnection


class Faults:
    """Base of MemoryBroker. Every method may be called from any thread."""

    turn: Turn
    connections: list[MemoryConnection]

    def __init__(self) -> None:
        self.blocked = False
        self.paused = False
        self.awake = threading.Event()  # not paused: what blocks waits for it
        self.awake.set()
        self.refusals: int | bool = False
        self.unconfirmed_batches = 0
        self.drops_next_batch = False

    def drop_connections(self, reason: str = "the line was cut") -> None:
        """All lines break now."""
        with self.turn as calls:
            for connection in list(self.connections):
                connection.break_line(LineLost(reason), calls)

    def restart(self) -> None:
        """As a broker with persisted queues: all lines break, leases return, private subscriptions are gone."""
        self.drop_connections("the broker restarts")

    def drop_in_next_batch(self) -> None:
        """The next batch that is sent is cut in its middle: half of it is stored, nothing is answered."""
        with self.turn:
            self.drops_next_batch = True

    def refuse(self, connects: int | bool = True) -> None:
        """Refuse the next `connects`, or all until `refuse(False)`."""
        with self.turn:
            self.refusals = connects

    def lose_confirms(self, batches: int = 1) -> None:
        """The next `batches` are stored, and their confirmation never comes."""
        with self.turn:
            self.unconfirmed_batches = batches

    def kill_links(self, kind: Literal["sender", "receiver"] | None = None) -> int:
        """Links die under living connections, as a channel does. Answers how many."""
        killed = 0
        with self.turn as calls:
            for connection in list(self.connections):
                for link in connection.links(kind):
                    error = LineLost("the broker closed this link")
                    link.die(error, calls)
                    calls.append(partial(connection.sink, Lost(link, error)))
                    killed += 1
        return killed

    def block(self, reason: str = "memory") -> None:
        """Take no more sends for now, and say so."""
        with self.turn as calls:
            self.blocked = True
            for connection in self.connections:
                calls.append(partial(connection.sink, Blocked(reason)))

    def unblock(self) -> None:
        with self.turn as calls:
            self.blocked = False
            for connection in list(self.connections):
                calls.append(partial(connection.sink, Unblocked()))
                connection.go_on(calls)

    def pause(self) -> None:
        """Accept everything and answer nothing."""
        with self.turn:
            self.paused = True
            self.awake.clear()

    def resume(self) -> None:
        """What came meanwhile is dealt with now."""
        with self.turn as calls:
            self.paused = False
            self.awake.set()
            for connection in list(self.connections):
                connection.go_on(calls)
