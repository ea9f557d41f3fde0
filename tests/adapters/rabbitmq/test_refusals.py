"""A channel that refuses everything from its first message on is given up; one whose queue is known to be full is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import unimq
from unimq import Queue, broker
from unimq.errors import Rejected, ResourceExhausted

PATIENCE_S = 10.0
QUEUE = Queue("refusing")


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def fill(mq: unimq.Client) -> None:
    mq.declare(QUEUE, max_length=1)
    with pytest.raises(ResourceExhausted, match="full, max-length 1"):
        for _ in range(5):
            mq.send(QUEUE, b"x")


def test_a_new_channel_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimq_rabbitmq.publisher.REFUSED_ALL_S", 0.1)
    with broker.run(amqp=0) as running, unimq.connect(running.urls["amqp"]) as other:
        fill(other)
        with unimq.connect(running.urls["amqp"]) as mq, mq.sender(QUEUE) as sender:
            first = sender._line.intent.link

            def replaced() -> bool:
                with pytest.raises(Rejected):
                    sender.send(b"y")
                return sender._line.intent.link not in (first, None)

            until(replaced)
            other.purge(QUEUE)
            sender.send(b"taken")


def test_one_that_has_taken_a_message_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimq_rabbitmq.publisher.REFUSED_ALL_S", 0.0)
    with broker.run(amqp=0) as running, unimq.connect(running.urls["amqp"]) as other:
        other.declare(QUEUE, max_length=1)
        with unimq.connect(running.urls["amqp"]) as mq, mq.sender(QUEUE) as sender:
            sender.send(b"taken")
            first = sender._line.intent.link
            with pytest.raises(Rejected):
                for _ in range(5):
                    sender.send(b"y")
            with pytest.raises(Rejected):
                sender.send(b"y")
            assert sender._line.intent.link is first


def test_one_whose_queue_is_known_to_be_full_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimq_rabbitmq.publisher.REFUSED_ALL_S", 0.0)
    with broker.run(amqp=0) as running, unimq.connect(running.urls["amqp"]) as other:
        fill(other)
        with unimq.connect(running.urls["amqp"]) as mq, mq.sender(QUEUE) as sender:
            mq.declare(QUEUE, max_length=1)
            first = sender._line.intent.link
            for _ in range(3):
                with pytest.raises(ResourceExhausted):
                    sender.send(b"y")
            assert sender._line.intent.link is first
