"""Proof 8, for the byte sweep: with a bug built in, it finds it. Each bug is one that a client library could well have.

The bugs are in the core and in the driver of this process, by monkeypatch; the places are those where each must show, so few
are needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import unimq
from integration.proofs import sweep
from integration.proofs.kit import SYNC, WORLDS, gone
from integration.proofs.raw import Raw
from integration.sources import Broker
from unimq import Queue
from unimq._batcher import Batcher
from unimq._settlement import Desk
from unimq.driver import ALL_SETTLED, ALL_WELL, BatchResult
from unimq.errors import UnimqError
from unimq.testing.proxy import FaultProxy
from unimq_rabbitmq.receiver import RabbitReceiver
from unimq_rabbitmq.sender import RabbitSender

PLACES = 60
LIMIT_S = 120
SETTLE_S = 10.0
SEEDED_PLACE_LIMIT_S = 4.0  # a seeded hang is waited for so long
Run = Callable[[str], list[str]]


@pytest.fixture
def run(rabbitmq: Broker, proxied: FaultProxy, unique: Callable[[str], str]) -> Iterator[Run]:
    """`run("send")`: a small sweep up to the first place with findings; these."""
    queue = Queue(unique("seeded"))
    with unimq.connect(rabbitmq.url) as mq:
        mq.declare(queue)
    with Raw(rabbitmq.url) as raw:

        def sweep_until_found(kind: str) -> list[str]:
            at: Any = sweep.send_at if kind == "send" else sweep.receive_at
            limits = {"limit_s": SEEDED_PLACE_LIMIT_S} if kind == "send" else {}
            for number in range(2):
                before = proxied.connections
                clean = at(proxied, rabbitmq.url, raw, queue, None, SYNC, f"clean{number}", **limits)
            if clean.findings:
                return list(clean.findings)
            places = sweep.spread(sweep.measured(proxied, before), PLACES)
            for number, place in enumerate(reversed(places)):  # the data comes after the handshake
                seen = at(
                    proxied, rabbitmq.url, raw, queue, place, WORLDS[number % 2], f"at{number}", **limits
                )
                if seen.findings:
                    return list(seen.findings)
            return []

        logging.disable(logging.CRITICAL)
        yield sweep_until_found
        assert gone(SETTLE_S) == [], "the seeded bug has left something running"
        logging.disable(logging.NOTSET)
        raw.delete(queue.name, f"{queue.name}.dlq")


@pytest.mark.timeout(LIMIT_S)
def test_confirmed_on_write_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = RabbitSender.submit

    def bad(self: Any, batch: Any, done: Any) -> int:
        accepted = submit(self, batch, lambda result: None)
        done(ALL_WELL)
        return accepted

    monkeypatch.setattr(RabbitSender, "submit", bad)
    assert any("was confirmed and is there 0 times" in text for text in run("send"))


@pytest.mark.timeout(LIMIT_S)
def test_unknown_sent_again_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handed over and not confirmed is sent again as if it had never left: duplicates."""
    landed = Batcher._landed

    def bad(self: Any, flight: Any, result: BatchResult) -> None:
        if result.failures:
            never = {i: type(f)(f.error, handed_over=False) for i, f in result.failures.items()}
            result = BatchResult(never, result.positions)
        landed(self, flight, result)

    monkeypatch.setattr(Batcher, "_landed", bad)
    found = run("send")
    assert any("is there 2 times" in text for text in found), found


@pytest.mark.timeout(LIMIT_S)
def test_a_flight_that_is_dropped_when_it_should_be_queued_again_is_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[tuple[Any, Any]] = []
    monkeypatch.setattr(Batcher, "_requeue", lambda self, flight: dropped.append((self, flight)))
    submit = RabbitSender.submit
    refused: list[object] = []

    def refusing(self: Any, batch: Any, done: Any) -> int:
        if not refused:  # the line breaks before the first batch is written
            refused.append(batch)
            self._loop.call(lambda: self._loop.cut(ConnectionResetError("cut")))
            self._loop._join(5.0)
        return submit(self, batch, done)

    monkeypatch.setattr(RabbitSender, "submit", refusing)
    found = run("send")
    for batcher, flight in dropped:  # whoever still waits goes home
        late = dict.fromkeys(flight.indexes, UnimqError("dropped by the test"))
        batcher._announce(batcher._resolve(flight, late, None))
    assert any("did not end within" in text for text in found)


@pytest.mark.timeout(LIMIT_S)
def test_an_ack_before_the_copy_is_confirmed_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Desk._copy

    def bad(self: Any, delivery: Any, place: Any, carried: Any, **more: Any) -> None:
        self._settling.ack(delivery)
        copy(self, delivery, place, carried, **more)
        self._copying.pop(delivery, None)

    monkeypatch.setattr(Desk, "_copy", bad)
    found = run("receive")
    assert any("dead-letter place" in text or "is nowhere" in text for text in found), found


@pytest.mark.timeout(LIMIT_S)
def test_a_flush_that_does_not_wait_for_the_broker_is_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = RabbitReceiver.settle

    def bad(self: Any, deliveries: Any, outcome: Any, done: Any) -> None:
        settle(self, deliveries, outcome, lambda result: None)
        done(ALL_SETTLED)

    monkeypatch.setattr(RabbitReceiver, "settle", bad)
    monkeypatch.setattr(RabbitReceiver, "flush", lambda self, done: done(ALL_SETTLED))
    found = run("receive")
    assert any("came again after" in text or "still there" in text for text in found), found


@pytest.mark.timeout(LIMIT_S)
def test_a_lost_settlement_that_is_not_reported_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Desk, "_report_lost", lambda self, deliveries: None)
    found = run("receive")
    assert any("came again after" in text for text in found), found
