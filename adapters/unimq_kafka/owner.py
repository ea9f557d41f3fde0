"""The one thread that calls a Consumer: polls, commits, pauses, drains. All of this file runs on it, but `start stop join look`.

Rules
- It polls in slices, also when paused or idle, so the group never waits for a user's handler; settlements are commands to it.
- A full prefetch goes on polling too: what that brings is kept ahead (`AHEAD_MAX` records); only then all partitions are
  paused, until half of it is free again (or some for a while): pausing throws away what librdkafka has fetched.
- A retry place's record that is not due is parked and its partition paused until it is.
- A partition is fetched once its journal is open at the broker (`journal.py`), and no more is out than that covers.
- Revoked: what was not handed out is dropped, the rest is told to the core, which settles or forgets each; then the commit,
  at the latest `REVOKE_DRAIN_S` later. Lost: an event, no commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from unimq.driver import (
    Cancelled,
    FlowPaused,
    LockLostEvent,
    Lost,
    Revoked,
    Sink,
)
from unimq.errors import NotFound

from .books import GAP_CAP, Books
from .errors import RECEIVER_FATAL, code_of
from .fields import KafkaDelivery, due_at
from .journal import CLEAN, Journal
from .offsets import Lane
from .reading import Reading, Watch
from .receiver import Begun, KafkaReceiverLink

POLL_IDLE_S: Final = 0.05
POLL_BUSY_S: Final = 0.01  # while deliveries are out, so that their settlements do not wait long
ANSWER_LOOK_S: Final = 0.001  # a commit takes about that long; who waits for it may hold what makes room
AHEAD_MAX: Final = 8
REFILL_AFTER_S: Final = 0.25
CONSUME_MAX: Final = 500
REVOKE_DRAIN_S: Final = 5.0
_log = logging.getLogger("unimq.kafka")


class Owner:
    def __init__(self, reading: Reading, link: KafkaReceiverLink, sink: Sink) -> None:
        self.reading = reading
        self.over = False
        self.filtered = 0
        self._link = link
        self._sink = sink
        self._consumer: Any = None
        self._parking: set[Lane] = set()
        self._opening: set[Lane] = set()
        self._prefetch = link.prefetch
        self._books = Books(link, link.completions, grouped=reading.group is not None)
        self._choked = False
        self._room_since = 0.0
        self._ahead: deque[Any] = deque()  # records polled while the prefetch was full
        self._look_s = ANSWER_LOOK_S
        self._watch = Watch(reading)
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
        self._watch.soon()

    def stop(self, timeout_s: float) -> None:
        if not self._stopping:
            self._stop_by = time.monotonic() + timeout_s
            self._stopping = True
        self._looking.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end; one that hangs in its client is left behind, and what it owes is answered."""
        if self._thread is threading.current_thread():
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._resign()

    # ------------------------------------------------------------------------------------------------ the thread
    def _run(self) -> None:
        try:
            self._begin()
            while not self._stopping:
                self._turn()
        # the thread's end: whatever it was, receive raises it and the core is told
        except Exception as error:
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
            sorted(self._watch.places),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _turn(self) -> None:
        self._take_commands()
        self._books.commits.start()
        self._link.completions.run()
        if self._books.commits.fatal is not None:
            raise self._books.commits.fatal
        if self._opening:
            self._opened()
        if self._link.prefetch != self._prefetch:
            self._take_prefetch()
        if self._watch.changed():
            self._subscribe()
        if self._parking:
            self._unpark()
        room = self._room()
        if room <= 0:
            self._poll_while_full()
            return
        self._look_s = ANSWER_LOOK_S
        if self._ahead:
            self._take_in([self._ahead.popleft() for _ in range(min(room, len(self._ahead)))])
            return
        if self._choked:
            self._unchoke()
        records = self._consumer.consume(min(room, CONSUME_MAX), 0)
        if not records:
            first = self._consumer.poll(self._slice_s())
            if first is not None:
                records = [first]
        if records:
            self._take_in(records)

    def _room(self) -> int:
        if self._books.unsettled_bytes >= self.reading.prefetch_bytes:
            return 0
        return self._prefetch - self._books.unsettled

    def _take_prefetch(self) -> None:
        wanted = self._link.prefetch
        if wanted < self._prefetch or self._books.widen(wanted):
            self._prefetch = wanted

    def _opened(self) -> None:
        """Fetch from the partitions whose journal the broker has."""
        ready = {lane for lane in self._opening if lane.is_open or lane.gone}
        if ready:
            self._opening -= ready
            self._resume("not open", ready)

    def _unchoke(self) -> None:
        """Fetch again once half is free; some room alone must do after a while, for nobody may be settling."""
        books, reading, now = self._books, self.reading, time.monotonic()
        self._room_since = self._room_since or now
        half_free = (
            books.unsettled <= self._prefetch // 2 and books.unsettled_bytes <= reading.prefetch_bytes // 2
        )
        if half_free or now - self._room_since > REFILL_AFTER_S:
            self._choked, self._room_since = False, 0.0
            self._resume("full", books.lanes.values())

    def _slice_s(self) -> float:
        slice_s = POLL_BUSY_S if self._books.unsettled or not self._books.commits.idle else POLL_IDLE_S
        if self._parking:
            left_s = min(lane.due for lane in self._parking) - time.time()
            if left_s > 0:  # else it waits for room, not for its time
                slice_s = min(slice_s, left_s)
        return slice_s

    def _poll_while_full(self) -> None:
        """Whoever waits for the answer to a commit may hold what makes room, so that is looked for soon, then less often."""
        if not self._looking.wait(self._look_s if self._books.commits.in_flight else POLL_IDLE_S):
            self._look_s = min(self._look_s * 2, POLL_IDLE_S)
        self._looking.clear()
        if self._link.commands:
            return
        if len(self._ahead) >= AHEAD_MAX and not self._choked:
            self._choked = True
            self._pause("full", self._books.lanes.values())
        record = self._consumer.poll(0)
        if record is not None:
            self._ahead.append(record)

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
            self._books.cover()
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
            while lane.parked and lane.due <= now and self._books.unsettled < self._prefetch:
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
            self._watch.again()
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
            elif isinstance(outcome, Begun):
                books.note(deliveries, done)
            else:
                self._offer(books.settle(deliveries, outcome, done))
        if books.gap_closed:
            self._resume("gap", books.gap_closed)
            books.gap_closed.clear()

    # ---------------------------------------------------------------------------------------------- rebalances
    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        fresh = []
        for partition in partitions:
            lane = Lane(partition.topic, partition.partition, self._watch.places.get(partition.topic))
            self._books.lanes[(partition.topic, partition.partition)] = lane
            fresh.append(lane)
        self._begin_at_latest(consumer, partitions)
        self._read_journals(consumer, partitions)
        if self.reading.incremental:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        self._pause("not open", fresh)
        self._opening.update(fresh)
        if self._choked:
            self._pause("full", fresh)

    def _read_journals(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """How the last owner of each ended; what this one writes goes with the next commit."""
        if not partitions:
            return  # a cooperative rebalance may bring none
        prefetch = max(self._prefetch, self._link.prefetch)
        for found in consumer.committed(list(partitions), timeout=REVOKE_DRAIN_S):
            if found.error is not None:
                raise KafkaException(found.error)
            lane = self._books.lanes[(found.topic, found.partition)]
            if found.offset >= 0:
                lane.begin(found.offset, Journal(prefetch, found.metadata or ""))
            else:
                asked = TopicPartition(found.topic, found.partition)
                first, _ = consumer.get_watermark_offsets(asked, timeout=REVOKE_DRAIN_S)
                lane.begin(first, Journal(prefetch, None))
            self._books.commits.dirty.add(lane)

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
        wanted = [TopicPartition(p.topic, p.partition, p.offset, CLEAN) for p in mine]
        consumer.commit(offsets=wanted, asynchronous=False)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        lanes = self._leaving(partitions)
        self._books.drop(self._link.withdraw(lanes))
        if not self._stopping:
            self._drain(lanes)
            self._books.end_well(lanes)
            self._books.commits.send()
        self._end(lanes)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        lanes = self._leaving(partitions)
        self._books.drop(self._link.withdraw(lanes))
        self._end(lanes)

    def _leaving(self, partitions: Iterable[TopicPartition]) -> set[Lane]:
        lanes = {self._books.lanes.get((partition.topic, partition.partition)) for partition in partitions}
        leaving = {lane for lane in lanes if lane is not None}
        gone = {(lane.topic, lane.partition) for lane in leaving}
        self._ahead = deque(one for one in self._ahead if (one.topic(), one.partition()) not in gone)
        return leaving

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
        self._opening -= lanes
        in_hand = self._books.close(lanes)
        if in_hand and not self._stopping:
            self._sink(LockLostEvent(self._link, in_hand))

    # --------------------------------------------------------------------------------------------------- ending
    def _finish(self) -> None:
        """Commit what is settled, answer what is not, leave the group."""
        try:
            self._take_commands()
            self._books.end_well(self._books.lanes.values())
            while not self._books.commits.idle and time.monotonic() < self._stop_by:
                self._pause("closing", self._books.lanes.values())
                self._books.commits.start()
                # what it may still bring is not handed out, so it is not committed
                self._consumer.poll(POLL_BUSY_S)
                self._link.completions.run()
                self._take_commands()
        except Exception as error:  # as in _run: it must not keep the consumer from being closed
            _log.warning("%s: the last commit failed; messages come again: %r", self._link.what, error)
        self._resign()
        self._stopping = True
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            _log.info("%s: closing: %s", self._link.what, error)

    def _resign(self) -> None:
        self.over = True
        self._books.commits.give_up()
        self._link.refuse_commands()
