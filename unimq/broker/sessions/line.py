"""What a session is given by the server, and what the server asks of it.

Rules
- The server calls `receive` with what came, and writes what the session has put into `out` when it returns: one write a
  turn, however many frames. Who has something to say outside its own turn calls `line.flush_soon()`.
- `line.writable` is false while the peer does not read: then nothing is delivered. `writable_again` follows.
- A session that has put much into `out` stops working, sets `wants_turn` and pauses reading: it is called (`writable_again`)
  once that is written and the peer reads, and goes on. So a turn is bounded in what it says as well.
- `line.pause_reading(reason)` stops the peer; each reason is lifted by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Line(Protocol):
    peer: str  # host:port of the other end, for error texts and logs
    certificate_name: str | None  # common name of a client certificate that was verified; None without
    writable: bool
    reading: bool

    def waiting_bytes(self) -> int:
        """Written here and not taken by the peer yet."""

    def flush_soon(self) -> None:
        """`out` has something; it is written before the loop waits again."""

    def close(self) -> None:
        """Write what is in `out`, then end."""

    def cut(self) -> None:
        """End now; what was not written is lost."""

    def pause_reading(self, reason: str) -> None: ...

    def resume_reading(self, reason: str) -> None: ...

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """In real time, whatever the broker's clock does. Answers with what cancels it; ends with the line."""

    def now(self) -> float:
        """Real time, monotonic."""


class Session(Protocol):
    out: list[bytes]
    wants_turn: bool

    def receive(self, data: bytes) -> None:
        """Never raises: what is wrong with `data` is answered in the protocol."""

    def flushing(self) -> None:
        """`out` is about to be written: whatever was held back to be said once (confirms) is put there."""

    def writable_again(self) -> None: ...

    def lost(self) -> None:
        """The line is gone. Called once, whoever ended it."""
