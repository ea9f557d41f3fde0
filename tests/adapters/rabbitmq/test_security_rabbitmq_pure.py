"""What a URL says of TLS and management, when a token is renewed, and what errors of TLS and logins mean. No broker."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from unittest.mock import Mock

import pika.exceptions as px
import pytest

from unimq import errors as ours
from unimq.driver import ConnectOptions, Op, Password, Token
from unimq.url import UrlError, parse
from unimq_rabbitmq import ADAPTER, errors, management, parameters
from unimq_rabbitmq.management import Management
from unimq_rabbitmq.tokens import renewal_in_s


# ------------------------------------------------------------------------------------------------------------- TLS
@pytest.mark.parametrize(
    "query", ["ca=/nowhere.pem", "cert=/nowhere.pem", "cert=/nowhere.pem&key=/nowhere.key"]
)
def test_a_file_that_is_not_there_is_named(query: str) -> None:
    with pytest.raises(ours.ConnectionFailed, match=r"nowhere.pem.*No such file") as caught:
        parameters.tls(parse(f"amqps://u:p@h/?{query}"), ConnectOptions())
    assert caught.value.retryable is False


def ssl_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    return kind(1, f"[SSL: {reason}] something (_ssl.c:1)")


def lost(error: Exception) -> Exception:
    """As pika says it when the line ends before the broker's first word."""
    made: Exception = px.IncompatibleProtocolError(
        repr(px.StreamLostError(f"Stream connection lost: {error!r}"))
    )
    return made


