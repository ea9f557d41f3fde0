"""The adapter: what the entry point names. Importing it imports no client library."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from unimq.address import Source, Target
from unimq.capabilities import Capabilities
from unimq.driver import ConnectOptions, Facts, Fault, Op, Password, Plan, Sink
from unimq.errors import ConnectionFailed, Unsupported
from unimq.retry import Retry
from unimq.url import Endpoint, UrlError, check_options

from . import capabilities as caps
from . import errors, names
from . import plan as plans

if TYPE_CHECKING:
    from .connection import Connection, OnEnd
    from .session import Session

_DEFAULT_PORT: Final = {"stomp": 61613, "stomps": 61614}
_ALIASES: Final = {"activemq": "stomp", "activemqs": "stomps"}
_CLASSIC, _ARTEMIS = "ActiveMQ/", "ActiveMQ-Artemis/"


class ActiveMQAdapter:
    name = "activemq"
    extra = "activemq"
    schemes: Sequence[str] = ("stomp", "stomps", "activemq", "activemqs")
    url_options = frozenset({"ca", "cert", "key", "verify", "max_message_bytes"})
    capabilities = caps.MOST

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> Connection:
        check_options(endpoint, self.url_options)
        if options.native:
            raise Unsupported(f"native options: {', '.join(options.native)}", adapter=self.name)
        limit = _max_bytes(endpoint)
        from .connection import Connection  # here, so that a missing client library shows only now

        def describe(headers: dict[str, str]) -> tuple[str, str, Capabilities]:
            flavour, version = flavour_of(headers.get("server", ""))
            return flavour, version, caps.found(flavour, version, limit)

        return Connection(_Opener(endpoint, options).open, describe, sink)

    def classify(self, error: BaseException, *, op: Op, handed_over: bool) -> Fault:
        return errors.classify(error, op=op, handed_over=handed_over)

    def plan(self, source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
        return plans.plan(source, policy, facts)


def flavour_of(server: str) -> tuple[str, str]:
    """(flavour, version) by CONNECTED's `server` header; the two brokers contradict each other, so no guess."""
    for prefix, flavour in ((_ARTEMIS, names.ARTEMIS), (_CLASSIC, names.CLASSIC)):
        if server.startswith(prefix):
            return flavour, server[len(prefix) :].split()[0] if server[len(prefix) :].strip() else ""
    raise errors.NotActiveMQ(
        f"a STOMP broker that calls itself {server or '(nothing)'!r}: this adapter knows ActiveMQ Classic and Artemis"
    )


def _max_bytes(endpoint: Endpoint) -> int | None:
    text = endpoint.options.get("max_message_bytes")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UrlError("max_message_bytes is a number of bytes, 1 or more")
    return int(text)


class _Opener:
    """Opens the STOMP connections of one `Connection`: credentials, TLS and hosts anew each time."""

    def __init__(self, endpoint: Endpoint, options: ConnectOptions) -> None:
        self._endpoint = endpoint
        self._options = options
        self._scheme = _ALIASES.get(endpoint.scheme, endpoint.scheme)
        if not endpoint.hosts:
            raise UrlError(f"a {endpoint.scheme}:// URL names a host")
        self._hosts = list(endpoint.hosts)

    def open(self, role: str, on_end: OnEnd) -> tuple[Session, dict[str, str]]:
        from .session import Session

        user, password = self._who()
        tls = self._tls()
        deadline = time.monotonic() + self._options.connect_timeout_s
        failure: Exception | None = None
        hosts = list(self._hosts)
        for tried, (host, port) in enumerate(hosts):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            session = Session(role, on_end)
            try:
                headers = session.connect(
                    host,
                    port or _DEFAULT_PORT[self._scheme],
                    tls,
                    user=user,
                    password=password,
                    vhost=unquote(self._endpoint.path) if self._endpoint.path else None,
                    timeout_s=left / (len(hosts) - tried),  # a silent host must leave time for the next
                )
            except OSError as error:
                failure = error
                continue
            self._hosts = [hosts[tried]]  # both connections go to one broker
            return session, headers
        raise failure or ConnectionFailed("no host answered in time", adapter=errors.ADAPTER)

    def _who(self) -> tuple[str | None, str | None]:
        if self._options.credential is None:
            return self._endpoint.user, self._endpoint.password
        given = self._options.credential
        credential = given() if callable(given) else given
        if not isinstance(credential, Password):
            raise Unsupported(
                "a token as credential: STOMP logs in with user and password", adapter=errors.ADAPTER
            )
        return credential.user, credential.password

    def _tls(self) -> ssl.SSLContext | None:
        options = self._endpoint.options
        if self._scheme == "stomp":
            if self._options.tls is not None or any(
                name in options for name in ("ca", "cert", "key", "verify")
            ):
                raise UrlError("TLS options need stomps:// (or activemqs://)")
            return None
        if self._options.tls is not None:
            return self._options.tls
        context = ssl.create_default_context(cafile=options.get("ca"))
        if options.get("cert"):
            context.load_cert_chain(options["cert"], options.get("key"))
        verify = options.get("verify", "true")
        if verify not in ("true", "false"):
            raise UrlError("verify is true or false")
        if verify == "false":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
