"""Commits of one consumer: one in flight, what gathers meanwhile goes with the next. Called by the owner thread only.

Rules
- Offsets are named one by one, each the watermark of its partition; never a bare commit.
- A settlement completes when the commit that covers it is answered. One that failed for a passing reason is tried again,
  with a pause; what it covered waits. One that failed because the partition is somebody else's is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from unimq.delivery import Delivery
from unimq.driver import Done, SettleResult

from .completions import Completions
from .errors import COMMIT_LOST, code_of, kafka_error
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


class Committer:
    def __init__(self, completions: Completions, held_now: Callable[[], list[Delivery]]) -> None:
        self.consumer: Any = None
        self._completions = completions
        self._held_now = held_now
        self._waiting: list[Waiting] = []
        self._flying: list[Waiting] | None = None
        self._sent: dict[tuple[str, int], tuple[Lane, int]] = {}
        self._not_before = 0.0
        self.dirty: set[Lane] = set()

    @property
    def idle(self) -> bool:
        return not self.dirty and self._flying is None and not self._waiting

    @property
    def in_flight(self) -> bool:
        return self._flying is not None

    def wait(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def start(self) -> None:
        """Send the next commit, if there is anything to say and none is out."""
        if self._flying is not None or time.monotonic() < self._not_before:
            return
        offsets = self._offsets(self.dirty)
        if not offsets:
            self.dirty.clear()
            self._answer(self._waiting)
            self._waiting = []
            return
        self.dirty.clear()
        self._flying, self._waiting = self._waiting, []
        try:
            self.consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._failed(kafka_error(error))

    def _offsets(self, lanes: Iterable[Lane]) -> list[TopicPartition]:
        self._sent = {
            (lane.topic, lane.partition): (lane, lane.watermark)
            for lane in lanes
            if lane.dirty and not lane.gone and lane.watermark is not None
        }
        return [
            TopicPartition(topic, partition, mark) for (topic, partition), (_, mark) in self._sent.items()
        ]

    def answered(self, error: Any, partitions: Sequence[Any]) -> None:
        """librdkafka's `on_commit`, inside a poll."""
        if self._flying is None or any(
            self._sent_mark(partition) != partition.offset for partition in partitions
        ):
            return  # the answer to one that a revoke has overtaken
        if error is not None and not any(partition.error is not None for partition in partitions):
            self._failed(error)
            return
        self._take_in(partitions)

    def _sent_mark(self, partition: Any) -> int | None:
        sent = self._sent.get((partition.topic, partition.partition))
        return None if sent is None else sent[1]

    def _take_in(self, partitions: Sequence[Any]) -> None:
        passing = False
        for partition in partitions:
            lane, mark = self._sent[(partition.topic, partition.partition)]
            if partition.error is None:
                lane.committed = mark
            else:
                passing |= self._refused(lane, partition.error)
        self._finish(passing)

    def _failed(self, error: Any) -> None:
        passing = False
        for lane, _ in self._sent.values():
            passing |= self._refused(lane, error)
        self._finish(passing)

    def _refused(self, lane: Lane, error: Any) -> bool:
        """True where the same commit may succeed later."""
        if code_of(error) in COMMIT_LOST:
            lane.gone = True
            return False
        _log.info("commit of %s[%d] is tried again: %s", lane.topic, lane.partition, error)
        self.dirty.add(lane)
        return True

    def _finish(self, passing: bool) -> None:
        flying, self._flying = self._flying or [], None
        if passing:
            self._waiting = flying + self._waiting
            self._not_before = time.monotonic() + RETRY_PAUSE_S
        else:
            self._answer(flying)

    def _answer(self, waiting: Sequence[Waiting]) -> None:
        for one in waiting:
            lost = [d for d in one.deliveries if d.lane.gone and (d.lane.committed or 0) <= d.offset]
            held = self._held_now() if one.flushes else one.held
            self._completions.add(one.done, SettleResult(lost, held))

    def now(self, lanes: Iterable[Lane]) -> None:
        """Commit these and wait: in a revoke, where nothing may be left for later. Answers all that waits."""
        flying, self._flying = self._flying or [], None  # its own answer, when it comes, says nothing new
        offsets = self._offsets(lanes)
        if offsets:
            try:
                partitions = self.consumer.commit(offsets=offsets, asynchronous=False) or []
            except KafkaException as error:
                _log.warning("the commit at the end of an assignment failed; messages come again: %s", error)
                partitions = []
            for partition in partitions:
                lane, mark = self._sent[(partition.topic, partition.partition)]
                if partition.error is None:
                    lane.committed = mark
        self._waiting = flying + self._waiting

    def give_up(self) -> None:
        """Nothing is committed any more: what is not confirmed is lost."""
        waiting = (self._flying or []) + self._waiting
        self._flying, self._waiting = None, []
        for one in waiting:
            lost = [d for d in one.deliveries if (d.lane.committed or 0) <= d.offset]
            self._completions.add(one.done, SettleResult(lost, one.held))
