"""The listeners there are, by name, and what they are told.

Rules
- A line of LISTENERS is a protocol: the module that makes its sessions, loaded when the listener is wanted, and how its URL is
  written. `make(broker)` there is called once, and answers with what makes a session for each connection.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from .engine.limits import ENGINE_MAX_BYTES
from .faults import Faults

if TYPE_CHECKING:
    from .peer import Peer
    from .server import Broker
    from .sessions.line import Session

Maker = Callable[["Broker"], Callable[["Peer"], "Session"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    listen: Mapping[str, int]  # listener → port; 0: a free one
    host: str = "127.0.0.1"
    users: Mapping[str, str] | None = None  # None: the broker's own defaults, guest/guest and admin/admin
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    tls_ca: str | None = None  # for the URLs: what a client is to trust; the certificate itself without
    max_bytes: int = ENGINE_MAX_BYTES
    amqp_dialect: str = "3"
    vhosts: tuple[str, ...] = ("/",)
    data: Path | None = None  # the directory of what outlives the process
    seed: int = 0
    faults: Faults = field(default_factory=Faults)

    def login(self, default: str) -> tuple[str, str]:
        """For the URLs: the first user there is."""
        return next(iter(self.users.items())) if self.users else (default, default)


@dataclass(frozen=True, slots=True)
class Listener:
    module: str
    scheme: str
    user: str  # the broker's own default, also its password

    def load(self) -> Maker:
        return cast(Maker, importlib.import_module(self.module, __package__).make)

    def url(self, settings: Settings, port: int) -> str:
        user, password = settings.login(self.user)
        secure = settings.tls_cert is not None
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        ca = f"?ca={quote(settings.tls_ca or settings.tls_cert or '', safe='/')}" if secure else ""
        return f"{self.scheme}{'s' * secure}://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/{ca}"


LISTENERS: Final[dict[str, Listener]] = {
    "amqp": Listener(".sessions.amqp091", "amqp", "guest"),
}
