"""pika.BlockingConnection with publisher confirms: one message, one answer; and from nothing to the first answer.

Rules
- `basic_publish` returns when the broker has confirmed, and raises for a nack or a returned message.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Any, Final

import pika

from bench.session import Stopwatch
from bench.stats import Run

PERSISTENT: Final = 2
_PREFIX: Final = secrets.token_hex(8)
_numbers = itertools.count(1)


def _properties() -> Any:
    return pika.BasicProperties(delivery_mode=PERSISTENT, message_id=f"{_PREFIX}-{next(_numbers):x}")


def publish_each(url: str, queue: str, body: bytes, count: int) -> Run:
    """`count` messages, each confirmed before the next."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        watch = Stopwatch()
        for _ in range(count):
            channel.basic_publish("", queue, body, _properties(), mandatory=True)
        return watch.stop(count)


def connect_and_publish(url: str, queue: str, body: bytes, count: int) -> Run:
    """`count` times from nothing to the first confirmed message; saying goodbye is not measured."""
    opened: list[Any] = []
    try:
        watch = Stopwatch()
        for _ in range(count):
            connection = pika.BlockingConnection(pika.URLParameters(url))
            opened.append(connection)
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", queue, body, _properties(), mandatory=True)
        return watch.stop(count)
    finally:
        for connection in opened:
            connection.close()
