"""A connection: the library's client, which opens a TCP connection of its own for every link.

Rules
- There is no connection-level login here: a wrong key shows when the first link opens.
- The library is told not to retry (`retry_total=0`); the core's supervisor does.
- Every wait of the library has a bound: `TRY_TIMEOUT_S` for opening, sending and management, `OUTCOME_TIMEOUT_S` for a
  settlement.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)

from unimq.address import Source, Target, Topic
from unimq.capabilities import Capabilities
from unimq.driver import ConnectOptions, Facts, Password, Place, ReceiverOptions, SenderOptions, Sink, Token
from unimq.errors import AuthenticationFailed, Closed, NotFound, UnimqError, Unsupported
from unimq.stats import Stats
from unimq.topology import Declaration, TopologyReport
from unimq.url import Endpoint, UrlError

from . import admin, errors, names, topology
from .capabilities import CAPABILITIES
from .commands import LaneOptions
from .lane import SESSION_TRY_S
from .names import Entity
from .receiver import ServiceBusReceiverLink
from .sender import ServiceBusSenderLink

DOMAIN: Final = ".servicebus.windows.net"
TLS_PORT: Final = 5671
PLAIN_PORT: Final = 5672
TRY_TIMEOUT_S: Final = 10.0
OUTCOME_TIMEOUT_S: Final = 10.0
FAILED_CLOSE_S: Final = 1.0
OPEN_MARGIN_S: Final = 2.0  # beyond the library's own bound
TOKEN_LIFE_S: Final = 3600.0  # of a token that does not say
SAS: Final = "SharedAccessSignature"
NATIVE: Final = frozenset(
    {
        "connection_verify", "custom_endpoint_address", "http_proxy", "logging_enable", "socket_timeout",
        "ssl_context", "transport_type", "user_agent",
    }
)  # fmt: skip


class ClientFactory(Protocol):
    """`ServiceBusClient` itself, or what a test puts in its place."""

    def __call__(self, fully_qualified_namespace: str, credential: Any, **options: Any) -> Any: ...
    def from_connection_string(self, conn_str: str, **options: Any) -> Any: ...


class _AskedToken:
    """A credential of ours as the library's: asked again whenever the library needs a token."""

    def __init__(self, ask: Callable[[], Password | Token]) -> None:
        self._ask = ask

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        token = self._ask()
        if not isinstance(token, Token):
            raise AuthenticationFailed("the credential gave a password after a token", adapter="servicebus")
        ends = token.expires_at if token.expires_at is not None else time.time() + TOKEN_LIFE_S
        return AccessToken(token.value, int(ends))


def credential_of(endpoint: Endpoint, options: ConnectOptions) -> Any:
    """What the library takes: a key with its name, a signature, or whatever gives tokens."""
    given: Any = options.credential
    if given is None:
        if endpoint.user is None or endpoint.password is None:
            raise AuthenticationFailed(
                f"{endpoint} has no key: give connect(credential=...), or a whole connection string",
                adapter="servicebus",
            )
        return AzureNamedKeyCredential(endpoint.user, endpoint.password)
    if hasattr(given, "get_token"):
        return given  # an azure TokenCredential
    first = given()
    if isinstance(first, Password):
        return AzureNamedKeyCredential(first.user, first.password)
    if first.value.startswith(SAS):
        return AzureSasCredential(first.value)
    return _AskedToken(given)


def check(endpoint: Endpoint, options: ConnectOptions) -> None:
    """Before any I/O."""
    if "entitypath" in endpoint.parts:
        raise UrlError("EntityPath in the connection string: take it out, places are addresses here")
    if unknown := sorted(set(options.native) - NATIVE):
        raise UrlError(f"native: unknown {', '.join(unknown)}; known: {', '.join(sorted(NATIVE))}")
    if len(endpoint.hosts) != 1:
        raise UrlError("sb:// takes one namespace")
    if endpoint.path:
        raise UrlError("sb:// takes no path: places are addresses here")


def is_emulator(endpoint: Endpoint) -> bool:
    return endpoint.parts.get("usedevelopmentemulator", "").lower() == "true"


