"""Hooks for the conformance suite that real brokers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from integration.native import NativeBroker
from unimq.testing.conformance import Line

# what the experimental adapters must already hold
EXPERIMENTAL = (1, 12, 15, 22, 23, 26, 28, 29, 46, 67, 87, 90)


class PausedLine:
    """Silence by stopping the broker's process: for a broker whose clients learn its address from itself, so that no proxy
    stands between. Only what can be done so is done: `cut` and `refuse` raise."""

    def __init__(self, broker: NativeBroker) -> None:
        self._broker = broker

    def url(self, url: str) -> str:
        return url

    def silence(self) -> None:
        self._broker.pause()

    def heal(self) -> None:
        self._broker.resume()

    def cut(self) -> None:
        """Nothing to cut: the process goes on, and so does the connection."""

    def refuse(self) -> None:
        raise NotImplementedError("a paused process still takes connections")

    def cut_after(self, *, client_bytes: int | None = None, live: bool = False) -> None:
        raise NotImplementedError("only a proxy can count bytes")


@contextmanager
def paused_line(broker: NativeBroker) -> Iterator[Line]:
    try:
        yield PausedLine(broker)
    finally:
        broker.resume()
