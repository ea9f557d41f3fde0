"""The examples, run as people run them, on a broker of the process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import unimq
from unimq import Message, Queue
from unimq.testing import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def url(unimq_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("UNIMQ_URL", unimq_url)
    return unimq_url


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_consumer(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("consumer", monkeypatch)
    with unimq.connect(url) as mq:
        mq.declare(example.ORDERS)
        mq.send(example.ORDERS, {"id": 1, "item": "tea"})
        mq.send(example.ORDERS, {"id": 2, "item": "unicorn"})
        mq.send(example.ORDERS, b"not an order")
    outcomes = run(example.worker)
    assert "order 1: tea (try 1)" in capsys.readouterr().out
    assert sorted(dead.reason for dead in outcomes.dead) == ["fatal", "undecodable"]
    assert outcomes.exit_code == 0


def test_the_etl_job(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("etl", monkeypatch)
    with unimq.connect(url) as mq:
        mq.declare(example.RAW)
        rows: list[Any] = [{"name": "ada", "cents": 250}, {"name": "bob", "cents": 199}, b"scrambled"]
        mq.send_many(example.RAW, [Message(row) for row in rows]).raise_for_errors()
        assert example.main() == 1
        assert [each.decode(dict) for each in mq.browse(example.CLEAN)] == [
            {"name": "Ada", "euros": 2.5}, {"name": "Bob", "euros": 1.99},
        ]  # fmt: skip
        assert [letter.reason for letter in mq.dead_letters(example.RAW).browse()] == ["undecodable"]
    assert "2 rows went on, 1 are in the dead letters" in capsys.readouterr().out
    assert example.main() == 0, "an empty queue is no error"


def test_the_replay_script(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("replay", monkeypatch)
    orders = Queue("orders")
    worker = unimq.Worker(url, declare=[orders])

    @worker.handler(orders, retry=unimq.Retry(immediate=0, delayed_s=[]))
    def work(n: int) -> None:
        raise ConnectionError("down") if n % 2 else ValueError("wrong")

    with unimq.connect(url) as mq:
        mq.declare(orders)
        mq.send_many(orders, [Message(b"%d" % n) for n in range(6)]).raise_for_errors()
    run(worker)
    assert example.main("queue:orders", "ConnectionError") == 0
    assert "3 went back to queue:orders; left: {'exhausted': 3}" in capsys.readouterr().out
    assert example.main("topic:orders", "x") == 2


@pytest.mark.unimq_async(timeout_s=30)
async def test_the_fastapi_service(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="the example needs fastapi")
    example = load("fastapi_service", monkeypatch)
    app = example.app
    async with app.router.lifespan_context(app):
        status, said = await ask(app, "POST", "/mails", {"to": "ada", "text": "hello"})
        assert status == 202 and said["id"]
        for _ in range(500):
            if example.sent:
                break
            await asyncio.sleep(0.01)
        assert [mail.to for mail in example.sent] == ["ada"]
        assert await ask(app, "GET", "/healthz") == (200, {"ok": True, "problems": []})
    assert (await ask(app, "GET", "/healthz"))[0] == 503


async def ask(app: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request, as an ASGI server makes it."""
    sent: list[dict[str, Any]] = []
    content = b"" if body is None else json.dumps(body).encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("test", 80), "client": ("test", 1),
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(event.get("body", b"") for event in sent[1:]))
