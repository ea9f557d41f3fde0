"""What AMQP does not tell: the HTTP interface of RabbitMQ's management plugin, where `?management=` says it is.

Rules
- Asked by `stats`, and when a sender to a queue opens; every answer has a bound in time and in size.
- Its numbers are samples, seconds old (`collect_statistics_interval`). What AMQP tells as of now, is taken from there.
- The login is the connection's, or the one in the URL of the management (with %40 for its @).
- `stats` fails with a typed error where it is not to be had; what only wants to know better goes on without, and logs.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

from unimq.driver import Password, Token
from unimq.errors import AuthenticationFailed, ConnectionFailed, PermissionDenied, UnimqError
from unimq.url import Endpoint, UrlError

from . import errors

TIMEOUT_S: Final = 5.0
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
NAMES_MAX: Final = 500  # delay queues of one source
_LIMITS: Final = ("max-length", "max-length-bytes")
_log = logging.getLogger("unimq.rabbitmq")

Credential = Callable[[], "Password | Token | None"]


def check(endpoint: Endpoint) -> None:
    """Before any I/O."""
    url = endpoint.options.get("management")
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UrlError("option 'management' is http://HOST:15672 or https://HOST:15671")
    if parts.username is None and endpoint.options.get("mechanism", "PLAIN").upper() == "EXTERNAL":
        raise UrlError("option 'management' needs a login of its own: http://USER:PASSWORD%40HOST")


class Management:
    """See the module. `tls` makes a context, with the certificates as they are then."""

    def __init__(
        self,
        endpoint: Endpoint,
        vhost: str,
        credential: Credential,
        tls: Callable[[], ssl.SSLContext],
    ) -> None:
        parts = urlsplit(endpoint.options["management"])
        self._endpoint = endpoint
        self._vhost = quote(vhost, safe="")
        self._credential = credential
        self._tls = tls
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._own = None
        if parts.username is not None:
            self._own = Password(unquote(parts.username), unquote(parts.password or ""))

    def __repr__(self) -> str:
        return f"<Management at {self._host}>"

    # ------------------------------------------------------------------------------------------------- questions
    def in_flight(self, queue: str) -> int | None:
        """Handed out and not settled; None before the first sample."""
        found = self.queue(queue) or {}
        count = found.get("messages_unacknowledged")
        return count if isinstance(count, int) else None

    def delays(self, queue: str) -> set[str]:
        """The delay queues of a source, whoever made them."""
        asked = {"name": f"^{re.escape(queue)}\\.retry\\.[0-9]+$", "use_regex": "true", "columns": "name"}
        page = self._get(f"queues/{self._vhost}?{urlencode({**asked, 'page': 1, 'page_size': NAMES_MAX})}")
        return {item["name"] for item in (page or {}).get("items", ())}

    def limit(self, queue: str) -> str | None:
        """What bounds the length of a queue and refuses the rest, in words; None where nothing does, or nobody can tell."""
        try:
            found = self.queue(queue) or {}
        except UnimqError as error:
            _log.warning("%r: %s", self, error)
            return None
        policy, arguments = found.get("effective_policy_definition") or {}, found.get("arguments") or {}
        overflow = arguments.get("x-overflow", policy.get("overflow"))
        if overflow not in ("reject-publish", "reject-publish-dlx"):
            return None
        for name in _LIMITS:
            if f"x-{name}" in arguments:
                return f"{name} {arguments[f'x-{name}']}"
            if name in policy:
                return f"{name} {policy[name]} by the policy {found.get('policy')!r}"
        return None

    def queue(self, name: str) -> Mapping[str, Any] | None:
        """None where it is not there, or not known there yet."""
        return self._get(f"queues/{self._vhost}/{quote(name, safe='')}")

    # ------------------------------------------------------------------------------------------------------ HTTP
    def _get(self, what: str) -> dict[str, Any] | None:
        try:
            status, body = self._ask(f"{self._path}/api/{what}")
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(ConnectionFailed, f"no answer: {error}", error) from error
        if status == 404:
            return None
        if status == 401 and b"management user" not in body:
            raise self._failed(AuthenticationFailed, "user and password are refused")
        if status in (401, 403):
            raise self._failed(PermissionDenied, "the user needs a tag, management or monitoring")
        if status != 200 or len(body) > ANSWER_MAX_BYTES:
            raise self._failed(ConnectionFailed, f"an answer of no use: HTTP {status}, {len(body)} bytes")
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise self._failed(ConnectionFailed, "its answer is no JSON", error) from error
        if not isinstance(answer, dict):
            raise self._failed(ConnectionFailed, f"its answer is a {type(answer).__name__}")
        return answer

    def _ask(self, path: str) -> tuple[int, bytes]:
        line: http.client.HTTPConnection
        if self._secure:
            line = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._tls())
        else:
            line = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            line.request("GET", path, headers={"Authorization": self._login(), "Accept": "application/json"})
            response = line.getresponse()
            return response.status, response.read(ANSWER_MAX_BYTES + 1)
        finally:
            line.close()

    def _login(self) -> str:
        said = self._own or self._credential()
        if isinstance(said, Token):
            return f"Bearer {said.value}"
        user, password = self._endpoint.user or "guest", self._endpoint.password
        if said is not None:
            user, password = said.user, said.password
        pair = f"{user}:{'guest' if password is None else password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _failed(self, kind: type[UnimqError], why: str, cause: BaseException | None = None) -> UnimqError:
        return kind(f"the management at {self._host}: {why}", adapter=errors.ADAPTER, cause=cause)
