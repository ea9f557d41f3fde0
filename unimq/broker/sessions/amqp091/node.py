"""What all AMQP 0-9-1 sessions of a broker share: virtual hosts, users, the memory alarm.

Rules
- The alarm is set when the engine holds more than a part of its bound, and cleared below a smaller one. While it is set,
  whoever publishes is told so and is not read any further; everybody else goes on.
- Names that the server makes up come from the engine's seeded generator, so that a failure can be replayed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from unimq.broker.engine import Engine, Entry
from unimq.broker.engine.dialect import Dialect
from unimq.broker.engine.vhost import VHost
from unimq.broker.faults import Faults

from .limits import ALARM_AT, ALARM_OFF_AT

if TYPE_CHECKING:
    from .connection import Connection


class Node:
    def __init__(
        self,
        engine: Engine,
        vhosts: Mapping[str, VHost],
        users: Mapping[str, str],
        *,
        dialect: Dialect,
        faults: Faults,
        name: str = "unimq@localhost",
    ) -> None:
        self.engine = engine
        self.vhosts = vhosts
        self.users = users
        self.dialect = dialect
        self.faults = faults
        self.name = name
        self.connections: dict[Connection, None] = {}
        self.alarm = False

    def made_name(self, prefix: str) -> str:
        """amq.gen-… and amq.ctag-…: 16 random bytes, as RabbitMQ writes them."""
        return prefix + base64.urlsafe_b64encode(self.engine.random.randbytes(16)).decode().rstrip("=")

    def restart(self) -> None:
        """What is not durable goes. Quorum queues keep all their messages, as RabbitMQ's do."""
        for vhost in self.vhosts.values():
            for queue in list(vhost.queues.values()):
                if not queue.durable:
                    vhost.remove_queue(queue)
                elif queue.spec.kind == "classic":
                    transient = queue.core.lease(self, queue.core.ready, wants=_is_transient)
                    queue.core.ack(transient)
            for exchange in list(vhost.exchanges.values()):
                if not exchange.durable:
                    vhost.delete_exchange(exchange.name)

    def look_at_alarm(self) -> None:
        """After anything that changed how much is held."""
        budget = self.engine.budget
        limit = budget.limit_bytes * (ALARM_OFF_AT if self.alarm else ALARM_AT)
        if (budget.held_bytes > limit) is self.alarm:
            return
        self.alarm = not self.alarm
        if not self.alarm:
            for connection in list(self.connections):
                connection.unblock()


def _is_transient(entry: Entry) -> bool:
    return not entry.stored.persistent
