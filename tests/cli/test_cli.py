"""The command line, as a person calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

import unimq
from unimq.cli.app import NOTHING_THERE, app


@pytest.fixture
def call(unimq_url: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("UNIMQ_URL", unimq_url)

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return run


def test_a_message_goes_in_and_out(call: object) -> None:
    assert callable(call)
    assert call("declare", "queue:orders").exit_code == 0
    sent = call("send", "queue:orders", "-", "-H", "colour=red", "--key", "k", stdin="hello")
    assert sent.exit_code == 0, sent.output
    looked = call("browse", "queue:orders", "--json")
    assert json.loads(looked.output)["body"] == "hello"
    numbers = json.loads(call("stats", "queue:orders", "--json").output)
    assert numbers["depth"] == 1
    got = json.loads(call("receive", "queue:orders", "--json").output)
    assert got == {
        "message_id": sent.output.strip(), "key": "k", "subject": None, "headers": {"colour": "red"}, "body": "hello"
    }  # fmt: skip
    assert call("receive", "queue:orders", "--timeout-s", "0.05").exit_code == NOTHING_THERE


def test_purge_asks(call: object) -> None:
    assert callable(call)
    call("send", "queue:orders", "x", "--declare")
    assert call("purge", "queue:orders", stdin="n\n").exit_code == 1
    assert json.loads(call("stats", "queue:orders", "--json").output)["depth"] == 1
    assert call("purge", "queue:orders", "--yes").output.strip() == "removed 1"


@pytest.mark.parametrize("address", ["orders", "queue:", "topic:t"])
def test_a_wrong_address_is_a_wrong_call(call: object, address: str) -> None:
    assert callable(call)
    assert call("receive", address).exit_code == 2


def test_an_error_is_one_sentence(call: object) -> None:
    assert callable(call)
    failed = call("send", "queue:nowhere", "x")
    assert failed.exit_code == 1
    assert "mq.declare" in failed.output
    assert "Traceback" not in failed.output


def test_explain_says_what_is_done(unimq_url: str) -> None:
    page = str(unimq.explain(unimq_url, unimq.Queue("orders")))
    assert "confirmed_send" in page
    assert "orders.dlq" in page
    assert unimq.explain(unimq_url, connect=False).address is None


def test_python_m_unimq() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unimq", "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0
    assert "explain" in done.stdout
