"""Where the real broker of a test comes from.

Per broker, in this order: `UNIMQ_<NAME>_URL`; a container, when a Docker daemon answers and the image is here or can be had; a
native process. `UNIMQ_LANE=url|docker|native` leaves only that one.

- A variant (`rabbitmq+tls`) is a broker of its own, with its own variable (`UNIMQ_RABBITMQ_TLS_URL`); it comes in no container.
- What is not there is a reason, and all reasons together are the text of the skip. `UNIMQ_REQUIRE=rabbitmq,kafka` makes it a
  failure: otherwise a green run may have tested nothing.
- What is there and does not work is an error, never a skip: a URL that nobody answers, a broker that does not come up.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import ssl
import struct
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl, unquote, urlsplit

from integration.native import BROKERS, NativeBroker, kind_of, make, variable
from unimq.errors import redact
from unimq.testing import containers

LANES = ("url", "docker", "native")
DAEMON_TIMEOUT_S = 2
PULL_TIMEOUT_S = 300
PROBE_TIMEOUT_S = 10.0
UNKNOWN_VERSION = "unknown version"
_USUAL_PORTS = {"amqp": 5672, "amqps": 5671, "stomp": 61613, "stomps": 61614}  # else Kafka's

CONTAINERS: dict[str, type[containers.Container]] = {
    "rabbitmq": containers.RabbitMQContainer,
    "kafka": containers.KafkaContainer,
    "artemis": containers.ArtemisContainer,
    "classic": containers.ClassicContainer,
}


class Unavailable(Exception):
    """There is no such broker here; the text has every reason."""


class BrokerError(Exception):
    """A broker was found and does not work."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A real broker for tests. `native` has its controls (pause, restart, rabbitmqctl …), where it is a process of ours."""

    name: str
    url: str
    version: str
    source: str
    native: NativeBroker | None
    stop: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.name} {self.version}, {self.source}: {redact(self.url)}"


def obtain(name: str) -> Broker:
    """`Unavailable` with all reasons, or `BrokerError` and `BrokerFailed` when one is there and does not work."""
    pinned = lane()
    reasons: list[str] = []
    for source, take in (("url", _from_url), ("docker", _from_docker), ("native", _from_native)):
        if pinned not in (None, source):
            continue
        found = take(name)
        if isinstance(found, Broker):
            return found
        reasons.append(found)
    only = f" (UNIMQ_LANE={pinned})" if pinned else ""
    raise Unavailable(f"no {name}{only}: {'; '.join(reasons)}")


def lane() -> str | None:
    pinned = os.environ.get("UNIMQ_LANE") or None
    if pinned not in (None, *LANES):
        raise BrokerError(f"UNIMQ_LANE is {pinned!r}: one of {', '.join(LANES)}")
    return pinned


def required() -> frozenset[str]:
    names = frozenset(filter(None, os.environ.get("UNIMQ_REQUIRE", "").replace(" ", "").split(",")))
    if unknown := names - BROKERS.keys():
        raise BrokerError(f"UNIMQ_REQUIRE names {', '.join(sorted(unknown))}: one of {', '.join(BROKERS)}")
    return names


def _from_url(name: str) -> Broker | str:
    its = variable(name)
    url = os.environ.get(its)
    if not url:
        return f"{its} is not set"
    try:
        version = probe(url)
    except OSError as error:
        raise BrokerError(f"{its} is set and nobody answers at {redact(url)}: {error}") from error
    return Broker(name, url, version, "url", None, stop=lambda: None)


def _from_docker(name: str) -> Broker | str:
    if name not in CONTAINERS:
        return "a variant comes in no container"
    if reason := _no_daemon():
        return reason
    container = CONTAINERS[name]()
    if reason := _no_image(container.image):
        return reason
    try:
        container.start()
        version = probe(container.url)
    except Exception as error:
        container.stop()
        raise BrokerError(f"the container {container.image} did not come up: {error}") from error
    if version == UNKNOWN_VERSION:
        version = container.version
    return Broker(name, container.url, version, f"docker {container.image}", None, stop=container.stop)


