"""What the fault proxy knows of one connection: two pipes, their bytes, the cuts that are set on them. Only its thread writes."""

from __future__ import annotations

import socket
import threading
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """What one connection has forwarded."""

    client_bytes: int = 0
    server_bytes: int = 0


class Cut:
    """An armed `cut_after`. `fired` counts the connections it has cut."""

    def __init__(self, direction: str, after_bytes: int, nth: int | None, times: int | None) -> None:
        self.direction = direction
        self.after_bytes = after_bytes
        self.nth = nth
        self.times = times
        self.fired = 0
        self._seen = 0
        self._done = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        """True when it has cut at least one connection, within this time."""
        return self._done.wait(timeout_s)

    def takes(self) -> bool:
        """Asked once for each connection opened after arming."""
        self._seen += 1
        return self.nth is None or self._seen == self.nth

    def fire(self) -> None:
        self.fired += 1
        self._done.set()

    @property
    def spent(self) -> bool:
        return self.times is not None and self.fired >= self.times


@dataclass(slots=True, eq=False)
class Pipe:
    """One direction of one connection."""

    name: str
    source: socket.socket
    target: socket.socket
    chunks: deque[tuple[float, memoryview]] = field(default_factory=deque)  # (not before, bytes)
    held: int = 0
    forwarded: int = 0
    ended: str = ""  # "fin" or "rst": what came after the last byte
    finished: bool = False  # that was passed on, or the target takes nothing any more
    broken: bool = False  # the latter
    cuts: list[tuple[Cut, int]] = field(default_factory=list)  # (cut, at this count of `forwarded`)


@dataclass(slots=True, eq=False)
class Link:
    """One client connection and the one it has to the broker."""

    client: Pipe
    server: Pipe
    traffic: Traffic
    connecting: bool
    dies_at: float | None = None  # being cut: at this time at the latest

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return self.client.source, self.server.source

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        return self.client, self.server
