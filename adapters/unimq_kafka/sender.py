"""A link to one topic. Many share one producer (`pump.py`).

Rules
- `submit` only puts into librdkafka's queue; a full queue ends the accepted prefix, and `Room` follows.
- What a record cannot carry fails its own item, before anything is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException

from unimq.driver import Batch, BatchResult, Copy, Done, Failed
from unimq.errors import Closed, SendTimeout, UnimqError

from .completions import Completions
from .errors import ADAPTER_NAME
from .fields import copy_headers, headers_of, timestamp_ms
from .pump import TURN_MAX_S, Pump

# What `produce` and the making of a record raise for one message of the caller's; all else is a bug and comes out.
REFUSED: Final = (KafkaException, UnimqError, ValueError, TypeError)


class KafkaSenderLink:
    def __init__(
        self, topic: str, pump: Pump, completions: Completions, drive: Callable[[float], None]
    ) -> None:
        self.topic = topic
        self._pump = pump
        self._completions = completions
        self._drive = drive
        self._over: BaseException | None = None

    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        count = len(batch)
        if self._over is not None:
            return self._fail_all(count, self._over, done)
        if time.monotonic() > batch.deadline:
            return self._fail_all(
                count, SendTimeout("the time was up before it was begun", adapter=ADAPTER_NAME), done
            )
        pump, topic = self._pump, self.topic
        flight = pump.flight(self, done, count)
        produce: Any = pump.producer.produce
        slots, messages, bodies, ids = flight.slots, batch.messages, batch.bodies, batch.ids
        content_types = batch.content_types
        accepted = count
        for index in range(count):
            message = messages[index]
            try:
                headers = headers_of(
                    message,
                    message.content_type if content_types is None else batch.content_type(index),
                    message.message_id if ids is None else ids[index],
                )
                produce(
                    topic,
                    bodies[index],
                    message.key,
                    on_delivery=slots[index],
                    timestamp=0 if message.timestamp is None else timestamp_ms(message),
                    headers=headers,
                )
            except BufferError:
                accepted = index
                break
            except REFUSED as error:
                flight.refuse(index, error)
        if accepted < count:
            pump.full.add(self)
            if accepted == 0:
                pump.drop(flight)
                return 0
        flight.accepted(accepted)
        pump.stir()
        self._completions.run()
        return accepted

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        if self._over is not None:
            self._fail_all(len(copies), self._over, done)
            return
        pump = self._pump
        flight = pump.flight(self, done, len(copies))
        for index, copy in enumerate(copies):
            try:
                raw = copy.delivery.raw
                record = (self.topic, raw.value(), raw.key(), copy_headers(copy))
                if pump.backlog:
                    pump.backlog.append((flight, index, record))
                    continue
                try:
                    pump.produce(flight, index, record)
                except BufferError:
                    pump.backlog.append((flight, index, record))
            except REFUSED as error:
                flight.refuse(index, error)
        flight.accepted(len(copies))
        pump.stir()
        self._completions.run()

    def _fail_all(self, count: int, error: BaseException, done: Done[BatchResult]) -> int:
        failed = Failed(error, handed_over=False)
        self._completions.add(done, BatchResult(dict.fromkeys(range(count), failed)))
        self._completions.run()
        return count

    def close(self, timeout_s: float) -> None:
        if self._over is None:
            self._over = Closed(f"the sender to {self.topic} is closed", adapter=ADAPTER_NAME)
        deadline = time.monotonic() + timeout_s
        while self._mine() and (left_s := deadline - time.monotonic()) > 0:
            self._drive(min(left_s, TURN_MAX_S))
        for flight in self._mine():
            self._pump.give_up(flight, "closed before it was confirmed; it may have been sent")
        self._pump.full.discard(self)
        self._completions.run()

    @property
    def closed(self) -> bool:
        return self._over is not None

    def end(self) -> None:
        """The connection is closing: take nothing more."""
        if self._over is None:
            self._over = Closed("the connection is closed", adapter=ADAPTER_NAME)

    def _mine(self) -> list[Any]:
        return [flight for flight in list(self._pump.flights) if flight.link is self]

    def __repr__(self) -> str:
        return f"<KafkaSenderLink {self.topic}>"
