"""The conformance suite as a user without configure rights, `topology="assume"`, on a real RabbitMQ.

Rules
- Places are made by a steward, another user, as an administrator would have made them before: every declaration that the
  client under test would have asked for goes to him. The client under test itself declares nothing; the broker would say
  ACCESS_REFUSED and the case would fail.
- Left out are the behaviours that are about declaring, and those whose broker object is made by using it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

import unimq
from integration.sources import Broker
from unimq.driver import Connection
from unimq.testing.conformance import Harness, cases, conformance_tests, through_proxy
from unimq.topology import TopologyReport

LEFT_OUT = {
    13: "the place is missing on purpose, and nobody made it",
    20: "an unnamed subscription is an exclusive queue, made by opening it",
    41: "it deletes a place, which is configuring",
    88: "it declares through the closed client, and declaring is the steward's here",
    93: "run with the user who may configure",
    95: "declaring",
    96: "declaring",
    97: "declaring",
}


@pytest.fixture(scope="module")
def harness(rabbitmq: Broker) -> Iterator[Harness]:
    if rabbitmq.native is None:
        pytest.skip("a user without configure rights is made through a native broker's own control")
    url = rabbitmq.native.add_user("worker", "worker", configure="", write=".*", read=".*")
    with unimq.connect(rabbitmq.url) as steward, pytest.MonkeyPatch.context() as patch:
        declare = unimq.Client.declare
        makes = steward._supervisor.wait_up(5)

        def act(connection: Connection, topology: Any, mode: str) -> TopologyReport:
            assert mode == "assume"
            return makes.declare(topology, verify_only=False) if topology else TopologyReport()

        def place_maker(address: Any, place: Any, mode: str) -> Any:
            return lambda connection: makes.declare(
                [unimq.topology.Declaration(address, places=(place,))], verify_only=False
            )

        async def declare_async(client: Any, place: Any, **options: Any) -> TopologyReport:
            return await asyncio.to_thread(declare, steward, place, **options)

        patch.setattr("unimq._intake.act", act)
        for module in ("unimq._intake", "unimq._async.client", "unimq._sync.client"):
            patch.setattr(f"{module}.place_maker", place_maker)
        patch.setattr(unimq.AsyncClient, "declare", declare_async)
        patch.setattr(
            unimq.Client, "declare", lambda client, place, **options: declare(steward, place, **options)
        )
        yield Harness(
            url=url, options={"topology": "assume"}, proxy=through_proxy(url, 1), cycles=20, restart=None
        )


test_conformance = conformance_tests(
    {case.behaviour.number for case in cases()} - LEFT_OUT.keys(),
    worlds=["sync"] if os.environ.get("UNIMQ_SHORT") else ["async", "sync"],
)
