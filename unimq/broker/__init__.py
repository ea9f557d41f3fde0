"""The reference broker: real protocols on sockets, in front of one pure engine.

Rooms: `engine/` holds queues and topics and knows no protocol; `sessions/<protocol>` turn frames into engine calls;
`server` is the sockets, `listeners` what it listens for, `faults` what it does wrong on purpose, `data/` what outlives it.
It is made for tests and development: what it promises is that clients cannot tell it from the broker it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import Broker

__all__ = ["run"]


def run(**options: Any) -> Broker:
    """A running broker in this process: `run(amqp=0)`; without any listener named, all of them on free ports. See
    `unimq.broker.server.run`."""
    from .listeners import LISTENERS
    from .server import run as run_server

    if not options.keys() & set(LISTENERS):
        options |= dict.fromkeys(LISTENERS, 0)
    return run_server(**options)
