"""URLs of brokers: read once, here, for every adapter.

Rules
- `scheme://[user:password@]host[:port][,host[:port]…]/[path][?option=value]`, or a connection string
  (`Endpoint=scheme://…;Key=…`), whose parts the adapter reads from `parts`.
- A raw @, / or ? in a name or password is refused before anything is read from it.
- An option that no adapter knows is refused by name. The password shows in no repr, log or error.
- User, password and path are percent-decoded here except `path`, which is kept raw: what `/` means in it is the broker's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from .errors import UnimqError

MAX_URL_CHARS = 16_384
MAX_HOSTS = 64
_CONNECTION_STRING = re.compile(r"^\s*Endpoint\s*=\s*(?P<scheme>[a-z]+)://", re.I)
_AUTHORITY = re.compile(r"[^/?]*")
_URL = re.compile(r"^(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<rest>.*)$", re.S)


class UrlError(UnimqError, ValueError):
    """A URL that cannot be read. The text names the part, never the password."""

    code = "invalid-url"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed URL. `hosts`: (host, port or None). `parts`: the keys of a connection string, lower case."""

    scheme: str
    hosts: tuple[tuple[str, int | None], ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    parts: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        who = "" if self.user is None else f"{self.user}{':***' if self.password else ''}@"
        hosts = ",".join(_join(host, port) for host, port in self.hosts)
        return f"{self.scheme}://{who}{hosts}{'' if self.path is None else '/' + self.path}"


def _join(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def scheme_of(url: str) -> str:
    """The scheme alone, lower case. `UrlError` when there is none."""
    if not isinstance(url, str):
        raise UrlError(f"a URL is a str, not a {type(url).__name__}")
    if found := _CONNECTION_STRING.match(url):
        return found["scheme"].lower()
    found = _URL.match(url.strip())
    if found is None:
        raise UrlError("not a URL: write SCHEME://HOST, for instance memory://test")
    return found["scheme"].lower()


def parse(url: str) -> Endpoint:
    """The whole URL. `UrlError` names what is wrong."""
    scheme = scheme_of(url)
    if len(url) > MAX_URL_CHARS:
        raise UrlError(f"a URL has at most {MAX_URL_CHARS} characters")
    if _CONNECTION_STRING.match(url):
        return _connection_string(url, scheme)
    rest = url.strip()[len(scheme) + 3 :]
    if "@" in rest[_AUTHORITY.match(rest).end() :] or rest.count("@") > 1:  # type: ignore[union-attr]  # it matches anything
        # read on, and a part of somebody's password would be taken for a host or an option, and shown in an error
        raise UrlError(
            "one @ at most, before the host: write %40 for @, %2F for /, %3F for ? in a name or password"
        )
    rest, _, query = rest.partition("?")
    before, slash, path = rest.partition("/")
    who, at, where = before.rpartition("@")
    user = password = None
    if at:
        name, colon, word = who.partition(":")
        user, password = unquote(name), unquote(word) if colon else None
    hosts = tuple(_host(part) for part in where.split(",")) if where else ()
    if len(hosts) > MAX_HOSTS:
        raise UrlError(f"at most {MAX_HOSTS} hosts")
    return Endpoint(scheme, hosts, user, password, path if slash else None, _options(query))


def _host(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        port_text = tail[1:] if tail.startswith(":") else ""
        if not bracket or (tail and not tail.startswith(":")):
            raise UrlError(f"cannot read the host {text!r}: write [IPv6]:PORT")
    else:
        host, _, port_text = text.partition(":")
    if not host:
        raise UrlError("a host is empty")
    if not port_text:
        return host, None
    if not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text) < 65536:
        raise UrlError(f"the port of host {host!r} is not a number from 1 to 65535")
    return host, int(port_text)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise UrlError(f"option {name!r} is given twice")
        options[name] = value
    return options


def _connection_string(text: str, scheme: str) -> Endpoint:
    parts: dict[str, str] = {}
    for part in text.strip().split(";"):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals:
            raise UrlError("a connection string is KEY=VALUE;KEY=VALUE…")
        parts[key.strip().lower()] = value.strip()
    endpoint = parts["endpoint"].partition("://")[2].strip("/")
    return Endpoint(scheme, (_host(endpoint),), parts=parts)


def check_options(endpoint: Endpoint, known: frozenset[str]) -> None:
    """Refuse, by name, an option the adapter does not know."""
    unknown = sorted(set(endpoint.options) - known)
    if unknown:
        raise UrlError(
            f"unknown option {', '.join(map(repr, unknown))} in a {endpoint.scheme}:// URL; "
            f"known: {', '.join(sorted(known)) or 'none'}"
        )
