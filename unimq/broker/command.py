"""`unimq broker`: the reference broker as a process of its own.

Rules
- Parsed by argparse, so that it starts without the extra `cli` and in a fraction of the time.
- The ready file is written, whole, once all listeners accept; SIGTERM and SIGINT end the broker with exit code 0.
- Exit codes: 0 ended, 1 a listener, file, certificate or data directory that cannot be used (any more), 2 a wrong call.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .engine.limits import ENGINE_MAX_BYTES
from .faults import Faults, parsed
from .listeners import LISTENERS


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="unimq broker",
        description="The reference broker, for tests and development. Messages are in memory; see --data.",
        epilog="A port of 0 takes a free one; the URLs are printed and are in the ready file.",
    )
    for name in LISTENERS:
        made.add_argument(f"--{name}", type=_port, metavar="PORT", help=f"listen for {name}")
    made.add_argument("--amqp-dialect", choices=("3", "4"), default="3", help="RabbitMQ 3.10 (default) or 4")
    made.add_argument("--vhost", action="append", metavar="NAME", help="a virtual host besides /")
    made.add_argument("--users", type=Path, metavar="FILE", help='TOML: [users] name = "password"')
    made.add_argument("--tls-cert", metavar="FILE", help="PEM; every listener speaks TLS then")
    made.add_argument("--tls-key", metavar="FILE", help="PEM")
    made.add_argument("--tls-client-ca", metavar="FILE", help="PEM; client certificates signed by it log in")
    made.add_argument("--tls-ca", metavar="FILE", help="what the printed URLs tell a client to trust")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on; loopback by default")
    made.add_argument("--ready-file", type=Path, metavar="FILE", help="JSON: listener → URL, once all accept")
    made.add_argument(
        "--max-bytes", type=int, default=ENGINE_MAX_BYTES, metavar="N", help="what is held at most"
    )
    made.add_argument(
        "--data", type=Path, metavar="DIR", help="what is durable is kept there and outlives the broker"
    )
    made.add_argument("--faults", type=Path, metavar="FILE", help="JSON: what to do wrong, see faults.py")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of the names the broker makes up")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser()
    given = asked.parse_args(arguments)
    wanted = {name: getattr(given, name.replace("-", "_")) for name in LISTENERS}
    listen = {name: port for name, port in wanted.items() if port is not None}
    if not listen:
        asked.error(f"at least one listener: {', '.join('--' + name for name in LISTENERS)}")
    if (given.tls_cert is None) != (given.tls_key is None):
        asked.error("--tls-cert and --tls-key go together")
    try:
        users = None if given.users is None else read_users(given.users)
        faults = Faults() if given.faults is None else parsed(json.loads(given.faults.read_text("utf-8")))
        from .server import run

        broker = run(
            host=given.host,
            users=users,
            tls_cert=given.tls_cert,
            tls_key=given.tls_key,
            tls_client_ca=given.tls_client_ca,
            tls_ca=given.tls_ca,
            max_bytes=given.max_bytes,
            amqp_dialect=given.amqp_dialect,
            vhosts=("/", *(given.vhost or ())),
            data=given.data,
            seed=given.seed,
            faults=faults,
            **listen,
        )
    except (OSError, ValueError, TypeError) as error:
        print(f"unimq broker: {error}", file=sys.stderr)
        return 1
    with broker:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: broker.stopped.set())
        for listener, url in broker.urls.items():
            print(f"{listener:15} {url}", flush=True)
        if given.ready_file is not None:
            write_whole(given.ready_file, json.dumps(ready(broker.urls, given.tls_ca or given.tls_cert)))
        broker.stopped.wait()
    if broker.failure is not None:
        print(f"unimq broker: {broker.failure}", file=sys.stderr)
        return 1
    return 0


def ready(urls: Mapping[str, str], ca: str | None) -> dict[str, Any]:
    return {**urls, "ca": ca} if ca is not None else dict(urls)


def read_users(path: Path) -> dict[str, str]:
    import tomllib

    document = tomllib.loads(path.read_text("utf-8"))
    users = document.get("users")
    if not isinstance(users, dict) or not users:
        raise ValueError(f'{path}: it has a table [users] with name = "password"')
    for name, password in users.items():
        if not isinstance(password, str):
            raise ValueError(f"{path}: the password of {name!r} is a text")
    return users


def write_whole(path: Path, text: str) -> None:
    """Whoever waits for the file never sees half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port


if __name__ == "__main__":
    sys.exit(main())