def host_of(endpoint: Endpoint) -> tuple[str, int]:
    host, port = endpoint.hosts[0]
    if "." not in host and not endpoint.parts and host != "localhost":
        host += DOMAIN
    return host, port or (PLAIN_PORT if is_emulator(endpoint) else TLS_PORT)


def client_options(endpoint: Endpoint, options: ConnectOptions) -> dict[str, Any]:
    host, port = host_of(endpoint)
    made: dict[str, Any] = {
        "retry_total": 0,
        "try_timeout": min(TRY_TIMEOUT_S, options.connect_timeout_s),
        "user_agent": options.client_name,
    }
    if options.tls is not None:
        made["ssl_context"] = options.tls
    if "ca" in endpoint.options:
        made["connection_verify"] = endpoint.options["ca"]
    if port != TLS_PORT and not is_emulator(endpoint):
        # the library drops the port of an endpoint with TLS, in silence, and goes to 5671
        made["custom_endpoint_address"] = f"sb://{host}:{port}"
        made["transport_type"] = TransportType.Amqp
    return {**made, **options.native}


def connection_string(parts: Mapping[str, str]) -> str:
    """As the library reads it; the emulator's flag only counts in lower case."""
    spelled = {
        "endpoint": "Endpoint",
        "sharedaccesskeyname": "SharedAccessKeyName",
        "sharedaccesskey": "SharedAccessKey",
        "sharedaccesssignature": SAS,
    }
    told = [f"{spelled[key]}={value}" for key, value in parts.items() if key in spelled]
    if parts.get("usedevelopmentemulator", "").lower() == "true":
        told.append("UseDevelopmentEmulator=true")
    return ";".join(told)


def probe(host: str, port: int, timeout_s: float) -> None:
    """A refused or silent host is told at connect, not at the first link."""
    socket.create_connection((host, port), timeout=timeout_s).close()