def _from_native(name: str) -> Broker | str:
    if reason := kind_of(name).available():
        return reason
    native = make(name)
    native.start()
    return Broker(name, native.url, native.version, "native", native, stop=native.stop)


@cache
def _no_daemon() -> str | None:
    try:
        import docker
        import testcontainers.core  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    with warnings.catch_warnings():
        # docker leaves its socket open when nobody answers, and a test much later would be blamed for it.
        warnings.simplefilter("ignore", ResourceWarning)
        reason: str | None = None
        try:
            client = docker.from_env(timeout=DAEMON_TIMEOUT_S)
            try:
                client.ping()
            finally:
                client.close()
        except Exception as error:
            # docker, requests and urllib3 raise different things for "nobody there".
            reason = f"no Docker daemon answers ({type(error).__name__})"
        gc.collect()
    return reason


def _no_image(image: str) -> str | None:
    import docker
    from testcontainers.core.config import testcontainers_config

    image = f"{testcontainers_config.hub_image_name_prefix}{image}"
    client = docker.from_env(timeout=PULL_TIMEOUT_S)
    try:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            client.images.pull(image)
    except Exception as error:
        return f"the image {image} is not here and cannot be pulled ({type(error).__name__})"
    finally:
        client.close()
    return None


def host_and_port(url: str) -> tuple[str, int]:
    """Of the first host; a URL from outside may leave the port to its scheme."""
    parts = urlsplit(url.partition("?")[0].split(",")[0])
    return parts.hostname or "", parts.port or _USUAL_PORTS.get(parts.scheme, 9092)


def probe(url: str, timeout_s: float = PROBE_TIMEOUT_S) -> str:
    """Connects and returns the version that the broker itself tells; `OSError` when nobody answers. Kafka tells none."""
    first, _, query = url.partition("?")
    parts = urlsplit(first.split(",")[0])
    greeting, pattern = {
        "amqp": (b"AMQP\0\0\x09\x01", rb"\x07versionS(?P<length>.{4})(?P<rest>.*)"),
        "stomp": (_stomp_connect(parts.username, parts.password), rb"\nserver:[^/\n]*/(?P<word>[^ \n]+)"),
    }.get(parts.scheme.removesuffix("s"), (None, b""))
    with ExitStack() as stack:
        host, port = host_and_port(url)
        sock = stack.enter_context(socket.create_connection((host, port), timeout_s))
        if parts.scheme.endswith("s"):
            sock = stack.enter_context(_secured(sock, host, dict(parse_qsl(query))))
        if greeting is None:
            return UNKNOWN_VERSION
        sock.sendall(greeting)
        answer = b""
        # Both greetings end in 0xCE or NUL and come well within one read each; more than this is no broker.
        while len(answer) < 65_536 and not answer.endswith((b"\xce", b"\0", b"\0\n")):
            data = sock.recv(65_536)
            if not data:
                break
            answer += data
    if not answer.startswith((b"\x01\0\0", b"CONNECTED")):
        raise ConnectionError(f"not a broker of this kind: {answer[:80]!r}")
    found = re.search(pattern, answer, re.S)
    if found is None:
        return UNKNOWN_VERSION
    if "word" in found.groupdict():
        return found["word"].decode(errors="replace")
    (length,) = struct.unpack("!I", found["length"])
    return found["rest"][:length].decode(errors="replace")


def _secured(sock: socket.socket, host: str, options: dict[str, str]) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=options.get("ca"))
    if "cert" in options:
        context.load_cert_chain(options["cert"], options.get("key"))
    return context.wrap_socket(sock, server_hostname=host)


def _stomp_connect(user: str | None, password: str | None) -> bytes:
    login = f"login:{unquote(user)}\npasscode:{unquote(password or '')}\n" if user else ""
    return f"CONNECT\naccept-version:1.2\nhost:unimq\n{login}\n\0".encode()
