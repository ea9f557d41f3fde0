"""Real brokers as local processes: the same shape for each, on loopback, in a temporary directory."""

from __future__ import annotations

from integration.native._process import BrokerFailed, NativeBroker
from integration.native.artemis import Artemis
from integration.native.classic import Classic
from integration.native.kafka import Kafka
from integration.native.rabbitmq import RabbitMQ

BROKERS: dict[str, type[NativeBroker]] = {
    "rabbitmq": RabbitMQ,
    "kafka": Kafka,
    "artemis": Artemis,
    "classic": Classic,
}

__all__ = ["BROKERS", "Artemis", "BrokerFailed", "Classic", "Kafka", "NativeBroker", "RabbitMQ"]
