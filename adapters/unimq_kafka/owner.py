"""The one thread that calls a Consumer: polls, commits, pauses, drains. All of this file runs on it, but `start stop join look`.

Rules
- It polls in slices, also when paused or idle, so the group never waits for a user's handler; settlements are commands to it.
- A full prefetch first waits a moment without polling (room usually comes at once, and pausing would throw away what
  librdkafka has fetched already), then pauses all partitions and goes on polling.
- A retry place's record that is not due is parked and its partition paused until it is.
- Revoked: what was not handed out is dropped, the rest is told to the core, which settles or forgets each; then the commit,
  at the latest `REVOKE_DRAIN_S` later. Lost: an event, no commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from unimq.driver import (
    Cancelled,
    FlowPaused,
    LockLostEvent,
    Lost,
    Place,
    Revoked,
    Sink,
)
from unimq.errors import NotFound

from .books import GAP_CAP, Books
from .errors import ADAPTER_NAME, RECEIVER_FATAL, code_of
from .fields import KafkaDelivery, due_at
from .offsets import Lane
from .reading import Reading
from .receiver import KafkaReceiverLink

POLL_IDLE_S: Final = 0.05
POLL_BUSY_S: Final = 0.01  # while deliveries are out, so that their settlements do not wait long
CHOKE_AFTER_S: Final = 0.05
CONSUME_MAX: Final = 500
REVOKE_DRAIN_S: Final = 5.0
REFRESH_S: Final = 30.0
REFRESH_AGAIN_S: Final = 1.0
MISSING_MAX: Final = 3  # looks at a topic that is not there before it is believed
_log = logging.getLogger("unimq.kafka")


class Owner:
    def __init__(self, reading: Reading, link: KafkaReceiverLink, sink: Sink) -> None:
        self.reading = reading
        self.over = False
        self.filtered = 0
        self._link = link
        self._sink = sink
        self._consumer: Any = None
        self._places: dict[str, Place | None] = {reading.topic: reading.place}
        self._places |= {place.ref.topic: place for place in reading.also_read}
        self._parking: set[Lane] = set()
        self._books = Books(link, link.completions, grouped=reading.group is not None)
        self._choked = False
        self._full_since = 0.0
        self._refresh_at = time.monotonic() + REFRESH_S
        self._missing = 0
        self._looking = threading.Event()
        self._stopping = False
        self._stop_by = 0.0
        self._thread = threading.Thread(target=self._run, name=f"unimq-kafka-{reading.topic}", daemon=True)

    # ------------------------------------------------------------------------------------------------ any thread
    def use(self, consumer: Any) -> None:
        """Before `start`: the consumer that is ours from now on."""
        self._consumer = self._books.commits.consumer = consumer

    def on_commit(self, error: Any, partitions: Sequence[Any]) -> None:
        self._books.commits.answered(error, partitions)
        self._link.completions.run()

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        if not self._looking.is_set():
            self._looking.set()

    def refresh_soon(self) -> None:
        """A place was made: read it as well."""
        self._refresh_at = 0.0

    def stop(self, timeout_s: float) -> None:
        if not self._stopping:
            self._stop_by = time.monotonic() + timeout_s
            self._stopping = True
        self._looking.set()

    def join(self, timeout_s: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # ------------------------------------------------------------------------------------------------ the thread
    def _run(self) -> None:
        try:
            self._begin()
            while not self._stopping:
                self._turn()
        except (
            Exception
        ) as error:  # the thread's end: whatever it was, receive raises it and the core is told
            self._link.die(error)
            event = Cancelled if isinstance(error, NotFound) else Lost
            self._sink(event(self._link, error))
        finally:
            self._finish()

    def _begin(self) -> None:
        reading = self.reading
        if reading.group is None:
            assigned = []
            for partition, offset in reading.begin.items():
                self._books.lanes[(reading.topic, partition)] = Lane(reading.topic, partition, reading.place)
                assigned.append(TopicPartition(reading.topic, partition, offset))
            self._consumer.assign(assigned)
        else:
            self._subscribe()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            sorted(self._places), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _turn(self) -> None:
        self._take_commands()
        self._books.commits.start()
        self._link.completions.run()
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh(now)
        if self._parking:
            self._unpark()
        room = self.reading.prefetch - self._books.unsettled
        if room <= 0 or self._books.unsettled_bytes >= self.reading.prefetch_bytes:
            if not self._choked:
                self._wait_for_room(now)
                return
            room = 1
        elif self._choked:
            self._choked = False
            self._resume("full", self._books.lanes.values())
        self._full_since = 0.0
        count = min(room, CONSUME_MAX)
        records = self._consumer.consume(count, 0)
        if not records:
            first = self._consumer.poll(self._slice_s())
            if first is not None:
                records = [first]
        if records:
            self._take_in(records)

    def _slice_s(self) -> float:
        slice_s = POLL_BUSY_S if self._books.unsettled or not self._books.commits.idle else POLL_IDLE_S
        if self._parking:
            left_s = min(lane.due for lane in self._parking) - time.time()
            if left_s > 0:  # else it waits for room, not for its time
                slice_s = min(slice_s, left_s)
        return slice_s

    def _wait_for_room(self, now: float) -> None:
        if not self._full_since:
            self._full_since = now
        elif now - self._full_since > CHOKE_AFTER_S:
            self._choked = True
            self._pause("full", self._books.lanes.values())
            return
        self._looking.wait(CHOKE_AFTER_S)
        self._looking.clear()

    # -------------------------------------------------------------------------------------------------- records
    def _take_in(self, records: Iterable[Any]) -> None:
        deliveries: list[KafkaDelivery] = []
        lanes = self._books.lanes
        for record in records:
            error = record.error()
            if error is not None:
                self._trouble(error)
                continue
            lane = lanes.get((record.topic(), record.partition()))
            if lane is None:
                continue  # of a partition that is not ours any more
            if lane.place is None or lane.place.delay_s is None or self._is_due(lane, record):
                self._deliver(lane, record, deliveries)
        self._offer(deliveries)

    def _deliver(self, lane: Lane, record: Any, deliveries: list[KafkaDelivery]) -> None:
        delivery = self._books.delivery(lane, record)
        wanted = self.reading.wanted
        if wanted is not None and not wanted.wants(delivery.subject or "", delivery.headers):
            self.filtered += 1
            self._books.skip(delivery)
            return
        deliveries.append(delivery)
        if self._books.enter(delivery) and "gap" not in lane.pauses:
            self._pause("gap", [lane])
            self._sink(
                FlowPaused(self._link, f"{GAP_CAP} messages of {lane} are behind one that is not settled")
            )

    def _offer(self, deliveries: list[KafkaDelivery]) -> None:
        if deliveries:
            self._link.offer(deliveries)

    def _is_due(self, lane: Lane, record: Any) -> bool:
        assert lane.place is not None
        if not lane.parked:
            due = due_at(record, lane.place.delay_s or 0.0)
            if due <= time.time():
                return True
            lane.due = due
            self._parking.add(lane)
            self._pause("not due", [lane])
        lane.parked.append(record)
        return False

    def _unpark(self) -> None:
        now = time.time()
        deliveries: list[KafkaDelivery] = []
        for lane in list(self._parking):
            assert lane.place is not None
            while lane.parked and lane.due <= now and self._books.unsettled < self.reading.prefetch:
                self._deliver(lane, lane.parked.popleft(), deliveries)
                if lane.parked:
                    lane.due = due_at(lane.parked[0], lane.place.delay_s or 0.0)
            if not lane.parked:
                self._parking.discard(lane)
                self._resume("not due", [lane])
        self._offer(deliveries)

    def _trouble(self, error: Any) -> None:
        name = code_of(error)
        if error.fatal() or name in RECEIVER_FATAL:
            raise KafkaException(error)
        if name in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
            self._refresh_at = min(self._refresh_at, time.monotonic() + REFRESH_AGAIN_S)
        _log.info("%s: %s", self._link.what, error)  # librdkafka heals it by itself

    # ------------------------------------------------------------------------------------------------- pausing
    def _pause(self, why: str, lanes: Iterable[Lane]) -> None:
        fresh = []
        for lane in lanes:
            if not lane.pauses:
                fresh.append(TopicPartition(lane.topic, lane.partition))
            lane.pauses.add(why)
        if fresh:
            self._consumer.pause(fresh)

    def _resume(self, why: str, lanes: Iterable[Lane]) -> None:
        freed = []
        for lane in lanes:
            if why in lane.pauses:
                lane.pauses.discard(why)
                if not lane.pauses and not lane.gone:
                    freed.append(TopicPartition(lane.topic, lane.partition))
        if freed:
            self._consumer.resume(freed)

    # ------------------------------------------------------------------------------------------------ settling
    def _take_commands(self) -> None:
        commands, books = self._link.commands, self._books
        while commands:
            deliveries, outcome, done = commands.popleft()
            if outcome is None:
                books.flush(done)
            else:
                self._offer(books.settle(deliveries, outcome, done))
        if books.gap_closed:
            self._resume("gap", books.gap_closed)
            books.gap_closed.clear()

    # ---------------------------------------------------------------------------------------------- rebalances
    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        fresh = []
        for partition in partitions:
            lane = Lane(partition.topic, partition.partition, self._places.get(partition.topic))
            self._books.lanes[(partition.topic, partition.partition)] = lane
            fresh.append(lane)
        self._begin_at_latest(consumer, partitions)
        if self.reading.incremental:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        if self._choked:
            self._pause("full", fresh)

    def _begin_at_latest(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Where the group has no commit at all, it begins where the end was when the receiver opened."""
        latest = self.reading.latest
        mine = [p for p in partitions if p.topic == self.reading.topic and p.partition in latest]
        if not mine:
            return
        asked = [TopicPartition(self.reading.topic, partition) for partition in latest]
        if any(found.offset >= 0 for found in consumer.committed(asked, timeout=REVOKE_DRAIN_S)):
            return
        for partition in mine:
            partition.offset = latest[partition.partition]
        consumer.commit(offsets=mine, asynchronous=False)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        lanes = self._leaving(partitions)
        self._books.drop(self._link.withdraw(lanes))
        if not self._stopping:
            self._drain(lanes)
            self._books.commits.now(lane for lane in lanes if lane.dirty)
        self._end(lanes)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        lanes = self._leaving(partitions)
        self._books.drop(self._link.withdraw(lanes))
        self._end(lanes)

    def _leaving(self, partitions: Iterable[TopicPartition]) -> set[Lane]:
        lanes = {self._books.lanes.get((partition.topic, partition.partition)) for partition in partitions}
        return {lane for lane in lanes if lane is not None}

    def _drain(self, lanes: set[Lane]) -> None:
        in_hand = [delivery for lane in lanes for delivery in lane.open.values()]
        if not in_hand:
            return
        deadline = time.monotonic() + REVOKE_DRAIN_S
        self._sink(Revoked(self._link, in_hand, deadline))
        while not self._stopping:
            self._take_commands()
            self._link.completions.run()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not any(lane.open for lane in lanes):
                break
            self._looking.wait(min(left_s, POLL_IDLE_S))
            self._looking.clear()

    def _end(self, lanes: set[Lane]) -> None:
        """Nothing of these is ours any more; who still holds some of it is told."""
        self._parking -= lanes
        in_hand = self._books.close(lanes)
        if in_hand and not self._stopping:
            self._sink(LockLostEvent(self._link, in_hand))

    # ---------------------------------------------------------------------------------------------- discovering
    def _refresh(self, now: float) -> None:
        """Look for retry places that came or went, and whether the topic is still there."""
        self._refresh_at = now + REFRESH_S
        if self.reading.places is None:
            return
        try:
            there, found = self.reading.places()
        except KafkaException as error:
            _log.info("%s: its retry places could not be looked for: %s", self._link.what, error)
            self._refresh_at = now + REFRESH_AGAIN_S
            return
        self._missing = 0 if there else self._missing + 1
        if self._missing >= MISSING_MAX:
            raise NotFound(
                f"the topic {self.reading.topic} is gone: mq.declare(...) makes it", adapter=ADAPTER_NAME
            )
        if not there:
            self._refresh_at = now + REFRESH_AGAIN_S
            return
        if self.reading.group is None:
            return
        places: dict[str, Place | None] = {self.reading.topic: self.reading.place}
        places |= {place.ref.topic: place for place in found}
        if places.keys() != self._places.keys():
            self._places = places
            self._subscribe()

    # --------------------------------------------------------------------------------------------------- ending
    def _finish(self) -> None:
        """Commit what is settled, answer what is not, leave the group."""
        try:
            self._take_commands()
            while not self._books.commits.idle and time.monotonic() < self._stop_by:
                self._pause("closing", self._books.lanes.values())
                self._books.commits.start()
                self._consumer.poll(
                    POLL_BUSY_S
                )  # what it may still bring is not handed out, so it is not committed
                self._link.completions.run()
                self._take_commands()
        except Exception as error:  # as in _run: it must not keep the consumer from being closed
            _log.warning("%s: the last commit failed; messages come again: %r", self._link.what, error)
        self.over = True
        self._books.commits.give_up()
        self._link.refuse_commands()
        self._stopping = True
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            _log.info("%s: closing: %s", self._link.what, error)
