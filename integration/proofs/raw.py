"""The broker as it really is: looked at and filled with the raw client, never through unimq."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import pika

BROKER_TIMEOUT_S = 10.0


class Raw:
    """A connection of its own to the broker."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        parameters.blocked_connection_timeout = BROKER_TIMEOUT_S
        parameters.heartbeat = 0
        self._connection = pika.BlockingConnection(parameters)
        self._channel: Any = self._connection.channel()
        self._channel.confirm_delivery()

    def put(self, queue: str, bodies: list[bytes], **properties: Any) -> None:
        """Returns when the broker has confirmed all."""
        for body in bodies:
            self._channel.basic_publish(
                "", queue, body, pika.BasicProperties(delivery_mode=2, **properties), mandatory=True
            )

    def take_all(self, queue: str) -> list[bytes]:
        """Everything that is ready, which is gone afterwards."""
        taken: list[bytes] = []
        while True:
            method, _, body = self._channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append(body)

    def drain(self, queue: str, count: int, quiet_s: float = 1.0) -> list[bytes]:
        """As `take_all`, for many: by a consumer, until `count` came, and whatever comes within `quiet_s` after that."""
        taken: list[bytes] = []
        channel = self._connection.channel()
        channel.basic_qos(prefetch_count=2_000)
        for method, _, body in channel.consume(queue, inactivity_timeout=quiet_s):
            if method is None:
                break
            taken.append(body)
            if len(taken) % 500 == 0 or len(taken) >= count:
                channel.basic_ack(method.delivery_tag, multiple=True)
        channel.cancel()
        channel.close()
        return taken

    def depth(self, queue: str) -> int:
        """What is ready."""
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def exists(self, queue: str) -> bool:
        channel = self._connection.channel()
        try:
            channel.queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        channel.close()
        return True

    def delete(self, *queues: str) -> None:
        for queue in queues:
            self._channel.queue_delete(queue)

    def wait(self, seconds: float) -> None:
        """Let the broker go on for a while."""
        self._connection.process_data_events(time_limit=seconds)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
