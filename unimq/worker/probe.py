"""The health probe: GET anything, 200 when well, 503 when not, with the reasons as JSON.

Rules
- `port` is a number (all interfaces: a kubelet comes from outside) or "HOST:PORT" ("127.0.0.1:8081"). 0 takes a free one.
- It answers from a thread of its own: a loop that hangs is what it is there to tell.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from ..stats import Health

REQUEST_TIMEOUT_S: Final = 5.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class Probe:
    def __init__(self, port: int | str, health: Callable[[], Health]) -> None:
        host, number = _parsed(port)

        class Answer(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                seen = health()
                body = json.dumps(
                    {"ok": seen.ok, "problems": seen.problems, "details": seen.details}, default=str
                ).encode()
                self.send_response(200 if seen.ok else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """A probe every few seconds is no news."""

        self._server = _Server((host, number), Answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="unimq-health", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


def shifted(port: int | str | None, by: int) -> int | str | None:
    """The port of process number `by`: each has one of its own (0 is any free one, as often as one likes)."""
    if port is None or by == 0:
        return port
    host, number = _parsed(port)
    moved = number + by if number else 0
    return moved if isinstance(port, int) else f"{host}:{moved}"


def _parsed(port: int | str) -> tuple[str, int]:
    if isinstance(port, int):
        return "", port
    host, colon, number = port.rpartition(":")
    if not colon or not number.isdigit():
        raise ValueError(f'health_port is a number or "HOST:PORT", not {port!r}')
    return host.strip("[]"), int(number)
