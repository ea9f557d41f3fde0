"""Programs on the reference broker alone: twice the same, and not the same with a bug in it. No other broker is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.differential import bugs
from integration.differential.difference import Sides, compare
from integration.differential.executor import Executor, Trace
from integration.differential.making import Op
from integration.differential.operations import program
from unimq import broker


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with broker.run(amqp=0) as running:
        yield running.urls["amqp"]


@pytest.mark.parametrize("seed", [3, 4])
def test_twice_the_same(url: str, seed: int) -> None:
    ops = [op for op in program(seed, 30) if op["op"] != "wait"]
    assert compare(Sides(url, url, ("one", "two")), ops) == (None, False)


def publish(queue: str, **more: object) -> Op:
    plain = {"exchange": "", "key": queue, "body": "m", "count": 1, "mandatory": False, "properties": {}}
    return {"op": "publish", "ch": "a0", **plain, **more}


def declare(queue: str, **arguments: object) -> Op:
    flags = {"durable": False, "exclusive": False, "auto_delete": False}
    return {"op": "declare_queue", "ch": "a0", "queue": queue, "arguments": arguments, **flags}


def consume(channel: str, prefetch: int = 0) -> Op:
    plain = {"no_ack": False, "exclusive": False, "arguments": {}}
    return {"op": "consume", "ch": channel, "queue": "q0", "tag": "t", "prefetch": prefetch, **plain}


GET: Op = {"op": "get", "ch": "a0", "queue": "q0", "no_ack": False}
REJECT: Op = {"op": "reject", "ch": "a0", "which": 0, "requeue": False}
ROUND: dict[str, object] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q0"}
EXCHANGE: Op = {
    "op": "declare_exchange", "ch": "a0", "exchange": "e0", "kind": "topic", "durable": False, "auto_delete": False,
    "internal": False, "arguments": {},
}  # fmt: skip
BIND: Op = {"op": "bind_queue", "ch": "a0", "queue": "q0", "exchange": "e0", "key": "#", "arguments": {}}

# The smallest program that shows each bug, as the real broker and minimising gave it.
SHOWS: dict[str, list[Op]] = {
    "requeue-to-the-back": [declare("q0"), publish("q0", count=2), GET, {**REJECT, "requeue": True}],
    "death-not-counted": [declare("q0", **ROUND), publish("q0"), GET, REJECT, GET, REJECT],
    "topic-hash-needs-a-word": [declare("q0"), EXCHANGE, BIND, publish("", exchange="e0")],
    "one-copy-too-many": [
        declare("q0"),
        EXCHANGE,
        BIND,
        {**BIND, "key": "a.#"},
        publish("a.b", exchange="e0"),
    ],
    "redelivered-forgotten": [declare("q0"), publish("q0"), GET, {"op": "close_channel", "ch": "a0"}],
    "rejected-is-a-cycle": [declare("q0", **ROUND), publish("q0"), GET, REJECT],
    "rollback-keeps-the-publishes": [
        declare("q0"),
        {
            "op": "transaction",
            "connection": "a",
            "publishes": [publish("q0")],
            "get": None,
            "settle": "ack",
            "end": "rollback",
        },
    ],
    "prefetch-plus-one": [declare("q0"), publish("q0", count=2), consume("a0", prefetch=1)],
    "last-to-come-is-active": [
        declare("q0", **{"x-single-active-consumer": True}),
        *(consume(channel) for channel in ("a0", "b0", "b1")),
        {"op": "close_channel", "ch": "a0"},
        publish("q0"),
    ],
    "alternate-gets-all": [
        declare("q0"),
        declare("q1"),
        {**EXCHANGE, "arguments": {"alternate-exchange": "e1"}},
        {**EXCHANGE, "exchange": "e1"},
        BIND,
        {**BIND, "queue": "q1", "exchange": "e1"},
        publish("k", exchange="e0"),
    ],
}


@pytest.mark.parametrize("bug", bugs.BUGS)
def test_a_seeded_bug_shows(url: str, bug: str) -> None:
    def run() -> Trace:
        return Executor(url, f"{bug}-").run(SHOWS[bug])

    right = run()
    with bugs.seeded(bug):
        assert run() != right
    assert run() == right
