"""Random programs on durable queues, killed at any time: what is restored is what a reader that vanished would have left."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.broker.engine.amqp_kit import queue, quorum, send
from unimq.broker.engine.message import DEAD, READY, Entry
from unimq.broker.engine.vhost import VHost

from .kit import Life

OWNER = "reader"
STEPS = 120
SEEDS = 8
DEAD_LETTER = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def declare(on: VHost) -> None:
    queue(on, "plain", durable=True)
    queue(on, "transient", durable=True)
    queue(on, "dead", {"x-max-length": 30}, durable=True)
    queue(on, "bounded", {"x-max-length": 5, **DEAD_LETTER}, durable=True)
    queue(on, "ttl", {"x-message-ttl": 5_000, "x-max-priority": 4, **DEAD_LETTER}, durable=True)
    limited = {"delivery_limit": 2, "dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
    quorum(on, "limited", **limited)
    at_least_once = {"dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}
    quorum(on, "held", dead_letter_exchange="", dead_letter_routing_key="nowhere", **at_least_once)
    for name in ("plain", "bounded", "limited"):
        on.bind_queue(name, "amq.fanout", "")


class Program:
    def __init__(self, life: Life, chance: random.Random) -> None:
        self.life = life
        self.chance = chance
        self.held: list[tuple[str, Entry]] = []
        self.steps: tuple[Callable[[], object], ...] = (
            self.publish, self.publish, self.publish, self.fan_out, self.take, self.take, self.ack, self.ack, self.requeue,
            self.reject, self.read, self.purge, self.wait, self.life.commit, self.life.commit,
        )  # fmt: skip

    def some_queue(self) -> str:
        return self.chance.choice(list(self.life.vhost.queues))

    def message(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"delivery_mode": 2, "priority": self.chance.randrange(6)}
        if self.chance.random() < 0.3:
            properties["expiration"] = str(self.chance.randrange(8) * 1000)
        return properties

    def publish(self) -> None:
        name = self.some_queue()
        # elsewhere a transient message that is not restored leaves room behind a bound, or an expired one behind it
        transient = name == "transient" and self.chance.random() < 0.5
        properties = {"delivery_mode": 2 - transient} if name == "transient" else self.message()
        send(self.life.vhost, name, str(self.chance.random()), **properties)

    def fan_out(self) -> None:
        send(self.life.vhost, "", str(self.chance.random()), "amq.fanout", **self.message())

    def take(self) -> None:
        name = self.some_queue()
        got = self.life.vhost.get(name, OWNER)
        if got is not None:
            self.held.append((name, got[1]))

    def read(self) -> None:
        self.life.vhost.get(self.some_queue(), OWNER, no_ack=True)

    def _settle(self, verb: str) -> None:
        if self.held:
            name, entry = self.held.pop(self.chance.randrange(len(self.held)))
            getattr(self.life.vhost, verb)(self.life.vhost.queues[name], [entry])

    def ack(self) -> None:
        self._settle("ack")

    def requeue(self) -> None:
        self._settle("requeue")

    def reject(self) -> None:
        self._settle("reject")

    def purge(self) -> None:
        if self.chance.random() < 0.1:
            self.life.vhost.purge_queue(self.some_queue())

    def wait(self) -> None:
        self.life.clock.advance(self.chance.random() * 2)
        self.life.engine.tick()


def content(on: VHost) -> dict[str, list[Any]]:
    """What is to outlive the broker, in its order."""
    found = {}
    for name, each in on.queues.items():
        entries = each.core.browse(10_000, states=(READY, DEAD))
        lasting = [e for e in entries if each.spec.kind == "quorum" or e.stored.persistent]
        lasting.sort(key=lambda e: (e.state, -e.priority, e.position))
        found[name] = [
            (
                e.seq,
                e.state,
                e.stored.body,
                e.stored.meta.properties.raw,
                e.redelivered,
                e.delivery_count,
                e.expires_at,
            )
            for e in lasting
        ]
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_restored_is_what_there_was(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    life = Life(tmp_path / "data")
    declare(life.vhost)
    for _ in range(3):
        program = Program(life, chance)
        for _ in range(STEPS):
            chance.choice(program.steps)()
        life.commit()
        for each in life.vhost.queues.values():
            each.core.drop_owner(OWNER)
            each.bound()
        expected = content(life.vhost)
        life = life.killed()
        assert content(life.vhost) == expected
        held_bytes = sum(e.core.held_bytes for e in life.vhost.queues.values())
        assert life.engine.budget.held_bytes == held_bytes
        assert life.rows() == sum(map(len, expected.values()))
    life.store.close()


def test_a_bug_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes back keeps the count that it had when it came."""
    monkeypatch.setattr("unimq.broker.data.store.StoredQueue.changed", lambda _self, _entry: None)
    with pytest.raises(AssertionError):
        for seed in range(SEEDS):
            test_restored_is_what_there_was(seed, tmp_path / str(seed))
