"""The broker as a process that ends with whoever started it: `python -m tests.broker.data.victim BUG …` is `unimq broker …`,
with the bug BUG in it on purpose ("none": as it is). It ends when its standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from unimq.broker import command
from unimq.broker.data import store
from unimq.broker.engine import Entry
from unimq.broker.engine.message import LEASED
from unimq.broker.server import Broker

LATE_S: Final = 0.05


def late_commit() -> None:
    """What is confirmed is committed up to 50 ms later."""
    committed = Broker.committed
    last_s = 0.0

    def late(self: Broker) -> bool:
        nonlocal last_s
        if time.monotonic() - last_s < LATE_S:
            return True
        last_s = time.monotonic()
        return committed(self)

    Broker.committed = late  # type: ignore[method-assign]


def one_queue_only() -> None:
    """A message that goes to several queues is kept for the first of them."""
    entered = store.StoredQueue.entered
    last: list[object] = [None]

    def once(self: store.StoredQueue, entry: Entry) -> None:
        if entry.stored is not last[0]:
            last[0] = entry.stored
            entered(self, entry)

    store.StoredQueue.entered = once  # type: ignore[method-assign]


def gone_when_delivered() -> None:
    """A message is deleted when it is handed out, not when it is settled."""
    changed, entered = store.StoredQueue.changed, store.StoredQueue.entered

    def deleted(self: store.StoredQueue, entry: Entry) -> None:
        (self.left if entry.state == LEASED else changed.__get__(self))(entry)

    def never_there(self: store.StoredQueue, entry: Entry) -> None:
        if entry.state != LEASED:  # it may go to a waiting consumer at once
            entered(self, entry)

    store.StoredQueue.changed = deleted  # type: ignore[method-assign]
    store.StoredQueue.entered = never_there  # type: ignore[method-assign]


def end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


BUGS: Final[dict[str, Callable[[], None]]] = {
    "late-commit": late_commit,
    "one-queue-only": one_queue_only,
    "gone-when-delivered": gone_when_delivered,
}
NO_BUG: Final = "none"

if __name__ == "__main__":
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    BUGS.get(sys.argv[1], lambda: None)()
    sys.exit(command.main(sys.argv[2:]))
