"""A line that breaks while a link opens: the supervisor closes that connection, and who opens goes on with the next one."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import unimq
from unimq import Message, Queue
from unimq.errors import Closed
from unimq.registry import find
from unimq_memory.connection import MemoryConnection

A = Queue("a")
LIMIT_S = 5.0


@pytest.mark.parametrize("call", ["receiver", "declare"])
def test_what_opens_meanwhile_opens_on_the_next_connection(
    unimq_url: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with unimq.connect(unimq_url) as mq:
        mq.declare(A)
        mq.send(A, Message(b"x"))
        before = getattr(MemoryConnection, call)
        broken: list[object] = []

        def breaks_once(self: Any, *arguments: Any, **named: Any) -> Any:
            if broken:
                return before(self, *arguments, **named)
            broken.append(self)
            find("memory").broker(unimq_url).drop_connections()
            deadline = time.monotonic() + LIMIT_S
            while mq._supervisor.connection in (self, None):
                assert time.monotonic() < deadline, "it does not reconnect"
                threading.Event().wait(0.01)
            raise Closed("the connection is closed")

        monkeypatch.setattr(MemoryConnection, call, breaks_once)
        with mq.receiver(A) as receiver:
            (delivery,) = receiver.receive(1, LIMIT_S)
            delivery.ack()
        assert broken


def test_a_client_that_is_closed_stays_closed(unimq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mq = unimq.connect(unimq_url)
    mq.declare(A)

    def closes(self: Any, *arguments: Any, **named: Any) -> Any:
        mq.close()
        raise Closed("the connection is closed")

    monkeypatch.setattr(MemoryConnection, "receiver", closes)
    with pytest.raises(Closed):
        mq.receiver(A).receive(1, LIMIT_S)
