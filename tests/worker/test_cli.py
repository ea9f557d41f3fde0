"""`unimq worker` and `unimq dlq`, as a person calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import unimq
from unimq import Message, Queue
from unimq.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
A = Queue("a")


def call(url: str, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", url], input=stdin)


@pytest.fixture
def dead(unimq_url: str) -> Iterator[unimq.Client]:
    """Five dead letters: three `why`, two `other`."""
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send_many(A, [Message(b"%d" % n, message_id=f"id-{n}") for n in range(5)]).raise_for_errors()
        with mq.receiver(A) as receiver:
            left = 5
            while left:
                for delivery in receiver.receive(left, timeout_s=5):
                    delivery.dead_letter(
                        "why" if int(delivery.body or b"") < 3 else "other", "because [of] this"
                    )
                    left -= 1
        yield mq


def test_ls_and_show(unimq_url: str, dead: unimq.Client) -> None:
    found = call(unimq_url, "dlq", "ls", "queue:a")
    assert found.exit_code == 0 and "id-4" in found.output
    lines = call(unimq_url, "dlq", "ls", "queue:a", "--json", "--reason", "other").output.splitlines()
    assert [json.loads(line)["message_id"] for line in lines] == ["id-3", "id-4"]
    shown = call(unimq_url, "dlq", "show", "queue:a", "id-1", "--json")
    document = json.loads(shown.output)
    assert (document["body"], document["reason"], document["description"]) == (
        "1",
        "why",
        "because [of] this",
    )
    assert call(unimq_url, "dlq", "show", "queue:a", "id-1").exit_code == 0
    assert call(unimq_url, "dlq", "show", "queue:a", "id-9").exit_code == 3


def test_replay_asks_and_chooses(unimq_url: str, dead: unimq.Client) -> None:
    no = call(unimq_url, "dlq", "replay", "queue:a", stdin="n\n")
    assert no.exit_code == 1 and dead.dead_letters(A).count() == 5
    some = call(unimq_url, "dlq", "replay", "queue:a", "--reason", "other", "--yes")
    assert (some.exit_code, some.output) == (0, "replayed 2\n")
    one = call(unimq_url, "dlq", "replay", "queue:a", "--id", "id-1", stdin="y\n")
    assert one.exit_code == 0 and one.output.endswith("replayed 1\n")
    assert sorted(each.body or b"" for each in dead.browse(A)) == [b"1", b"3", b"4"]
    assert call(unimq_url, "dlq", "replay", "queue:a", "--reason", "nothing", "--yes").exit_code == 3


def test_purge_asks(unimq_url: str, dead: unimq.Client) -> None:
    assert call(unimq_url, "dlq", "purge", "queue:a", stdin="n\n").exit_code == 1
    gone = call(unimq_url, "dlq", "purge", "queue:a", "--yes")
    assert (gone.exit_code, gone.output) == (0, "removed 5\n")
    assert call(unimq_url, "dlq", "purge", "queue:a", "--yes").exit_code == 3
    assert call(unimq_url, "dlq", "ls", "queue:a").exit_code == 3


def test_a_wrong_call_says_what_to_write(unimq_url: str) -> None:
    assert call(unimq_url, "dlq", "ls", "topic:a").exit_code == 2
    assert call(unimq_url, "dlq", "ls", "a").exit_code == 2


# ----------------------------------------------------------------------------------------------------- unimq worker
JOBS = """
import os, threading, unimq
from unimq import Queue
from unimq.worker import Worker

worker = Worker(declare=[Queue("a")])
unrelated = 7

@worker.handler(Queue("a"))
def work(body: bytes) -> None:
    print("{says}", body.decode(), os.getpid(), flush=True)

def feed():
    with unimq.connect() as mq:
        mq.declare(Queue("a"))
        mq.send(Queue("a"), b"one")
threading.Thread(target=feed, daemon=True).start()
"""


def unimq_worker(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}",
        "UNIMQ_URL": "memory://cli",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "unimq", "worker", *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def write(folder: Path, says: str) -> None:
    (folder / "jobs.py").write_text(textwrap.dedent(JOBS).format(says=says))


def test_a_worker_is_run_from_its_module(tmp_path: Path) -> None:
    write(tmp_path, "handled")
    with unimq_worker(tmp_path, "jobs") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("handled one")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err


@pytest.mark.parametrize(
    ("where", "code", "says"),
    [("nowhere:worker", 2, "there is no module"), ("jobs:unrelated", 2, "is not a unimq.Worker")],
)
def test_a_worker_that_is_not_there(tmp_path: Path, where: str, code: int, says: str) -> None:
    write(tmp_path, "x")
    with unimq_worker(tmp_path, where) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert says in " ".join(err.replace("│", " ").split())


def test_what_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, "x")
    with unimq_worker(tmp_path, "jobs", "--url", "nonsense://x") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith("unimq: ") and len(err.splitlines()) == 1


def test_reload_starts_anew_when_a_file_changes(tmp_path: Path) -> None:
    write(tmp_path, "before")
    with unimq_worker(tmp_path, "jobs", "--reload") as process:
        assert process.stdout is not None
        first = process.stdout.readline().split()
        assert first[0] == "before"
        write(tmp_path, "after and more")
        second = process.stdout.readline().split()
        assert second[0] == "after" and second[-1] != first[-1]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert "starting anew" in err
        assert process.returncode == 0, err
