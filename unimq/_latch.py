"""A one-shot completion that any number of threads and loops can wait for, without a lock.

Rules
- `set` is called once it is over, from any thread; calling it again does nothing.
- A callback is called exactly once, by whoever pops it: `list.pop` is atomic. It must not block or raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Latch:
    """`is_set` goes from False to True once. `loops` is the async wait kit's: its futures, one callback per loop."""

    __slots__ = ("is_set", "_callbacks", "loops", "__weakref__")

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: list[Callable[[], None]] = []
        self.loops: dict[int, list[object]] | None = None

    def set(self) -> None:
        self.is_set = True
        self._drain()

    def add(self, callback: Callable[[], None]) -> None:
        """Call `callback` when set, or now if it is."""
        self._callbacks.append(callback)
        if self.is_set:
            self._drain()

    def discard(self, callback: Callable[[], None]) -> None:
        """Forget a callback whose waiter gave up: a latch that is never set must not gather them."""
        try:
            self._callbacks.remove(callback)
        except ValueError:
            return  # it is being called, or was

    def _drain(self) -> None:
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop()
            except IndexError:
                return
            callback()


class Turnstile:
    """A latch that is renewed each time it is set: "something changed, look again".

    Take the latch *before* looking, then wait for it: a change in between has set it already.
    """

    __slots__ = ("_latch", "_lock", "_taken")

    def __init__(self) -> None:
        self._latch = Latch()
        self._taken = False  # whether anybody may be waiting for the latch: without, a turn costs nothing
        self._lock = threading.Lock()  # two turns at once must not strand who took the latch between them

    def latch(self) -> Latch:
        while True:
            latch = self._latch
            self._taken = True
            if latch is self._latch:
                return latch  # a turn from here on sees that it is taken, and sets it

    def turn(self) -> None:
        if not self._taken:
            return
        with self._lock:
            self._taken = False  # before the swap: who takes the new latch meanwhile marks it again
            latch, self._latch = self._latch, Latch()
        latch.set()
