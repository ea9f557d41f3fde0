"""Brokers with TLS that take a password, a client's certificate or a token: a real RabbitMQ and the reference broker.

- A site presents any certificate it is told to, tells who is logged in, and issues tokens; the CA is made on the spot.
- The real one checks signed tokens by its OAuth 2 plugin; the reference broker knows the newest token as a password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from integration.native import Authority, RabbitMQ, Variant
from integration.native.security import CLIENT_NAME, Files, User, query
from unimq import broker
from unimq.broker.server import Broker

HOST = "127.0.0.1"
VHOST = "unimq"
SECOND_NAME = "unimq-client-renewed"
TOKEN_USER = "unimq-service"
JWT_KEY = b"of the tests alone, 32 bytes long"


class Site(ABC):
    """`files` are the broker's and its client's; `stranger` those of a CA that nobody here trusts."""

    label: str

    def __init__(self, directory: Path) -> None:
        self.authority = Authority()
        self.stranger = Authority().equip(directory / "stranger")
        self.files: Files
        self.user: User
        self.tls_port: int
        self.plain_port: int

    def url(
        self,
        who: str | None = None,
        *,
        tls: bool = True,
        port: int | None = None,
        vhost: str = VHOST,
        ca: Path | None = None,
        **options: Any,
    ) -> str:
        """`who`: `user:password`, the right ones without."""
        if who is None:
            who = f"{quote(self.user.name)}:{quote(self.user.password)}"
        said = {"ca": str(ca or self.files.ca)} if tls else {}
        said |= {name: str(value) for name, value in options.items()}
        at = f"{who}@" if who else ""
        return f"amqp{'s' * tls}://{at}{HOST}:{port or self.tls_port}/{quote(vhost, safe='')}{query(said)}"

    def external(self, files: Files | None = None, **more: Any) -> str:
        """A login by certificate."""
        files = files or self.files
        cert, key = files.client_certificate, files.client_key
        return self.url("", cert=cert, key=key, mechanism="EXTERNAL", **more)

    @abstractmethod
    def serving(self, *names: str, expired: bool = False) -> AbstractContextManager[int]:
        """The port of a broker with such a certificate."""

    @abstractmethod
    def logged_in(self) -> set[str]:
        """The users of the connections that are open now."""

    @abstractmethod
    def token(self, expires_at: float) -> str:
        """A token for TOKEN_USER."""


class RealSite(Site):
    label = "RabbitMQ"

    def __init__(self, directory: Path, plain_port: int) -> None:
        super().__init__(directory)
        self.plain_port = plain_port
        self._native = RabbitMQ(
            Variant(("mtls", "login", "management")),
            self.authority,
            plugins=["rabbitmq_auth_backend_oauth2"],
            advanced=_ADVANCED % _base64url(JWT_KEY),
        )

    def __enter__(self) -> RealSite:
        native = self._native
        native.start()
        assert native.files is not None
        self.files, self.user, self.tls_port = native.files, native.user, native.port
        self.management_url = native.management_url or ""
        native.rabbitmqctl("add_user", SECOND_NAME, User.fresh().password)
        native.rabbitmqctl("set_permissions", "-p", VHOST, SECOND_NAME, ".*", ".*", ".*")
        return self

    def __exit__(self, *_: object) -> None:
        self._native.stop()

    @contextmanager
    def serving(self, *names: str, expired: bool = False) -> Iterator[int]:
        try:
            self._present(*names, expired=expired)
            yield self.tls_port
        finally:
            self._present()

    def _present(self, *names: str, expired: bool = False) -> None:
        self.authority.issue_server(self.files, *names, expired=expired)
        self._native.rabbitmqctl("eval", "ssl:clear_pem_cache().")

    def rabbitmqctl(self, *args: str) -> str:
        return self._native.rabbitmqctl(*args)

    def logged_in(self) -> set[str]:
        return set(self._native.rabbitmqctl("list_connections", "user").split())

    def token(self, expires_at: float) -> str:
        return signed_token(expires_at)


class ReferenceSite(Site):
    label = "reference broker"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.files = self.authority.equip(directory / "tls")
        self.user = User.fresh(CLIENT_NAME)
        self._users = _Users({self.user.name: self.user.password, SECOND_NAME: User.fresh().password})
        self._stack = ExitStack()

    def __enter__(self) -> ReferenceSite:
        self._broker = self._stack.enter_context(self._run(self.files.server))
        self.tls_port = _port(self._broker)
        self.plain_port = _port(self._stack.enter_context(broker.run(amqp=0)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _run(self, certificate: Path) -> Broker:
        return broker.run(
            amqp=0,
            users=self._users,
            vhosts=("/", VHOST),
            tls_cert=str(certificate),
            tls_key=str(certificate),
            tls_client_ca=str(self.files.ca),
            tls_ca=str(self.files.ca),
        )

    @contextmanager
    def serving(self, *names: str, expired: bool = False) -> Iterator[int]:
        """It reads its certificate when it starts: another one."""
        self.authority.issue_server(self.files, *names, expired=expired)
        try:
            with self._run(self.files.server) as other:
                yield _port(other)
        finally:
            self.authority.issue_server(self.files)

    def logged_in(self) -> set[str]:
        def look() -> set[str]:
            return {peer.session.user for peer in self._broker.peers if peer.session.state == "running"}

        return self._broker.call(look)

    def token(self, expires_at: float) -> str:
        self._users.newest = (f"token until {expires_at}", expires_at)
        return self._users.newest[0]


class _Users(dict[str, str]):
    """TOKEN_USER's password is the newest token, until it ends."""

    newest = ("", 0.0)

    def get(self, name: str, default: Any = None) -> Any:
        if name == TOKEN_USER:
            token, expires_at = self.newest
            return token if time.time() < expires_at else default
        return super().get(name, default)


_ADVANCED = """\
[
  {rabbit, [
    {auth_backends, [rabbit_auth_backend_internal, rabbit_auth_backend_oauth2]},
    {quorum_tick_interval, 1000}
  ]},
  {rabbitmq_auth_backend_oauth2, [{resource_server_id, <<"rabbitmq">>}, {key_config, [
    {default_key, <<"tests">>},
    {signing_keys, #{<<"tests">> => {map, #{<<"kty">> => <<"oct">>, <<"alg">> => <<"HS256">>, <<"k">> => <<"%s">>}}}}
  ]}]}
].
"""


def signed_token(expires_at: float) -> str:
    """A JSON Web Token (RFC 7519, HS256) with all rights everywhere. `exp` is in whole seconds."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "tests"}
    claims = {"aud": ["rabbitmq"], "sub": TOKEN_USER, "client_id": TOKEN_USER, "exp": math.ceil(expires_at)}
    claims |= {"scope": [f"rabbitmq.{right}:*/*" for right in ("read", "write", "configure")]}
    text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{text}.{_base64url(hmac.digest(JWT_KEY, text.encode(), hashlib.sha256))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _port(made: Broker) -> int:
    return int(made.urls["amqp"].rpartition(":")[2].partition("/")[0])


def own_files(site: Site, directory: Path, name: str, *, expired: bool = False) -> Files:
    """A client's own copies, to be changed under it."""
    mine = Files(directory / "client")
    mine.directory.mkdir(mode=0o700)
    site.authority.issue_client(mine, name, expired=expired)
    mine.ca.write_bytes(site.files.ca.read_bytes())
    return mine
