"""A one-shot completion that any number of threads and loops can wait for, without a lock.

Rules
- `set` is called once it is over, from any thread; calling it again does nothing.
- A callback is called exactly once, by whoever pops it: `list.pop` is atomic. It must not block or raise.
"""

from __future__ import annotations

import threading
from collections import deque
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


class WaitingRoom:
    """Who waits for room, first come first: waking all of them for each place that gets free would cost their square.

    Take a `turn` *before* looking for room, `leave` it in any case. `again` after a wake-up that found no room: somebody
    who did not wait was faster. Who leaves while there is room calls the next one, so nobody waits beside a free place.
    """

    __slots__ = ("_has_room", "_lock", "_waiting")

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._waiting: deque[Latch] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def turn(self) -> Latch:
        turn = Latch()
        self._waiting.append(turn)
        return turn

    def again(self, turn: Latch) -> Latch:
        if not turn.is_set:
            return turn
        renewed = Latch()
        with self._lock:
            self._waiting.appendleft(renewed)
        return renewed

    def leave(self, turn: Latch) -> None:
        with self._lock:
            called = turn.is_set
            turn.is_set = True  # passed over from now on
        if called and self._has_room():
            self.call(1)

    def call(self, count: int | None = None) -> None:
        """Wake the first `count`, or all."""
        if not self._waiting:
            return
        called: list[Latch] = []
        with self._lock:
            while self._waiting and (count is None or len(called) < count):
                turn = self._waiting.popleft()
                if not turn.is_set:
                    turn.is_set = True  # here, under the lock: who leaves now knows that it was called
                    called.append(turn)
        for turn in called:
            turn.set()
