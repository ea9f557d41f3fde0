"""`python -m integration.up`: the command's environment and exit code, and nothing left, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from integration.native import BROKERS, BrokerFailed, RabbitMQ
from integration.native._process import Process
from integration.sources import probe

LIMIT_S = 60.0
ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.timeout(2 * LIMIT_S),
    # The one with most to leave behind: shells, an Erlang machine, an epmd that goes its own way.
    pytest.mark.skipif(
        RabbitMQ.available() is not None, reason=f"no native rabbitmq: {RabbitMQ.available()}"
    ),
]


@contextmanager
def up(tmp_path: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """`integration.up` with its temporary directories under `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "integration.up", *args],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def nothing_left(tmp_path: Path, *, known: list[psutil.Process] | None = None) -> bool:
    """No process that belongs to the directory, none of `known`, and no directory."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if (
            not list(tmp_path.glob("unimq-*"))
            and not of_directory(tmp_path)
            and not any(map(alive, known or []))
        ):
            return True
        time.sleep(0.05)
    return False


def of_directory(tmp_path: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if str(tmp_path) in environment(p).get("HOME", "")]


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ready(path: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    urls: dict[str, str] = json.loads(path.read_text())
    return urls


def test_the_command_has_the_urls_and_its_code_is_ours(tmp_path: Path) -> None:
    script = "import os, sys; print(os.environ['UNIMQ_URL'], os.environ['UNIMQ_RABBITMQ_URL']); sys.exit(7)"
    with up(tmp_path, "rabbitmq", "--", sys.executable, "-c", script) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 7
    first, named = out.split()
    assert first == named
    assert named.startswith("amqp://guest:guest@127.0.0.1:")
    assert re.search(r"rabbitmq \d+\.\d+\S* ready in \d+\.\d s", err)
    assert nothing_left(tmp_path)


def test_a_variant_says_all_that_a_client_needs(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    script = (
        "import os, unimq\n"
        "with unimq.connect() as mq:\n"
        "    print(mq.capabilities.found)\n"
        "assert os.environ['UNIMQ_URL'] == os.environ['UNIMQ_RABBITMQ_MTLS_URL']\n"
        f"print(open({str(file)!r}).read(), open(os.environ['UNIMQ_CA']).readline())"
    )
    with up(
        tmp_path, "rabbitmq+mtls", "--ready-file", str(file), "--", sys.executable, "-c", script
    ) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert out.startswith("RabbitMQ 3") and "BEGIN CERTIFICATE" in out
    told = json.loads(out[out.index("{") : out.index("}") + 1])
    assert set(told) == {"rabbitmq+mtls", "ca"}
    assert (
        told["rabbitmq+mtls"].startswith("amqps://127.0.0.1:")
        and "mechanism=EXTERNAL" in told["rabbitmq+mtls"]
    )
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("label", "says"), [("rabbit", "no broker 'rabbit'"), ("kafka+mtsl", "no variant 'mtsl'")]
)
def test_a_wrong_label_is_2(tmp_path: Path, label: str, says: str) -> None:
    with up(tmp_path, label) as process:
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert says in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "ready.json"
    with up(tmp_path, "rabbitmq", "--ready-file", str(file)) as process:
        probe(ready(file, process)["rabbitmq"])
        running = of_directory(tmp_path)
        assert {"beam.smp", "epmd"} <= {p.name() for p in running}
        process.send_signal(number)
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert nothing_left(tmp_path, known=running)
    assert file.exists() == (number == signal.SIGKILL)


def test_a_signal_ends_the_command_too(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    with up(tmp_path, "rabbitmq", "--ready-file", str(file), "--", "sleep", "1000") as process:
        ready(file, process)
        deadline = time.monotonic() + LIMIT_S
        while not (sleeping := [c for c in psutil.Process(process.pid).children() if c.name() == "sleep"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert nothing_left(tmp_path, known=sleeping)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with up(tmp_path, "rabbitmq", "--", "unimq-no-such-command") as process:
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 127
    assert "No such file" in err
    assert nothing_left(tmp_path)


def test_a_broker_that_does_not_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "rabbitmq-server"
    fake.write_text("#!/bin/sh\necho I cannot\nexit 5\n")
    fake.chmod(0o755)
    monkeypatch.setattr("integration.native.rabbitmq._tool", lambda _: str(fake))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BrokerFailed, match=r"(?s)ended with code 5.*I cannot"), BROKERS["rabbitmq"]():
        pass
    assert nothing_left(tmp_path)


def test_daemons_of_a_broker_are_reaped_while_it_runs_and_ended_with_it(tmp_path: Path) -> None:
    script = "(sleep 0.01 &); (setsid sleep 1000 &); exec sleep 1000"
    secret = os.environ | {"UNIMQ_TEST_SECRET": "marked-secret"}
    process = Process(["sh", "-c", script], env=secret, directory=tmp_path, log=tmp_path / "log")
    try:
        (keeper,) = [p for p in psutil.Process().children() if process.group in {c.pid for c in p.children()}]
        assert "marked-secret" not in " ".join(keeper.cmdline())
        deadline = time.monotonic() + LIMIT_S
        while len(children := keeper.children()) != 2 or not all(map(alive, children)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.stop()
    assert not any(map(alive, children))


def test_a_broker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UNIMQ_CACHE", str(tmp_path / "cache"))
    with up(tmp_path, "kafka") as process:
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3
    assert "no java on the PATH" in err
