"""Endpoint and options → librdkafka's settings. Pure.

Rules
- What our promises stand on is set here and cannot be overridden by `native` (`OURS`).
- `native={"linger.ms": 1, "producer": {...}, "consumer": {...}}`: plain settings go to every client, those under
  `producer` and `consumer` to theirs. librdkafka itself refuses what it does not know, before any I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unimq.driver import ConnectOptions, Credential, Password, SenderOptions, Token
from unimq.errors import Unsupported
from unimq.url import Endpoint, UrlError

from .capabilities import DEFAULT_MAX_MESSAGE_BYTES

DEFAULT_PORT: Final = 9092
LINGER_S: Final = 0.005
MESSAGE_TIMEOUT_S: Final = (
    60.0  # how long librdkafka itself keeps at a message; batches have deadlines of their own
)
SOCKET_TIMEOUT_S: Final = 10.0  # a broker that accepts and goes silent is given up after this
RECONNECT_MAX_S: Final = 2.0
FETCH_BACKOFF_S: Final = (
    0.01  # how long fetching rests when the client's own queue is full; its default is a second
)
HEARTBEAT_S: Final = (
    1.0  # a member hears of a rebalance with its next heartbeat, and a cooperative one has two rounds
)
QUEUE_MAX_MESSAGES: Final = 100_000
QUEUE_MAX_KBYTES: Final = 128 * 1024
URL_OPTIONS: Final = frozenset(
    {
        "group",
        "group_protocol",
        "group_instance_id",
        "isolation",
        "max_message_bytes",
        "ca",
        "cert",
        "key",
        "verify",
        "mechanism",
    }
)
OURS: Final = frozenset(
    {
        "bootstrap.servers", "metadata.broker.list", "group.id", "enable.auto.commit", "enable.auto.offset.store", "acks",
        "request.required.acks", "enable.idempotence", "transactional.id", "allow.auto.create.topics", "error_cb", "logger",
        "on_commit", "on_delivery", "delivery.report.only.error", "auto.offset.reset", "security.protocol", "sasl.username",
        "sasl.password", "sasl.mechanism", "sasl.mechanisms", "oauth_cb", "enable.partition.eof",
    }
)  # fmt: skip
_NUMBERED: Final = {"max_message_bytes"}


def check(endpoint: Endpoint, options: ConnectOptions) -> None:
    """Refuse what cannot be done, before any I/O."""
    if not endpoint.hosts:
        raise UrlError(f"a {endpoint.scheme}:// URL names its brokers: {endpoint.scheme}://HOST:9092")
    if options.tls is not None:
        raise Unsupported("Kafka's client takes no SSLContext: give files, ?ca= ?cert= ?key=")
    credential(options)
    if endpoint.path:
        raise UrlError(
            f"a {endpoint.scheme}:// URL has no path; topics are addresses: Queue(...), Topic(...)"
        )
    for name in _NUMBERED & endpoint.options.keys():
        if not endpoint.options[name].isdigit():
            raise UrlError(f"option {name!r} is a whole number")
    if endpoint.options.get("verify", "true") not in ("true", "false"):
        raise UrlError('option "verify" is true or false')
    for settings in _native(options.native):
        refused = sorted(OURS & settings.keys())
        if refused:
            raise Unsupported(
                f"native setting {', '.join(map(repr, refused))}: unimq's promises stand on its own value"
            )


def credential(options: ConnectOptions) -> Credential | None:
    """The callable one; Kafka's client has no use for a token credential of azure-core's form."""
    given = options.credential
    if given is None or callable(given):
        return given
    raise Unsupported(
        f"a {type(given).__name__} is no credential for Kafka: give a callable that returns a Password or a Token"
    )


def _native(native: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(for every client, for producers, for consumers)."""
    common = {name: value for name, value in native.items() if name not in ("producer", "consumer")}
    return common, dict(native.get("producer", {})), dict(native.get("consumer", {}))


def common(endpoint: Endpoint, options: ConnectOptions, secret: Password | Token | None) -> dict[str, Any]:
    """What every client of this connection has."""
    hosts = (f"[{host}]" if ":" in host else host for host, _ in endpoint.hosts)
    ports = (port or DEFAULT_PORT for _, port in endpoint.hosts)
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)),
        "client.id": options.client_name,
        "allow.auto.create.topics": False,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": _ms(SOCKET_TIMEOUT_S),
        "reconnect.backoff.max.ms": _ms(RECONNECT_MAX_S),
        "message.max.bytes": max_message_bytes(endpoint),
    }
    tls = endpoint.scheme.endswith("s")
    said = endpoint.options
    login = secret or (
        Password(endpoint.user, endpoint.password or "") if endpoint.user is not None else None
    )
    if isinstance(login, Password):
        settings["sasl.mechanism"] = said.get("mechanism", "PLAIN")
        settings["sasl.username"] = login.user
        settings["sasl.password"] = login.password
    elif isinstance(login, Token):
        settings["sasl.mechanism"] = "OAUTHBEARER"
    settings["security.protocol"] = (
        ("SASL_SSL" if tls else "SASL_PLAINTEXT") if login else ("SSL" if tls else "PLAINTEXT")
    )
    if tls:
        for name, setting in (
            ("ca", "ssl.ca.location"),
            ("cert", "ssl.certificate.location"),
            ("key", "ssl.key.location"),
        ):
            if name in said:
                settings[setting] = said[name]
        settings["enable.ssl.certificate.verification"] = said.get("verify", "true") == "true"
    return settings | _native(options.native)[0]


def max_message_bytes(endpoint: Endpoint) -> int:
    return int(endpoint.options.get("max_message_bytes", DEFAULT_MAX_MESSAGE_BYTES))


def producer(base: Mapping[str, Any], native: Mapping[str, Any], sender: SenderOptions) -> dict[str, Any]:
    settings = dict(base) | {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": _ms(LINGER_S if sender.linger_s is None else sender.linger_s),
        "message.timeout.ms": _ms(MESSAGE_TIMEOUT_S),
        "request.timeout.ms": _ms(SOCKET_TIMEOUT_S),
        "queue.buffering.max.messages": QUEUE_MAX_MESSAGES,
        "queue.buffering.max.kbytes": QUEUE_MAX_KBYTES,
    }
    if sender.compression is not None:
        settings["compression.type"] = sender.compression
    if sender.batch_bytes is not None:
        settings["batch.size"] = sender.batch_bytes
    return settings | _native(native)[1]


def consumer(
    base: Mapping[str, Any], native: Mapping[str, Any], endpoint: Endpoint, group: str, prefetch_bytes: int
) -> dict[str, Any]:
    said = endpoint.options
    settings = dict(base) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",  # where a group has a position to begin at, it is committed before
        "queued.max.messages.kbytes": max(prefetch_bytes // 1024, 1),
        "fetch.queue.backoff.ms": _ms(FETCH_BACKOFF_S),
        "isolation.level": said.get("isolation", "read_committed"),
    }
    if said.get("group_protocol", "classic") == "consumer":
        settings["group.protocol"] = "consumer"
    else:
        settings["partition.assignment.strategy"] = "cooperative-sticky"
        settings["heartbeat.interval.ms"] = _ms(HEARTBEAT_S)
    if "group_instance_id" in said:
        settings["group.instance.id"] = said["group_instance_id"]
    return settings | _native(native)[2]


def is_incremental(settings: Mapping[str, Any]) -> bool:
    """Whether rebalances add and take single partitions, rather than all at once."""
    return settings.get("group.protocol") == "consumer" or str(
        settings.get("partition.assignment.strategy", "")
    ).startswith("cooperative")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