class ServiceBusConnection:
    def __init__(
        self,
        endpoint: Endpoint,
        options: ConnectOptions,
        sink: Sink,
        *,
        client_factory: ClientFactory,
        admin_factory: Callable[[Endpoint, ConnectOptions], Any],
    ) -> None:
        self.capabilities: Capabilities = CAPABILITIES
        self.facts = Facts(flavour="emulator" if is_emulator(endpoint) else "azure")
        self._sink = sink
        self._open_timeout_s = options.connect_timeout_s + OPEN_MARGIN_S
        self._make_admin = partial(admin_factory, endpoint, options)
        self._lock = threading.Lock()
        self._admin: Any = None
        self._links: set[ServiceBusSenderLink | ServiceBusReceiverLink] = set()
        self._closed = False
        if endpoint.parts:
            self._client = client_factory.from_connection_string(
                connection_string(endpoint.parts), **client_options(endpoint, options)
            )
        else:
            host, _ = host_of(endpoint)
            self._client = client_factory(
                host, credential_of(endpoint, options), **client_options(endpoint, options)
            )

    # ---------------------------------------------------------------------------------------------- links
    def sender(self, target: Target | Place, options: SenderOptions) -> ServiceBusSenderLink:
        if options.unroutable == "error" and isinstance(target, Topic):
            raise Unsupported(
                "Service Bus does not tell that a topic has no subscriptions", adapter="servicebus"
            )
        if options.compression is not None:
            raise Unsupported("Service Bus does not compress", adapter="servicebus")
        entity = names.entity_of(target)
        link = ServiceBusSenderLink(
            self._make_sender(entity), entity.path, self._sink, sessions=entity.sessions
        )
        self._keep(link)
        self._opened(link)
        return link

    def receiver(self, source: Source | Place, options: ReceiverOptions) -> ServiceBusReceiverLink:
        lanes = [self._lane(names.entity_of(source), None, options)]
        lanes += [self._lane(names.entity_of(place), place, options) for place in options.also_read]
        link = ServiceBusReceiverLink(lanes, options, self._sink)
        self._keep(link)
        self._opened(link)
        return link

    def _opened(self, link: ServiceBusSenderLink | ServiceBusReceiverLink) -> None:
        try:
            link.open(self._open_timeout_s)
        except BaseException:
            link.close(FAILED_CLOSE_S)  # a lane that did open must not live on
            raise

    def _keep(self, link: ServiceBusSenderLink | ServiceBusReceiverLink) -> None:
        with self._lock:
            if self._closed:
                raise Closed("the connection is closed")
            self._links = {other for other in self._links if not other.ended}
            self._links.add(link)

    def _lane(self, entity: Entity, place: Place | None, options: ReceiverOptions) -> LaneOptions:
        session = None if entity.dead or options.mode == "browse" else options.session
        rolling = entity.sessions and session is None and options.mode in ("consume", "on_receive")
        return LaneOptions(
            make=partial(self._make_receiver, entity),
            what=entity.path,
            place=place,
            mode=options.mode,
            session="next" if rolling else session,
            rolling=rolling,
            positions=tuple(options.positions or ()) if options.mode == "deferred" else (),
        )

    def _make_sender(self, entity: Entity) -> Any:
        if entity.dead or entity.kind == "subscription":
            raise Unsupported(f"nothing can be sent to {entity.path}", adapter="servicebus")
        with self._lock:  # the client keeps its links in a set that is not thread-safe; this does no I/O
            if entity.kind == "topic":
                return self._client.get_topic_sender(topic_name=entity.name)
            return self._client.get_queue_sender(queue_name=entity.name)

    def _make_receiver(self, entity: Entity, session: str | None, **more: Any) -> Any:
        options: dict[str, Any] = {"prefetch_count": 0, "timeout": OUTCOME_TIMEOUT_S, **more}
        if entity.dead:
            options["sub_queue"] = ServiceBusSubQueue.DEAD_LETTER
        if session is not None:
            options["session_id"] = NEXT_AVAILABLE_SESSION if session == "next" else session
            options["max_wait_time"] = SESSION_TRY_S
        with self._lock:
            if entity.kind == "subscription":
                return self._client.get_subscription_receiver(
                    topic_name=entity.name, subscription_name=entity.subscription, **options
                )
            return self._client.get_queue_receiver(queue_name=entity.name, **options)

    # ------------------------------------------------------------------------------------ topology, admin
    def declare(self, declarations: list[Declaration], *, verify_only: bool) -> TopologyReport:
        report = topology.declare(self._management(), declarations, verify_only=verify_only)
        if report.facts:
            self.facts = dataclasses.replace(self.facts, extra={**self.facts.extra, **report.facts})
        return report

    def stats(self, place: Source | Target | Place) -> Stats:
        return admin.stats(self._management(), names.entity_of(place))

    def purge(self, place: Source | Place) -> int | None:
        entity = names.entity_of(place)
        if entity.sessions:
            raise Unsupported("purging a place with sessions is not built yet", adapter="servicebus")
        mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
        return admin.purge(self._make_receiver(entity, None, receive_mode=mode))

    def delete(self, place: Source | Target | Place) -> None:
        admin.delete(self._management(), names.entity_of(place))

    def cancel(self, target: Target | Place, position: Any) -> bool:
        """On a link of its own: a sender's owner may be busy, and cancelling is rare."""
        with self._make_sender(names.entity_of(target)) as sdk:
            try:
                sdk.cancel_scheduled_messages(position)
            except Exception as error:  # told apart by the table; what is not "already gone" is raised
                row = errors.row_of(error)
                if row is not None and row.kind is NotFound and not row.ends_link:
                    return False
                raise
        return True

    def _management(self) -> Any:
        with self._lock:
            if self._closed:
                raise Closed("the connection is closed")
            if self._admin is None:
                self._admin = self._make_admin()
            return self._admin

    # --------------------------------------------------------------------------------------------- the end
    def close(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with self._lock:
            if self._closed:
                return
            self._closed = True
            links, self._links = list(self._links), set()
            management = self._admin
        closers = [
            threading.Thread(target=link.close, args=(timeout_s,), name="unimq-sb-close", daemon=True)
            for link in links
        ]
        for closer in closers:  # closing a link costs the library half a second: all at once
            closer.start()
        for closer in closers:
            closer.join(max(end - time.monotonic(), 0))
        self._client.close()
        if management is not None:
            management.close()


def no_admin(endpoint: Endpoint) -> UnimqError:
    return Unsupported(
        'declaring on the emulator is not built yet (its management has no TLS): connect(topology="assume")',
        adapter="servicebus",
    )
