"""What the entry point `memory` names.

Rules
- A broker is made by the first `connect` to its name (or by `broker(name)`), and lives until `reset`.
- There is no client library: `native=` takes nothing. TLS and credentials have nothing to do and are not looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from unimq.address import Source, Target
from unimq.capabilities import Capabilities
from unimq.driver import ConnectOptions, Facts, Fault, Op, Plan, Sink
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq.url import Endpoint, UrlError, parse

from .broker import MemoryBroker
from .capabilities import CAPABILITIES
from .connection import MemoryConnection
from .errors import ADAPTER, classify
from .plan import make_plan

SCHEME = "memory"


class MemoryAdapter:
    name = ADAPTER
    extra = ""
    schemes: Sequence[str] = (SCHEME,)
    url_options: frozenset[str] = frozenset()
    capabilities: Capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._brokers: dict[str, MemoryBroker] = {}

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> MemoryConnection:
        check_native(options.native)
        return MemoryConnection(self.broker(_name_of(endpoint)), options, sink)

    def classify(self, error: BaseException, *, op: Op, handed_over: bool) -> Fault:
        return classify(error, op=op, handed_over=handed_over)

    def plan(self, source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
        return make_plan(source, policy, facts)

    def broker(self, name: str) -> MemoryBroker:
        """The broker of this name, or of a whole `memory://` URL."""
        name = _plain(name)
        with self._lock:
            found = self._brokers.get(name)
            if found is None:
                found = self._brokers[name] = MemoryBroker(name)
            return found

    def reset(self, name: str | None = None) -> None:
        """Forget all brokers, or one by name or URL. A client of it loses its line; if it comes back it finds nothing."""
        with self._lock:
            if name is None:
                gone = list(self._brokers.values())
                self._brokers.clear()
            else:
                found = self._brokers.pop(_plain(name), None)
                gone = [] if found is None else [found]
        for broker in gone:
            broker.end()


def check_native(native: object) -> None:
    if isinstance(native, dict) and native:
        raise Unsupported(
            f"native option {next(iter(native))!r}: the memory broker has no client library that could take it",
            adapter=ADAPTER,
        )


def _plain(text: str) -> str:
    return _name_of(parse(text)) if text.startswith(f"{SCHEME}://") else text


def _name_of(endpoint: Endpoint) -> str:
    if endpoint.user is not None or endpoint.parts:
        raise UrlError("a memory:// URL is memory://NAME: it has no user")
    name = ",".join(host if port is None else f"{host}:{port}" for host, port in endpoint.hosts)
    if endpoint.path:
        name += f"/{endpoint.path}"
    if not name:
        raise UrlError("a memory:// URL needs a name: memory://NAME")
    return name