@pytest.mark.parametrize(
    ("error", "kind", "retryable", "says"),
    [
        (ssl_error("WRONG_VERSION_NUMBER"), ours.ConnectionFailed, False, "does not speak TLS"),
        (ssl_error("SOMETHING_ELSE"), ours.ConnectionFailed, False, "SOMETHING_ELSE"),
        (ssl_error("EOF", ssl.SSLEOFError), ours.ConnectionFailed, True, "no connection"),
        (lost(ssl_error("TLSV1_ALERT_UNKNOWN_CA")), ours.AuthenticationFailed, False, "refused our certificate"),
        (lost(ssl_error("SSLV3_ALERT_CERTIFICATE_EXPIRED")), ours.AuthenticationFailed, False, "certificate"),
        (lost(ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")), ours.AuthenticationFailed, False, "certificate"),
        (lost(ssl_error("UNEXPECTED_EOF")), ours.ConnectionFailed, True, "perhaps it wants a certificate"),
        (lost(ConnectionResetError(104, "reset")), ours.ConnectionFailed, True, "perhaps its port speaks TLS"),
        (px.IncompatibleProtocolError("0-10"), ours.ConnectionFailed, False, "0-10"),
    ],
)  # fmt: skip
def test_what_a_handshake_that_failed_means(
    error: Exception, kind: type[ours.UnimqError], retryable: bool, says: str
) -> None:
    fault = ADAPTER.classify(error, op=Op.CONNECT, handed_over=False)
    assert type(fault) is kind
    assert fault.retryable is retryable
    assert says in str(fault)


@pytest.mark.parametrize("op", [Op.CONNECT, Op.OPEN, Op.DECLARE])
def test_a_line_that_was_reset_while_it_connected_is_tried_again(op: Op) -> None:
    error = ValueError("Expected connected socket, but getpeername() failed: error=OSError(107, ...)")
    fault = ADAPTER.classify(error, op=op, handed_over=False)
    assert (type(fault), fault.retryable) == (ours.ConnectionFailed, True)


def test_a_token_that_ended_is_a_login_and_no_missing_right() -> None:
    text = (
        "ACCESS_REFUSED - access to queue 'q' refused, ... \"Provided JWT token has expired at timestamp 1\""
    )
    fault = ADAPTER.classify(px.ChannelClosedByBroker(403, text), op=Op.SEND, handed_over=True)
    assert (type(fault), fault.code, fault.retryable) == (ours.AuthenticationFailed, "token-expired", True)
    other = ADAPTER.classify(px.ChannelClosedByBroker(403, "ACCESS_REFUSED"), op=Op.SEND, handed_over=True)
    assert type(other) is ours.PermissionDenied


@pytest.mark.parametrize(
    "text",
    [
        "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost '/' is down or inaccessible",
        "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor",
        "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart",
        "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout",
    ],
)
def test_a_queue_that_is_down_is_there(text: str) -> None:
    error = px.ChannelClosedByBroker(404, text)
    fault = ADAPTER.classify(error, op=Op.OPEN, handed_over=False)
    assert (type(fault), fault.code, fault.retryable) == (ours.ConnectionFailed, "queue-down", True)
    assert not errors.is_missing(error)
    assert errors.is_missing(px.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q' in vhost '/'"))


@pytest.mark.parametrize(
    ("left_s", "wait_s"),
    [(3600.0, 3540.0), (120.0, 60.0), (100.0, 50.0), (5.0, 2.5), (1.0, 1.0), (-9.0, 1.0)],
)
def test_a_token_is_renewed_in_time(left_s: float, wait_s: float) -> None:
    assert renewal_in_s(left_s) == wait_s


# ------------------------------------------------------------------------------------------------------ management
class Plugin:
    """Answers every GET with one status and body, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.asked: list[tuple[str, str]] = []
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                plugin.asked.append((self.path, self.headers["Authorization"]))
                self.send_response(plugin.status)
                self.end_headers()
                self.wfile.write(plugin.body)

            def log_message(self, *_: Any) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, document: object) -> None:
        self.body = json.dumps(document).encode()


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    made = Plugin()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join(5.0)
    made.server.server_close()


def asking(plugin: Plugin, *, credential: Password | Token | None = None, own: str = "") -> Management:
    url = plugin.url.replace("//", f"//{own}")
    endpoint = parse(f"amqp://user:p%40ss@h/v?management={url}")
    return Management(endpoint, "v/1", lambda: credential, Mock())


@pytest.mark.parametrize(
    ("credential", "own", "login"),
    [
        (None, "", "Basic dXNlcjpwQHNz"),
        (Password("x", "y"), "", "Basic eDp5"),
        (Token("abc"), "", "Bearer abc"),
        (Token("abc"), "x:y%40", "Basic eDp5"),
    ],
)
def test_its_login_is_the_connections_or_its_own(
    plugin: Plugin, credential: Password | Token | None, own: str, login: str
) -> None:
    plugin.says({"messages_unacknowledged": 7})
    assert asking(plugin, credential=credential, own=own).in_flight("a/b") == 7
    assert plugin.asked == [("/api/queues/v%2F1/a%2Fb", login)]


def test_what_it_does_not_know_is_none(plugin: Plugin) -> None:
    assert asking(plugin).in_flight("q") is None
    plugin.status = 404
    assert asking(plugin).in_flight("q") is None
    assert asking(plugin).delays("q") == set()
    assert asking(plugin).limit("q") is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b'{"reason":"Login failed"}', ours.AuthenticationFailed),
        (401, b'{"reason":"Not management user"}', ours.PermissionDenied),
        (403, b"", ours.PermissionDenied),
        (500, b"", ours.ConnectionFailed),
        (200, b"<html>", ours.ConnectionFailed),
        (200, b"[]", ours.ConnectionFailed),
    ],
)
def test_its_refusals_are_typed(
    plugin: Plugin, status: int, body: bytes, kind: type[ours.UnimqError]
) -> None:
    plugin.status, plugin.body = status, body
    with pytest.raises(kind) as caught:
        asking(plugin).in_flight("q")
    assert type(caught.value) is kind
    assert asking(plugin).limit("q") is None, "what only wants to know better goes on without"


def test_an_answer_without_end_is_cut(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "ANSWER_MAX_BYTES", 10)
    plugin.says({"messages_unacknowledged": 7})
    with pytest.raises(ours.ConnectionFailed, match="11 bytes"):
        asking(plugin).in_flight("q")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"arguments": {"x-max-length": 5, "x-overflow": "reject-publish"}}, "max-length 5"),
        ({"arguments": {"x-max-length": 5}}, None),
        (
            {"policy": "p", "effective_policy_definition": {"max-length-bytes": 9, "overflow": "reject-publish"}},
            "max-length-bytes 9 by the policy 'p'",
        ),
        ({"policy": "p", "effective_policy_definition": {"max-length": 9}}, None),
        ({"policy": None, "effective_policy_definition": None, "arguments": {}}, None),
    ],
)  # fmt: skip
def test_a_limit_is_told_in_words(plugin: Plugin, found: object, words: str | None) -> None:
    plugin.says(found)
    assert asking(plugin).limit("q") == words


@pytest.mark.parametrize(
    "url",
    [
        "amqp://h/?management=h:15672",
        "amqp://h/?management=ftp://h",
        "amqp://h/?management=http://",
        "amqp://h/?management=http://h%3Fx=1",
        "amqp://h/?mechanism=EXTERNAL&management=http://h",
    ],
)
def test_a_management_that_cannot_be_is_refused_before_io(url: str) -> None:
    with pytest.raises(UrlError, match="management"):
        parameters.check(parse(url), ConnectOptions(), ADAPTER.url_options)
