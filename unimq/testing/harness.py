"""What a broker's test file tells the conformance suite about its broker.

Rules
- Only `url` is needed. Every other field is a hook that the broker may not have: None = the behaviours that need it are
  reported as not run, never as passed.
- Names are unique per process and call, so that cases share a broker without an order between them.
- Time: with a `clock` the suite moves it; without one it waits for real.
- `known` is the table of known differences: behaviour number → reason. One that no longer differs fails.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..address import Queue, Subscription, Target, Topic
from ..capabilities import Capabilities
from ..url import parse, scheme_of

_counter = itertools.count(1)
_process = secrets.token_hex(3)


class Clock(Protocol):
    """A broker's clock that a test can move."""

    def advance(self, seconds: float) -> object: ...


class Line(Protocol):
    """The line between a client and its broker, with faults; `unimq.testing.proxy.FaultProxy` is one."""

    def url(self, url: str) -> str: ...
    def cut(self) -> object: ...
    def cut_after(self, *, client_bytes: int | None = None, live: bool = False) -> object: ...
    def silence(self) -> None: ...
    def refuse(self) -> None: ...
    def heal(self) -> None: ...


def through_proxy(url: str, default_port: int) -> Callable[[], AbstractContextManager[Line]]:
    """The `proxy` hook for a broker that is one TCP address: a fresh `FaultProxy` to the first host of `url`."""

    def open_line() -> AbstractContextManager[Line]:
        from .proxy import FaultProxy

        host, port = parse(url).hosts[0]
        return FaultProxy(host, port or default_port)

    return open_line


@dataclass(kw_only=True)
class Harness:
    """See the module. The hooks:

    - `proxy`: opens a Line to the broker. `restart`: restarts the broker, keeping what is durable; returns when it is up.
    - `foreign_send(queue, body, headers)` and `foreign_receive(queue) -> (body, headers)`: with the raw client, no unimq.
    - `missing`: an address that the broker does not have; by default a queue that nobody declared.
    - `bad_login_url`, `untrusted_tls_url`: URLs that must be refused, for the password and for the certificate.
    - `break_link(client, receiver)`: the broker closes the channel or session of `receiver`, the connection lives on.
    - `mismatch`: two sets of options for `declare` that contradict each other.
    - `label`: what the ledger calls this broker, before what the broker says of itself.
    - `places()`: names of all places at the broker, to see what is left behind.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[int, str] = field(default_factory=dict)
    label: str = ""
    clock: Clock | None = None
    proxy: Callable[[], AbstractContextManager[Line]] | None = None
    restart: Callable[[], None] | None = None
    foreign_send: Callable[[Queue, bytes, Mapping[str, str]], None] | None = None
    foreign_receive: Callable[[Queue], tuple[bytes, Mapping[str, Any]]] | None = None
    missing: Callable[[], Target] | None = None
    bad_login_url: str | None = None
    untrusted_tls_url: str | None = None
    break_link: Callable[[Any, Any], None] | None = None
    mismatch: tuple[Mapping[str, Any], Mapping[str, Any]] | None = ({"max_length": 10}, {"max_length": 20})
    places: Callable[[], set[str]] | None = None
    # how long to wait for what must come, and for what must not
    patience_s: float = 20.0
    quiet_s: float = 0.5
    # the unit of delays, and how often open-use-close is repeated in the leak test
    delay_s: float = 1.0
    cycles: int = 100
    _found: Capabilities | None = field(default=None, repr=False)

    @property
    def capabilities(self) -> Capabilities:
        """What this broker turned out to have; found by one connection."""
        if self._found is None:
            import unimq

            with unimq.connect(self.url, **self.options) as client:
                self._found = client.capabilities
        return self._found

    @property
    def found(self) -> str:
        """The broker by name and version."""
        return " ".join(filter(None, (self.label, self.capabilities.found or scheme_of(self.url))))

    # -- names
    def unique(self, word: str = "x") -> str:
        return f"uq-{word}-{_process}-{os.getpid()}-{next(_counter)}"

    def queue(self, word: str = "queue", **options: Any) -> Queue:
        return Queue(self.unique(word), **options)

    def topic(self, word: str = "topic") -> Topic:
        return Topic(self.unique(word))

    def subscription(self, topic: Topic, word: str = "group", **options: Any) -> Subscription:
        return Subscription(topic, self.unique(word), **options)

    def nowhere(self) -> Target:
        """An address that the broker does not have."""
        return self.missing() if self.missing is not None else self.queue("missing")

    def url_with(self, **options: object) -> str:
        """The URL with these options added."""
        joint = "&" if "?" in self.url else "?"
        return self.url + joint + "&".join(f"{name}={value}" for name, value in options.items())
