"""The conformance suite on a real Artemis and a real Classic, through a line that can fail."""

from __future__ import annotations

import os
import queue as queues
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from integration import sources
from unimq import Queue
from unimq.testing.conformance import Harness, Line, conformance_tests
from unimq.testing.proxy import FaultProxy
from unimq_activemq import names

if os.environ.get("UNIMQ_SHORT"):
    pytest.skip("UNIMQ_SHORT: the named behaviours run in integration/conformance", allow_module_level=True)

KNOWN = {97: "over STOMP nobody can ask what exists; both brokers create at first use"}


class Foreign:
    """stomp.py alone, as its documentation has it."""

    def __init__(self, url: str, flavour: str) -> None:
        self._url, self._flavour = urlsplit(url), flavour

    def _connected(self) -> Any:
        import stomp

        made = stomp.Connection12(
            [(self._url.hostname, self._url.port)], auto_decode=False, try_loopback_connect=False
        )
        made.connect(self._url.username, self._url.password, wait=True)
        return made

    def _place(self, queue: Queue) -> names.Native:
        return names.native(names.ref_of(queue), self._flavour)

    def send(self, queue: Queue, body: bytes, headers: Mapping[str, str]) -> None:
        place, connection = self._place(queue), self._connected()
        connection.send(
            place.destination, body, headers={**headers, "destination-type": "ANYCAST", "persistent": "true"}
        )
        connection.disconnect(receipt=uuid4().hex)

    def receive(self, queue: Queue) -> tuple[bytes, Mapping[str, Any]]:
        import stomp

        got: queues.Queue[Any] = queues.Queue()

        class Listener(stomp.ConnectionListener):  # type: ignore[misc]
            def on_message(self, frame: Any) -> None:
                got.put(frame)

        place, connection = self._place(queue), self._connected()
        connection.set_listener("test", Listener())
        connection.subscribe(place.destination, "1", ack="auto", headers={"subscription-type": "ANYCAST"})
        frame = got.get(timeout=15)
        connection.disconnect(receipt=uuid4().hex)
        return frame.body, frame.headers


@pytest.fixture(scope="module", params=["artemis", "classic"])
def harness(request: pytest.FixtureRequest, real_broker: Callable[[str], sources.Broker]) -> Harness:
    flavour = request.param
    url = real_broker(flavour).url
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    target = parts.hostname, parts.port
    foreign = Foreign(url, flavour)

    def proxy() -> AbstractContextManager[Line]:
        return FaultProxy(*target)  # type: ignore[return-value]

    return Harness(
        url=url,
        proxy=proxy,
        foreign_send=foreign.send,
        foreign_receive=foreign.receive,
        bad_login_url=f"stomp://{parts.username}:wrong-marked-word@{parts.hostname}:{parts.port}",
        known=KNOWN,
        mismatch=None,
        cycles=20,
    )


test_conformance = conformance_tests()
