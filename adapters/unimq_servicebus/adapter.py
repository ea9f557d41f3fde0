"""What the entry point names. Importable without the client library; it is imported when a connection is made.

Rules
- `client_factory` and `admin_factory` stand in for the library's two client classes (tests); nothing else is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unimq.address import Source, Target
from unimq.capabilities import Capabilities
from unimq.driver import ConnectOptions, Facts, Op, Plan, Sink
from unimq.errors import UnimqError
from unimq.retry import Retry
from unimq.url import Endpoint, check_options

from . import errors
from .capabilities import CAPABILITIES
from .plan import plan

if TYPE_CHECKING:
    from .connection import ClientFactory, ServiceBusConnection


class ServiceBusAdapter:
    name = "servicebus"
    extra = "servicebus"
    schemes = ("sb",)
    url_options = frozenset({"ca", "max_message_bytes"})  # the latter is the core's
    capabilities: Capabilities = CAPABILITIES

    def __init__(
        self,
        *,
        client_factory: ClientFactory | None = None,
        admin_factory: Callable[[Endpoint, ConnectOptions], Any] | None = None,
    ) -> None:
        self._client_factory = client_factory
        self._admin_factory = admin_factory

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> ServiceBusConnection:
        check_options(endpoint, self.url_options)
        from . import connection

        connection.check(endpoint, options)
        client_factory = self._client_factory
        if client_factory is None:
            from azure.servicebus import ServiceBusClient

            client_factory = ServiceBusClient
            if not {"transport_type", "http_proxy", "custom_endpoint_address"} & set(options.native):
                connection.probe(*connection.host_of(endpoint), options.connect_timeout_s)
        return connection.ServiceBusConnection(
            endpoint,
            options,
            sink,
            client_factory=client_factory,
            admin_factory=self._admin_factory or _management_client,
        )

    def classify(self, error: BaseException, *, op: Op, handed_over: bool) -> UnimqError:
        return errors.classify(error, op=op, handed_over=handed_over)

    def plan(self, source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
        return plan(source, policy, facts)


def _management_client(endpoint: Endpoint, options: ConnectOptions) -> Any:
    from azure.servicebus.management import ServiceBusAdministrationClient

    from . import connection

    if connection.is_emulator(endpoint):
        raise connection.no_admin(endpoint)
    if endpoint.parts:
        return ServiceBusAdministrationClient.from_connection_string(
            connection.connection_string(endpoint.parts)
        )
    host, _ = connection.host_of(endpoint)
    return ServiceBusAdministrationClient(host, connection.credential_of(endpoint, options))
