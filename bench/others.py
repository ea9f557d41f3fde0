"""Two neighbours on the same broker, where they are installed (extra `bench`), each in its best documented configuration.

Rules
- FastStream: publisher confirms on (its default), persistent, mandatory (its default), a publisher object made once,
  `WINDOW` publishes gathered. Its subscriber has the prefetch of ours, and takes the body as it is (`apply_types=False`).
- Kombu (through py-amqp): `confirm_publish`, one channel, one answer per message, since it has no other confirmed way.
- Without them their rows are left out, and the report says so.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import secrets
from typing import Any, Final

from bench.session import BenchFailed, Stopwatch
from bench.stats import Run

PERSISTENT: Final = 2
CONSUME_LIMIT_S: Final = 120.0
_PREFIX: Final = secrets.token_hex(8)
_numbers = itertools.count(1)


def installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _next_id() -> str:
    return f"{_PREFIX}-{next(_numbers):x}"


def faststream_gathered(url: str, queue: str, body: bytes, count: int, window: int) -> Run:
    rabbit: Any = importlib.import_module("faststream.rabbit")

    async def main() -> Run:
        async with rabbit.RabbitBroker(url, logger=None, log_level=logging.CRITICAL) as broker:
            publisher = broker.publisher(rabbit.RabbitQueue(queue, durable=True, declare=False), persist=True)
            await broker.start()
            watch = Stopwatch()
            for start in range(0, count, window):
                size = min(window, count - start)
                answers = await asyncio.gather(
                    *(publisher.publish(body, message_id=_next_id()) for _ in range(size))
                )
                if any(type(answer).__name__ != "Ack" for answer in answers):
                    raise BenchFailed("a message was not confirmed")
            return watch.stop(count)

    return asyncio.run(main())


def faststream_consume(url: str, queue: str, lead: int, count: int, *, prefetch: int, body_bytes: int) -> Run:
    """A subscriber that counts bytes and does nothing else; the clock stops at its last message, as the worker's does."""
    rabbit: Any = importlib.import_module("faststream.rabbit")
    watch = Stopwatch()
    seen = size = 0

    async def main() -> Run:
        runs: list[Run] = []
        over = asyncio.Event()
        channel = rabbit.Channel(prefetch_count=prefetch)
        broker = rabbit.RabbitBroker(
            url, default_channel=channel, apply_types=False, logger=None, log_level=logging.CRITICAL
        )

        @broker.subscriber(rabbit.RabbitQueue(queue, durable=True, declare=False))  # type: ignore[untyped-decorator]
        async def count_one(body: bytes) -> None:
            nonlocal seen, size
            seen += 1
            size += len(body)
            if seen == lead:
                watch.start()
            elif seen == lead + count:
                runs.append(watch.stop(count))
                over.set()

        async with broker:
            await broker.start()
            await asyncio.wait_for(over.wait(), CONSUME_LIMIT_S)
        return runs[0]

    run = asyncio.run(main())
    if size != (lead + count) * body_bytes:
        raise BenchFailed(f"{size} bytes came, not {(lead + count) * body_bytes}")
    return run


def kombu_each(url: str, queue: str, body: bytes, count: int) -> Run:
    kombu: Any = importlib.import_module("kombu")
    # kombu reads one slash as a vhost of that name's rest, and two as the vhost "/"
    url = url.replace("amqp://", "pyamqp://") + ("/" if url.endswith("/") else "")
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        producer = kombu.Producer(connection.channel(), serializer=None, auto_declare=False)
        watch = Stopwatch()
        for _ in range(count):
            producer.publish(
                body,
                routing_key=queue,
                exchange="",
                delivery_mode=PERSISTENT,
                mandatory=True,
                content_type="application/octet-stream",
                content_encoding="binary",
                message_id=_next_id(),
                retry=False,
            )
        return watch.stop(count)
