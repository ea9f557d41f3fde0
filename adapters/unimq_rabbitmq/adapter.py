"""What the entry points `amqp` and `amqps` name. Importable without pika."""

from __future__ import annotations

from collections.abc import Sequence

from unimq.address import Source, Target
from unimq.capabilities import Capabilities
from unimq.driver import Connection, ConnectOptions, Facts, Fault, Op, Plan, Sink
from unimq.retry import Retry
from unimq.url import Endpoint

from . import errors
from .capabilities import CAPABILITIES
from .plan import plan


class RabbitMQAdapter:
    name: str = "rabbitmq"
    extra: str = "rabbitmq"
    schemes: Sequence[str] = ("amqp", "amqps")
    url_options: frozenset[str] = frozenset(
        {"heartbeat", "max_message_bytes", "ca", "cert", "key", "verify", "mechanism", "management"}
    )
    capabilities: Capabilities = CAPABILITIES

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> Connection:
        from .connection import connect

        return connect(endpoint, options, sink)

    def classify(self, error: BaseException, *, op: Op, handed_over: bool) -> Fault:
        return errors.classify(error, op=op, handed_over=handed_over)

    def plan(self, source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
        return plan(source, policy, facts)
