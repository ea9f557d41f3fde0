"""Real brokers as local processes: the same shape for each, on loopback, in a temporary directory.

A broker is asked for by a label: its name, or its name and the words of a variant, `rabbitmq+tls` (see `security.py`).
"""

from __future__ import annotations

from integration.native._process import BrokerFailed, NativeBroker
from integration.native.artemis import Artemis
from integration.native.classic import Classic
from integration.native.kafka import Kafka
from integration.native.rabbitmq import RabbitMQ
from integration.native.security import Authority, Variant

BROKERS: dict[str, type[NativeBroker]] = {
    "rabbitmq": RabbitMQ,
    "kafka": Kafka,
    "artemis": Artemis,
    "classic": Classic,
}


def kind_of(label: str) -> type[NativeBroker]:
    return read(label)[0]


def make(label: str, authority: Authority | None = None) -> NativeBroker:
    """Not started yet. Brokers of one `authority` trust the same certificates."""
    kind, variant = read(label)
    return kind(variant, authority)


def read(label: str) -> tuple[type[NativeBroker], Variant]:
    """`ValueError` names what is not known."""
    name, *words = label.split("+")
    if name not in BROKERS:
        raise ValueError(f"no broker {name!r}: one of {', '.join(BROKERS)}")
    kind = BROKERS[name]
    if unknown := sorted(set(words) - set(kind.words)):
        raise ValueError(f"no variant {'+'.join(unknown)!r} of {name}: any of {', '.join(kind.words)}")
    return kind, Variant(tuple(words))


def variable(label: str) -> str:
    """The variable of the environment that has its URL: `UNIMQ_RABBITMQ_TLS_URL`."""
    return f"UNIMQ_{label.upper().replace('+', '_')}_URL"


__all__ = [
    "BROKERS", "Artemis", "Authority", "BrokerFailed", "Classic", "Kafka", "NativeBroker", "RabbitMQ", "Variant",
    "kind_of", "make", "read", "variable",
]  # fmt: skip
