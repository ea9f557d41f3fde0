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

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from unimq.broker.engine.matcher import Filter
from unimq.delivery import Delivery
from unimq.driver import (
    Ack,
    Cancelled,
    Done,
    FlowPaused,
    Forget,
    LockLostEvent,
    Lost,
    Outcome,
    Place,
    Release,
    Revoked,
    SettleResult,
    Sink,
)
from unimq.errors import NotFound

from .commits import Committer, Waiting
from .errors import ADAPTER_NAME, RECEIVER_FATAL, code_of
from .fields import KafkaDelivery, due_at
from .offsets import Lane
from .receiver import KafkaReceiverLink

POLL_IDLE_S: Final = 0.05
POLL_BUSY_S: Final = 0.01  # while deliveries are out, so that their settlements do not wait long
CHOKE_AFTER_S: Final = 0.05
CONSUME_MAX: Final = 500
REVOKE_DRAIN_S: Final = 5.0
GAP_CAP: Final = 10_000
REFRESH_S: Final = 30.0
REFRESH_AGAIN_S: Final = 1.0
MISSING_MAX: Final = 3  # looks at a topic that is not there before it is believed
_log = logging.getLogger("unimq.kafka")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a receiver reads. `group` None: partitions assigned from `begin`, nothing is committed. `places`: the retry
    places among the topics of the cluster (None = look at nothing else). `latest`: where a group without any commit
    begins, per partition, where that could not be committed before."""

    topic: str
    group: str | None
    place: Place | None = None
    also_read: Sequence[Place] = ()
    begin: dict[int, int] = field(default_factory=dict)
    latest: dict[int, int] = field(default_factory=dict)
    places: Callable[[], tuple[bool, list[Place]]] | None = None
    wanted: Filter | None = None
    incremental: bool = True
    prefetch: int = 100
    prefetch_bytes: int = 64 * 1024 * 1024


class Owner:
    def __init__(self, reading: Reading, link: KafkaReceiverLink, sink: Sink) -> None:
        self.reading = reading
        self.over = False
        self.filtered = 0
        self._link = link
        self._sink = sink
        self._consumer: Any = None
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._places: dict[str, Place | None] = {reading.topic: reading.place}
        self._places |= {place.ref.topic: place for place in reading.also_read}
        self._parking: set[Lane] = set()
        self._commits = Committer(link.completions, self._held)
        self._tags = itertools.count(1)
        self._unsettled = 0
        self._unsettled_bytes = 0
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
        self._consumer = self._commits.consumer = consumer

    def on_commit(self, error: Any, partitions: Sequence[Any]) -> None:
        self._commits.answered(error, partitions)

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
        except Exception as error:  # the thread's end: whatever it was, receive raises it and the core is told
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
                self._lanes[(reading.topic, partition)] = Lane(reading.topic, partition, reading.place)
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
        self._commits.start()
        self._link.completions.run()
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh(now)
        if self._parking:
            self._unpark()
        room = self.reading.prefetch - self._unsettled
        if room <= 0 or self._unsettled_bytes >= self.reading.prefetch_bytes:
            if not self._choked:
                self._wait_for_room(now)
                return
            room = 1
        elif self._choked:
            self._choked = False
            self._resume("full", self._lanes.values())
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
        slice_s = POLL_BUSY_S if self._unsettled or not self._commits.idle else POLL_IDLE_S
        if self._parking:
            next_due = min(lane.due for lane in self._parking)
            slice_s = min(slice_s, max(next_due - time.time(), 0.001))
        return slice_s

    def _wait_for_room(self, now: float) -> None:
        if not self._full_since:
            self._full_since = now
        elif now - self._full_since > CHOKE_AFTER_S:
            self._choked = True
            self._pause("full", self._lanes.values())
            return
        self._looking.wait(CHOKE_AFTER_S)
        self._looking.clear()

    # -------------------------------------------------------------------------------------------------- records
    def _take_in(self, records: Iterable[Any]) -> None:
        deliveries: list[KafkaDelivery] = []
        lanes, link, grouped = self._lanes, self._link, self.reading.group is not None
        for record in records:
            error = record.error()
            if error is not None:
                self._trouble(error)
                continue
            lane = lanes.get((record.topic(), record.partition()))
            if lane is None:
                continue  # of a partition that is not ours any more
            if lane.place is not None and lane.place.delay_s is not None and not self._is_due(lane, record):
                continue
            self._deliver(lane, record, deliveries, link, grouped)
        self._offer(deliveries)

    def _deliver(
        self, lane: Lane, record: Any, deliveries: list[KafkaDelivery], link: KafkaReceiverLink, grouped: bool
    ) -> None:
        body, offset = record.value(), record.offset()
        delivery = KafkaDelivery(record, body, next(self._tags), lane.place, link, lane, offset)
        wanted = self.reading.wanted
        if wanted is not None and not wanted.wants(delivery.subject or "", delivery.headers):
            self.filtered += 1
            lane.skip(offset)
            if grouped and lane.advance():
                self._commits.dirty.add(lane)
            return
        if grouped:
            lane.deliver(offset, delivery)
            if len(lane.pending) >= GAP_CAP and "gap" not in lane.pauses:
                self._pause("gap", [lane])
                self._sink(FlowPaused(link, f"{GAP_CAP} messages of {lane} are behind one that is not settled"))
        else:
            lane.open[offset] = delivery
        self._unsettled += 1
        self._unsettled_bytes += len(body) if body is not None else 0
        deliveries.append(delivery)

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
            while lane.parked and lane.due <= now and self._unsettled < self.reading.prefetch:
                self._deliver(lane, lane.parked.popleft(), deliveries, self._link, grouped=True)
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
        commands = self._link.commands
        while commands:
            deliveries, outcome, done = commands.popleft()
            if outcome is None:
                self._commits.wait(Waiting((), (), done, flushes=True))
            else:
                self._settle(deliveries, outcome, done)

    def _settle(self, deliveries: Sequence[Any], outcome: Outcome, done: Done[SettleResult]) -> None:
        if isinstance(outcome, Release):
            self._again(deliveries)
            self._link.completions.add(done, SettleResult(lost=[d for d in deliveries if d.lane.gone]))
            return
        if not isinstance(outcome, Ack | Forget):
            _log.error("%s: Kafka has no %s; its deliveries stay unsettled", self._link.what, type(outcome).__name__)
            self._link.completions.add(done, SettleResult(lost=deliveries))
            return
        forgets = isinstance(outcome, Forget)
        lost: list[Delivery] = []
        touched: set[Lane] = set()
        for delivery in deliveries:
            lane = delivery.lane
            if lane.gone:
                if not forgets:
                    lost.append(delivery)
            elif lane.forget(delivery.offset) if forgets else lane.done(delivery.offset):
                self._unsettled -= 1
                if delivery.body is not None:
                    self._unsettled_bytes -= len(delivery.body)
                touched.add(lane)
        if self.reading.group is None or forgets:
            self._link.completions.add(done, SettleResult(lost))
            return
        for lane in touched:
            if lane.advance():
                self._commits.dirty.add(lane)
                if "gap" in lane.pauses and len(lane.pending) < GAP_CAP:
                    self._resume("gap", [lane])
        held: list[Delivery] = []
        covered: list[Delivery] = []
        for delivery in deliveries:
            lane = delivery.lane
            if not lane.gone:
                (held if lane.behind(delivery.offset, delivery) else covered).append(delivery)
        if covered:
            self._commits.wait(Waiting(covered, held, _with_lost(done, lost)))
        else:
            self._link.completions.add(done, SettleResult(lost, held))

    def _again(self, deliveries: Sequence[Any]) -> None:
        """The same records as new deliveries: the nearest that Kafka has to giving one message back."""
        fresh = []
        for old in deliveries:
            lane = old.lane
            if not lane.gone and lane.open.get(old.offset) is old:
                new = KafkaDelivery(old.raw, old.body, next(self._tags), lane.place, self._link, lane, old.offset)
                lane.again(old.offset, new)
                fresh.append(new)
        self._offer(fresh)

    def _held(self) -> list[Delivery]:
        return [delivery for lane in self._lanes.values() for delivery in lane.held.values()]

    # ---------------------------------------------------------------------------------------------- rebalances
    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        fresh = []
        for partition in partitions:
            lane = Lane(partition.topic, partition.partition, self._places.get(partition.topic))
            self._lanes[(partition.topic, partition.partition)] = lane
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
        self._drop(self._link.withdraw(lanes))
        if not self._stopping:
            self._drain(lanes)
            self._commits.now(lane for lane in lanes if lane.dirty)
        self._end(lanes)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        lanes = self._leaving(partitions)
        self._drop(self._link.withdraw(lanes))
        self._end(lanes)

    def _leaving(self, partitions: Iterable[TopicPartition]) -> set[Lane]:
        lanes = {self._lanes.get((partition.topic, partition.partition)) for partition in partitions}
        return {lane for lane in lanes if lane is not None}

    def _drop(self, deliveries: Iterable[KafkaDelivery]) -> None:
        """Out of the books: they were not handed out."""
        for delivery in deliveries:
            if delivery.lane.forget(delivery.offset):
                self._unsettled -= 1
                self._unsettled_bytes -= len(delivery.body or b"")

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
        in_hand = [delivery for lane in lanes for delivery in lane.open.values()]
        for lane in lanes:
            lane.gone = True
            lane.parked.clear()
            self._lanes.pop((lane.topic, lane.partition), None)
            self._parking.discard(lane)
        self._unsettled -= len(in_hand)
        self._unsettled_bytes -= sum(len(delivery.body or b"") for delivery in in_hand)
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
            raise NotFound(f"the topic {self.reading.topic} is gone: mq.declare(...) makes it", adapter=ADAPTER_NAME)
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
            while not self._commits.idle and time.monotonic() < self._stop_by:
                self._pause("closing", self._lanes.values())
                self._commits.start()
                self._consumer.poll(POLL_BUSY_S)  # what it may still bring is not handed out, so it is not committed
                self._link.completions.run()
                self._take_commands()
        except Exception as error:  # as in _run: it must not keep the consumer from being closed
            _log.warning("%s: the last commit failed; messages come again: %r", self._link.what, error)
        self.over = True
        self._commits.give_up()
        self._link.refuse_commands()
        self._stopping = True
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            _log.info("%s: closing: %s", self._link.what, error)


def _with_lost(done: Done[SettleResult], lost: Sequence[Delivery]) -> Done[SettleResult]:
    if not lost:
        return done

    def both(result: SettleResult) -> None:
        done(SettleResult([*lost, *result.lost], result.held))

    return both
