"""`unimq broker` as a process: ready file, users, signals, wrong calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pika
import pytest

from unimq.broker import command

READY_MAX_S = 20.0


def start(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    ready = tmp_path / "ready.json"
    line = [
        sys.executable,
        "-m",
        "unimq.broker.command",
        "--amqp",
        "0",
        "--ready-file",
        str(ready),
        *arguments,
    ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + READY_MAX_S
    while not ready.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "not ready"
        Event().wait(0.01)
    return process, json.loads(ready.read_text("utf-8"))


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=READY_MAX_S)
    return process.returncode


def test_a_process_with_users_and_a_vhost(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    users.write_text('[users]\nanna = "s p/ce"\n', "utf-8")
    process, urls = start(tmp_path, "--users", str(users), "--vhost", "tests")
    try:
        with pika.BlockingConnection(pika.URLParameters(urls["amqp"])) as connection:
            connection.channel().queue_declare("q")
        with pika.BlockingConnection(pika.URLParameters(urls["amqp"] + "tests")) as connection:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="vhost 'tests'"):
                connection.channel().queue_declare("q", passive=True)
        parameters = pika.URLParameters(urls["amqp"])
        parameters.credentials = pika.PlainCredentials("guest", "guest")
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(parameters)
    finally:
        assert stop(process) == 0


def test_faults_from_a_file(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    rule = {"action": "refuse", "method": "queue.declare", "code": 403, "text": "not today"}
    faults.write_text(json.dumps({"rules": [rule]}), "utf-8")
    process, urls = start(tmp_path, "--faults", str(faults))
    try:
        with pika.BlockingConnection(pika.URLParameters(urls["amqp"])) as connection:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="not today"):
                connection.channel().queue_declare("q")
    finally:
        assert stop(process) == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["--amqp", "70000"], ["--amqp", "0", "--tls-cert", "x"], ["--amqp", "0", "--amqp-dialect", "5"]],
)
def test_a_wrong_call_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("text", ["", "[users]\n", "[users]\nanna = 7\n", "not toml ["])
def test_a_users_file_that_makes_no_sense_is_1(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users.toml"
    users.write_text(text, "utf-8")
    assert command.main(["--amqp", "0", "--users", str(users)]) == 1
    assert capsys.readouterr().err.startswith("unimq broker: ")


def test_the_process_needs_no_extra() -> None:
    """Neither the command line's libraries nor a client library is loaded."""
    probe = (
        "import sys, unimq.broker.command, unimq.broker.server, unimq.broker.sessions.amqp091\n"
        "print(sorted(m for m in ('typer', 'rich', 'pika', 'pytest') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        timeout=READY_MAX_S,
        env=dict(os.environ),
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
