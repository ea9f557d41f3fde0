"""What the entry points `kafka`, `kafkas` and (later) `eventhubs` name. Importable without confluent-kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unimq.address import Source, Target
from unimq.capabilities import Capabilities
from unimq.driver import ConnectOptions, Facts, Fault, Op, Plan, Sink
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq.url import Endpoint, check_options

from . import settings
from .capabilities import CAPABILITIES
from .errors import ADAPTER_NAME, classify
from .plan import make_plan

if TYPE_CHECKING:
    from .connection import KafkaConnection


class KafkaAdapter:
    name = ADAPTER_NAME
    extra = "kafka"
    schemes: Sequence[str] = ("kafka", "kafkas", "eventhubs")
    url_options = settings.URL_OPTIONS
    capabilities: Capabilities = CAPABILITIES

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> KafkaConnection:
        if endpoint.scheme == "eventhubs":
            raise Unsupported("eventhubs:// is not built yet; Event Hubs' Kafka endpoint was never tried")
        check_options(endpoint, self.url_options)
        settings.check(endpoint, options)
        from .connection import KafkaConnection

        return KafkaConnection.open(endpoint, options, sink)

    def classify(self, error: BaseException, *, op: Op, handed_over: bool) -> Fault:
        return classify(error, op=op, handed_over=handed_over)

    def plan(self, source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
        return make_plan(source, policy, facts)
