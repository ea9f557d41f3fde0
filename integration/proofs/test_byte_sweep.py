"""Proof 1: the connection to a real broker cut at every place of a send exchange and of a receive-and-settle exchange.

At least `PLACES` places each, alternating between the sync and the async client, one in `STUBBORN_EVERY` of the send exchange
on every new connection again. What must hold is in `sweep.py`. `UNIMQ_SHORT=1`: `PLACES_SHORT` places.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import unimq
from integration.proofs import sweep
from integration.proofs.kit import SHORT, WORLDS, gone
from integration.proofs.raw import Raw
from integration.sources import Broker
from unimq import Queue
from unimq.testing.proxy import FaultProxy

PLACES = 220
PLACES_SHORT = 20
STUBBORN_EVERY = 5
UNREACHED = 2  # an exchange may be some bytes shorter than the measured one: nothing is cut there
FINDINGS_SHOWN = 12
LIMIT_S = 300
SETTLE_S = 5.0
Figure = Callable[[str], None]


@pytest.fixture
def raw(rabbitmq: Broker) -> Iterator[Raw]:
    with Raw(rabbitmq.url) as connection:
        yield connection


@pytest.fixture
def queue(rabbitmq: Broker, raw: Raw, unique: Callable[[str], str]) -> Iterator[Queue]:
    queue = Queue(unique("sweep"))
    with unimq.connect(rabbitmq.url) as mq:
        mq.declare(queue)
    yield queue
    raw.delete(queue.name, f"{queue.name}.dlq")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each cut is logged in many lines by pika, and that is not what is looked at here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("kind", ["send", "receive"])
def test_a_connection_cut_at_any_byte_loses_nothing(
    kind: str, rabbitmq: Broker, proxied: FaultProxy, raw: Raw, queue: Queue, figure: Figure
) -> None:
    at: Any = sweep.send_at if kind == "send" else sweep.receive_at
    for number in range(2):  # the first makes what is made once
        before = proxied.connections
        clean = at(proxied, rabbitmq.url, raw, queue, None, WORLDS[number], f"clean{number}")
        assert clean.findings == []
    sizes = sweep.measured(proxied, before)
    places = sweep.spread(sizes, PLACES_SHORT if SHORT else PLACES)
    if kind == "send":
        places = [replace(p, stubborn=i % STUBBORN_EVERY == 2) for i, p in enumerate(places)]
    seen = [
        at(proxied, rabbitmq.url, raw, queue, place, WORLDS[number % 2], f"at{number}")
        for number, place in enumerate(places)
    ]
    findings = [text for each in seen for text in each.findings]
    if late := raw.take_all(queue.name):
        findings.append(f"{len(late)} messages came late: {late[0][:40]!r}")
    figure(_figures(kind, sizes, seen))
    assert not findings, _text(findings)
    fired = sum(each.fired for each in seen)
    assert len(places) - fired <= max(UNREACHED, len(places) // 20), (
        f"only {fired} of {len(places)} cuts were reached"
    )
    assert SHORT or fired >= 200
    assert gone(SETTLE_S) == []


def _figures(kind: str, sizes: list[tuple[int, str, int]], seen: list[sweep.Seen]) -> str:
    outcomes = Counter(
        "confirmed" if error is None else type(error).__name__
        for each in seen
        for error in each.outcomes.values()
    )
    slowest = max(seen, key=lambda each: each.took_s)
    parts = [
        f"byte sweep, {kind}: {sum(size for _, _, size in sizes)} bytes",
        f"{sum(each.fired for each in seen)} of {len(seen)} cuts reached",
        f"{sum(each.connect_error is not None for each in seen)} in connect",
        *(f"{count} {name}" for name, count in sorted(outcomes.items())),
        f"{sum(each.lost for each in seen)} settlements reported lost",
        f"slowest place {slowest.took_s:.2f} s ({slowest.place})",
        f"{sum(bool(each.findings) for each in seen)} places with findings",
    ]
    return "; ".join(part for part in parts if not part.startswith("0 settle"))


def _text(findings: list[str]) -> str:
    more = len(findings) - FINDINGS_SHOWN
    shown = "\n".join(f"- {text}" for text in findings[:FINDINGS_SHOWN])
    return f"{len(findings)} findings:\n{shown}" + (f"\n… and {more} more" if more > 0 else "")
