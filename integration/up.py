"""Starts real brokers, runs a command with their URLs in its environment, stops them with it.

    python -m integration.up rabbitmq kafka artemis classic -- COMMAND ARGS…
    python -m integration.up rabbitmq+tls rabbitmq+mtls kafka+login artemis+tls+login …

- The command finds `UNIMQ_URL` (the first broker) and `UNIMQ_RABBITMQ_URL`, `UNIMQ_KAFKA_TLS_URL` … and its exit code is ours.
- A variant (`native/security.py`) has TLS, asks for a client's certificate or has a login of its own. Its URL says all that
  `unimq.connect` needs; `UNIMQ_CA` is the CA made for this run. Keys lie in the brokers' directories and end with them.
- Without a command the URLs are printed and the brokers stay until Ctrl-C or SIGTERM.
- Nothing stays behind: no process, no directory; also when this program itself is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from integration.native import BROKERS, Authority, BrokerFailed, NativeBroker, kind_of, make, read, variable

COMMAND_STOP_TIMEOUT_S = 30.0
EXIT_UNAVAILABLE = 3
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Told(Exception):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    labels, command, ready_file = _arguments(sys.argv[1:] if argv is None else argv)
    missing = {label: reason for label in labels if (reason := kind_of(label).available())}
    for label, reason in missing.items():
        print(f"{label}: cannot be started here: {reason}", file=sys.stderr)
    if missing:
        return EXIT_UNAVAILABLE
    for number in _SIGNALS:
        # Under nohup SIGHUP is ignored already, and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, _on_signal)
    authority = Authority() if any(read(label)[1].tls for label in labels) else None
    brokers = [make(label, authority) for label in labels]
    try:
        with ExitStack() as stack:
            for broker in brokers:
                stack.callback(broker.stop)
            try:
                _start(brokers)
                urls = {broker.label: broker.url for broker in brokers}
                ca = next((str(broker.files.ca) for broker in brokers if broker.files is not None), None)
                if ready_file is not None:
                    stack.callback(ready_file.unlink, missing_ok=True)
                    told = urls if ca is None else {**urls, "ca": ca}
                    _write_whole(ready_file, json.dumps(told, indent=2) + "\n")
                variables = environment(urls, ca)
                return _run(command, variables) if command else _stay(variables)
            finally:
                _deaf()
    except _Told as told:
        return told.exit_code
    except BrokerFailed as error:
        print(error, file=sys.stderr)
        return 1


def environment(urls: dict[str, str], ca: str | None = None) -> dict[str, str]:
    """What a command finds; `urls` is in the order of the command line."""
    found = {"UNIMQ_URL": next(iter(urls.values()))}
    found |= {variable(label): url for label, url in urls.items()}
    return found if ca is None else found | {"UNIMQ_CA": ca}


def _arguments(argv: Sequence[str]) -> tuple[list[str], list[str], Path | None]:
    ours, command = list(argv), []
    if "--" in ours:
        cut = ours.index("--")
        ours, command = ours[:cut], ours[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m integration.up", usage="%(prog)s [--ready-file F] BROKER… [-- COMMAND…]"
    )
    variants = "; ".join(
        f"{name}[{''.join(f'+{word}' for word in kind.words)}]" for name, kind in BROKERS.items()
    )
    parser.add_argument("brokers", nargs="+", type=_label, metavar="BROKER", help=variants)
    parser.add_argument(
        "--ready-file",
        type=Path,
        help="written as JSON when all take connections: BROKER to URL, and ca to a file",
    )
    options = parser.parse_args(ours)
    return list(dict.fromkeys(options.brokers)), command, options.ready_file


def _label(text: str) -> str:
    """As it was written, if there is such a broker."""
    try:
        read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _on_signal(number: int, _frame: FrameType | None) -> None:
    _deaf()
    raise _Told(number)


def _deaf() -> None:
    """From here on we clean up: a second Ctrl-C must not tear that apart."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _start(brokers: Sequence[NativeBroker]) -> None:
    def start(broker: NativeBroker) -> None:
        broker.start()
        print(
            f"{broker.label} {broker.version} ready in {broker.start_time_s:.1f} s: {broker.url}",
            file=sys.stderr,
            flush=True,
        )

    with ThreadPoolExecutor(len(brokers)) as pool:
        for done in [pool.submit(start, broker) for broker in brokers]:
            done.result()


def _run(command: list[str], variables: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env=os.environ | variables)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        code = child.wait()
    except BaseException:
        # Ctrl-C reached the command itself; a SIGTERM was for us alone.
        child.terminate()
        try:
            child.wait(COMMAND_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    return code if code >= 0 else 128 - code


def _stay(variables: dict[str, str]) -> int:
    for name, value in variables.items():
        print(f"export {name}={value}", flush=True)
    print("running until Ctrl-C", file=sys.stderr)
    while True:
        threading.Event().wait()


def _write_whole(path: Path, text: str) -> None:
    """Whoever polls for the file never reads half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


if __name__ == "__main__":
    sys.exit(main())
