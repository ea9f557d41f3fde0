"""AMQP 0-9-1 as RabbitMQ speaks it.

Rooms: `connection`, `handshake` and `channel` hold the state tables; `publishing`, `consuming`, `topology`, `transactions`,
`replies` are the methods of a channel; `node` is what connections share; `greeting` what RabbitMQ says of itself, and the
logins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unimq.broker.engine.dialect import DIALECTS
from unimq.broker.engine.vhost import VHost

from ..line import Line
from .connection import Connection
from .node import Node

if TYPE_CHECKING:
    from unimq.broker.server import Broker

__all__ = ["Connection", "Node", "make"]

DEFAULT_USERS = {"guest": "guest"}


def make(broker: Broker) -> Callable[[Line], Connection]:
    """The listener `amqp`."""
    settings = broker.settings
    dialect = DIALECTS[settings.amqp_dialect]

    def vhost(name: str) -> VHost:
        return VHost(broker.engine, name, dialect)

    vhosts = {name: vhost(name) for name in settings.vhosts}
    broker.restore(vhosts, vhost)
    node = Node(
        broker.engine,
        vhosts,
        settings.users or DEFAULT_USERS,
        dialect=dialect,
        faults=broker.faults,
    )
    node.look_at_alarm()  # what was restored counts
    broker.on_restart.append(node.restart)
    broker.after_tick.append(node.look_at_alarm)
    return lambda line: Connection(line, node)
