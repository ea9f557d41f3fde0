"""Commits of one consumer: one in flight, what gathers meanwhile goes with the next. Called by the owner thread.

Rules
- Offsets are named one by one, each the watermark of its partition; never a bare commit.
- Never a synchronous one: it has no time-out, and a broker that went silent held it for minutes (seen). A revoke sends its
  own at once, beside the one that may be out: it is on the wire before the rejoin.
- A settlement completes when the commit that covers it is answered. One that failed is tried again with a pause, and what it
  covered waits: also one of an older generation, for the partition may still be ours. Whether it is, only rebalances say;
  what was not committed when it went is lost. A missing right ends the receiver (`fatal`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from unimq.delivery import Delivery
from unimq.driver import Done, SettleResult

from .completions import Completions
from .errors import RECEIVER_FATAL, code_of, kafka_error
from .offsets import Lane

RETRY_PAUSE_S: Final = 0.25
_log = logging.getLogger("unimq.kafka")


class Waiting:
    """A settlement, or a flush (`flushes`), that waits for a commit."""

    __slots__ = ("deliveries", "held", "done", "flushes")

    def __init__(
        self,
        deliveries: Sequence[Any],
        held: Sequence[Delivery],
        done: Done[SettleResult],
        *,
        flushes: bool = False,
    ) -> None:
        self.deliveries = deliveries
        self.held = held
        self.done = done
        self.flushes = flushes


class _Flight:
    """One commit on its way: what it says (offset and metadata of each partition), and who waits for it."""

    __slots__ = ("sent", "waiting")

    def __init__(self, sent: dict[tuple[str, int], tuple[Lane, int, str]], waiting: list[Waiting]) -> None:
        self.sent = sent
        self.waiting = waiting


class Committer:
    def __init__(self, completions: Completions, held_now: Callable[[], list[Delivery]]) -> None:
        self.consumer: Any = None
        self.dirty: set[Lane] = set()
        self.fatal: KafkaException | None = None
        self._completions = completions
        self._held_now = held_now
        self._waiting: list[Waiting] = []
        self._flights: deque[_Flight] = deque()
        self._not_before = 0.0

    @property
    def idle(self) -> bool:
        return not (self.dirty or self._flights or self._waiting)

    @property
    def in_flight(self) -> bool:
        return bool(self._flights)

    def wait(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def start(self) -> None:
        """Send the next commit, if there is anything to say and none is out."""
        if not self._flights and (self.dirty or self._waiting) and time.monotonic() >= self._not_before:
            self.send()

    def send(self) -> None:
        """Send it now. What waits and has nothing left to be committed is answered."""
        waiting, self._waiting = self._waiting, []
        sent = {
            (lane.topic, lane.partition): (lane, lane.watermark, lane.text())
            for lane in self.dirty
            if lane.dirty and not lane.gone and lane.watermark is not None
        }
        self.dirty.clear()
        if not sent:
            if self._flights:
                self._flights[-1].waiting += waiting  # what they wait for is in that one
            else:
                self._answer(waiting)
            return
        self._flights.append(_Flight(sent, waiting))
        offsets = [
            TopicPartition(topic, number, mark, text) for (topic, number), (_, mark, text) in sent.items()
        ]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._landed(self._flights.pop(), kafka_error(error), ())

    def answered(self, error: Any, partitions: Sequence[Any]) -> None:
        """librdkafka's `on_commit`, inside a poll: once per commit, in their order."""
        if self._flights:
            self._landed(self._flights.popleft(), error, partitions)

    def _landed(self, flight: _Flight, error: Any, partitions: Sequence[Any]) -> None:
        troubles = {(one.topic, one.partition): one.error for one in partitions}
        failed = False
        for name, (lane, mark, text) in flight.sent.items():
            trouble = troubles.get(name) or error
            if trouble is None:
                lane.committed, lane.written = mark, text
            elif not lane.gone:
                failed = True
                self._refused(lane, trouble)
        if failed:
            self._waiting = flight.waiting + self._waiting
            self._not_before = time.monotonic() + RETRY_PAUSE_S
        else:
            self._answer(flight.waiting)

    def _refused(self, lane: Lane, error: Any) -> None:
        self.dirty.add(lane)
        if error.fatal() or code_of(error) in RECEIVER_FATAL:
            self.fatal = KafkaException(error)
        _log.info("commit of %s[%d] is tried again: %s", lane.topic, lane.partition, error)

    def _answer(self, waiting: Sequence[Waiting]) -> None:
        for one in waiting:
            lost = [d for d in one.deliveries if d.lane.gone and (d.lane.committed or 0) <= d.offset]
            held = self._held_now() if one.flushes else one.held
            self._completions.add(one.done, SettleResult(lost, held))

    def give_up(self) -> None:
        """Nothing is committed any more: what is not confirmed is lost. Any thread, once the owner has stopped or hangs."""
        waiting = [one for flight in list(self._flights) for one in flight.waiting] + self._waiting
        self._flights.clear()
        self._waiting = []
        for one in waiting:
            lost = [d for d in one.deliveries if (d.lane.committed or 0) <= d.offset]
            self._completions.add(one.done, SettleResult(lost, one.held))
