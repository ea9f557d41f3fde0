"""Starts real brokers, runs a command with their URLs in its environment, stops them with it.

    python -m integration.up rabbitmq kafka artemis classic -- COMMAND ARGS…

- The command finds `UNIMQ_URL` (the first broker) and `UNIMQ_RABBITMQ_URL`, `UNIMQ_KAFKA_URL` … and its exit code is ours.
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

from integration.native import BROKERS, BrokerFailed, NativeBroker

COMMAND_STOP_TIMEOUT_S = 30.0
EXIT_UNAVAILABLE = 3
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Told(Exception):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    names, command, ready_file = _arguments(sys.argv[1:] if argv is None else argv)
    missing = {name: reason for name in names if (reason := BROKERS[name].available())}
    for name, reason in missing.items():
        print(f"{name}: cannot be started here: {reason}", file=sys.stderr)
    if missing:
        return EXIT_UNAVAILABLE
    for number in _SIGNALS:
        # Under nohup SIGHUP is ignored already, and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, _on_signal)
    brokers = [BROKERS[name]() for name in names]
    try:
        with ExitStack() as stack:
            for broker in brokers:
                stack.callback(broker.stop)
            try:
                _start(brokers)
                urls = {broker.name: broker.url for broker in brokers}
                if ready_file is not None:
                    stack.callback(ready_file.unlink, missing_ok=True)
                    _write_whole(ready_file, json.dumps(urls, indent=2) + "\n")
                return _run(command, urls) if command else _stay(urls)
            finally:
                _deaf()
    except _Told as told:
        return told.exit_code
    except BrokerFailed as error:
        print(error, file=sys.stderr)
        return 1


def environment(urls: dict[str, str]) -> dict[str, str]:
    """What a command finds; `urls` is in the order of the command line."""
    return {"UNIMQ_URL": next(iter(urls.values()))} | {
        f"UNIMQ_{name.upper()}_URL": url for name, url in urls.items()
    }


def _arguments(argv: Sequence[str]) -> tuple[list[str], list[str], Path | None]:
    ours, command = list(argv), []
    if "--" in ours:
        cut = ours.index("--")
        ours, command = ours[:cut], ours[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m integration.up", usage="%(prog)s [--ready-file F] BROKER… [-- COMMAND…]"
    )
    parser.add_argument(
        "brokers", nargs="+", choices=list(BROKERS), metavar="BROKER", help=" | ".join(BROKERS)
    )
    parser.add_argument(
        "--ready-file", type=Path, help="written as JSON, name to URL, when all take connections"
    )
    options = parser.parse_args(ours)
    return list(dict.fromkeys(options.brokers)), command, options.ready_file


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
            f"{broker.name} {broker.version} ready in {broker.start_time_s:.1f} s: {broker.url}",
            file=sys.stderr,
            flush=True,
        )

    with ThreadPoolExecutor(len(brokers)) as pool:
        for done in [pool.submit(start, broker) for broker in brokers]:
            done.result()


def _run(command: list[str], urls: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env=os.environ | environment(urls))
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


def _stay(urls: dict[str, str]) -> int:
    for name, value in environment(urls).items():
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
