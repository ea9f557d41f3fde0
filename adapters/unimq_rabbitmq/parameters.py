"""A URL and the options of `connect` → pika's parameters. No I/O but the reading of certificate files.

Rules
- `native` holds keys of `pika.ConnectionParameters`; one that is unknown, or that is ours to set, is refused by name.
- The vhost is read as pika reads it: none, `/` and `/%2F` are `/`; `//` is the empty one.
- Certificates are read again at each connect.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import pika
import pika.credentials

from unimq.driver import ConnectOptions, Password, Token
from unimq.errors import ConnectionFailed, Unsupported
from unimq.url import Endpoint, UrlError, check_options

from . import management

T = TypeVar("T")

HEARTBEAT_S: Final = 60
PORT, PORT_TLS = 5672, 5671
MECHANISMS: Final = ("PLAIN", "EXTERNAL")
NATIVE_KEYS: Final = frozenset(
    {
        "heartbeat", "frame_max", "channel_max", "blocked_connection_timeout", "client_properties", "locale",
        "tcp_options", "socket_timeout", "stack_timeout",
    }
)  # fmt: skip
OURS_KEYS: Final = frozenset({"fast"})  # False: pika reads and writes everything itself
_FALSE: Final = frozenset({"0", "false", "no", "off", "none"})


class NativeError(UrlError):
    """A key of `native` that cannot be given. The text names it."""

    code = "invalid-native"


def check(endpoint: Endpoint, options: ConnectOptions, known: frozenset[str]) -> None:
    """Everything that can be refused before any I/O."""
    check_options(endpoint, known)
    unknown = sorted(set(options.native) - NATIVE_KEYS - OURS_KEYS)
    if unknown:
        raise NativeError(
            f"native: unknown key {', '.join(map(repr, unknown))}; known: {', '.join(sorted(NATIVE_KEYS | OURS_KEYS))}"
        )
    mechanism = endpoint.options.get("mechanism", "PLAIN").upper()
    if mechanism not in MECHANISMS:
        raise UrlError(f"mechanism {mechanism!r}: pika has {', '.join(MECHANISMS)}")
    for name in ("heartbeat", "max_message_bytes"):
        text = endpoint.options.get(name)
        if text is not None and not (text.isascii() and text.isdigit()):
            raise UrlError(f"option {name!r} is a whole number, not {text!r}")
    if not endpoint.hosts:
        raise UrlError(f"{endpoint.scheme}:// needs a host")
    management.check(endpoint)


def virtual_host(path: str | None) -> str:
    return "/" if not path else unquote(path.split("/")[0])


def hosts(endpoint: Endpoint) -> list[tuple[str, int]]:
    default = PORT_TLS if endpoint.scheme == "amqps" else PORT
    return [(host, port or default) for host, port in endpoint.hosts]


def tls(endpoint: Endpoint, options: ConnectOptions) -> ssl.SSLContext | None:
    """None for a line without TLS."""
    return context(endpoint, options) if endpoint.scheme == "amqps" or options.tls is not None else None


def context(endpoint: Endpoint, options: ConnectOptions) -> ssl.SSLContext:
    if options.tls is not None:
        return options.tls
    said = endpoint.options
    made = _load("ca", said.get("ca"), lambda: ssl.create_default_context(cafile=said.get("ca")))
    if said.get("verify", "true").lower() in _FALSE:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if "cert" in said:
        files = ", ".join(filter(None, (said["cert"], said.get("key"))))
        _load("cert", files, lambda: made.load_cert_chain(said["cert"], said.get("key")))
    return made


def _load(option: str, path: str | None, load: Callable[[], T]) -> T:
    """By itself a missing or a wrong file is an error that names neither."""
    try:
        return load()
    except OSError as error:  # ssl's own errors are of this kind too
        why = error.strerror or error
        raise ConnectionFailed(
            f"?{option}= cannot be used: {path}: {why}", retryable=False, cause=error
        ) from error


def ask(options: ConnectOptions) -> Password | Token | None:
    """What the user's `credential` says now. May block."""
    if options.credential is None:
        return None
    if not callable(options.credential):
        raise Unsupported("credential: RabbitMQ takes a callable that returns a Password or a Token")
    return options.credential()


def login(endpoint: Endpoint, credential: Password | Token | None) -> Any:
    if endpoint.options.get("mechanism", "PLAIN").upper() == "EXTERNAL":
        return pika.credentials.ExternalCredentials()
    if isinstance(credential, Token):
        return pika.PlainCredentials(endpoint.user or "", credential.value)
    if isinstance(credential, Password):
        return pika.PlainCredentials(credential.user, credential.password)
    if endpoint.user is None:
        return pika.PlainCredentials("guest", "guest")  # pika's own default
    return pika.PlainCredentials(endpoint.user, endpoint.password or "")


def parameters(
    endpoint: Endpoint,
    options: ConnectOptions,
    host: tuple[str, int],
    credential: Password | Token | None,
    context: ssl.SSLContext | None,
    timeout_s: float,
    role: str,
) -> Any:
    native: dict[str, Any] = {name: value for name, value in options.native.items() if name in NATIVE_KEYS}
    given: Mapping[str, Any] = native.pop("client_properties", None) or {}
    native.setdefault("heartbeat", int(endpoint.options.get("heartbeat", HEARTBEAT_S)))
    native.setdefault("socket_timeout", timeout_s)
    native.setdefault("stack_timeout", timeout_s)
    try:
        return pika.ConnectionParameters(
            host=host[0],
            port=host[1],
            virtual_host=virtual_host(endpoint.path),
            credentials=login(endpoint, credential),
            connection_attempts=1,
            ssl_options=None if context is None else pika.SSLOptions(context, host[0]),
            client_properties={"connection_name": f"{options.client_name} {role}", **given},
            **native,
        )
    except (TypeError, ValueError) as error:
        raise NativeError(f"pika refuses a value: {error}") from error
