"""One librdkafka producer and the batches it has not yet reported on.

Rules
- Reports come only inside `poll`/`flush`, so only from `turn`, and one thread at a time is in `turn` (the connection's
  leader). A report slot is a callable per index, made once and used again: neither a closure nor an object per message.
- Whoever sees "all reported and all accepted" takes the `Done` with an atomic `list.pop`: the submitting thread or the leader.
- Everything is reported within `message.timeout.ms`; deadlines of single batches are the core's. librdkafka cannot say
  whether a message that timed out was ever written: its outcome is unknown.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, overload

from confluent_kafka import KafkaException

from unimq.driver import BatchResult, Failed, Room, Sink
from unimq.errors import SendOutcomeUnknown

from .completions import Completions
from .errors import ADAPTER_NAME, NEVER_STORED, code_of

TURN_MAX_S: Final = 0.02
# With so few messages waiting, lingering would gather nothing: they leave at once.
FLUSH_BELOW: Final = 64
FREE_FLIGHTS_MAX: Final = 64
ROOM_BELOW: Final = 0.9  # of the queue, so that a full one does not tell of every single place
_log = logging.getLogger("unimq.kafka")


class Positions(Sequence[tuple[int, int]]):
    """(partition, offset) of each item, read from the reports when somebody looks; None where there is none."""

    __slots__ = ("_reports",)

    def __init__(self, reports: list[Any]) -> None:
        self._reports = reports

    def __len__(self) -> int:
        return len(self._reports)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [_position(report) for report in self._reports[index]]
        return _position(self._reports[index])

    def __iter__(self) -> Iterator[Any]:
        return map(_position, self._reports)


def _position(report: Any) -> tuple[int, int] | None:
    return None if report is None or report.error() is not None else (report.partition(), report.offset())


class Flight:
    """What one `submit` or `forward` handed over. `expected` is None until it is known how much was accepted."""

    __slots__ = (
        "pump",
        "slots",
        "link",
        "reports",
        "errors",
        "reported",
        "refused",
        "expected",
        "submitting",
        "_done",
    )

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.slots: list[Callable[[Any, Any], None]] = []
        self.clear()

    def clear(self) -> None:
        self.link: Any = None
        self.reports: list[Any] = []
        self.errors: dict[int, Failed] = {}
        self.reported = 0
        self.refused = 0
        self.expected: int | None = None
        self.submitting = True
        self._done: list[Callable[[BatchResult], None]] = []

    def begin(self, link: Any, done: Callable[[BatchResult], None], count: int) -> None:
        self.link = link
        self.reports = [None] * count
        self._done.append(done)
        slots = self.slots
        while len(slots) < count:
            slots.append(partial(self._report, len(slots)))

    def refuse(self, index: int, error: BaseException) -> None:
        """It never got into librdkafka's queue. On the submitting thread, before `accepted`."""
        self.errors[index] = Failed(error, handed_over=False)
        self.refused += 1

    def accepted(self, count: int) -> None:
        del self.reports[count:]
        self.expected = count - self.refused
        if self.reported == self.expected:
            self.pump.landed(self)
        self.submitting = False

    def _report(self, index: int, error: Any, report: Any) -> None:
        self.reports[index] = report
        if error is not None:
            self.errors[index] = Failed(KafkaException(error), handed_over=code_of(error) not in NEVER_STORED)
        self.reported += 1
        if self.reported == self.expected:
            self.pump.landed(self)

    def refuse_late(self, index: int, error: BaseException) -> None:
        """As `refuse`, by the leader, for what had to wait for room."""
        self.errors[index] = Failed(error, handed_over=False)
        self.reported += 1
        if self.reported == self.expected:
            self.pump.landed(self)

    def take_done(self) -> Callable[[BatchResult], None] | None:
        try:
            return self._done.pop()
        except IndexError:
            return None

    def result(self) -> BatchResult:
        return BatchResult(dict(self.errors) or None, Positions(self.reports))


class Pump:
    """See the module. `turn` is called under the connection's leader lock only."""

    def __init__(
        self, producer: Any, completions: Completions, sink: Sink, capacity: int, stir: Callable[[], None]
    ) -> None:
        self.producer = producer
        self.flights: set[Flight] = set()
        self.full: set[Any] = set()  # links that were told to wait for room
        self.backlog: deque[tuple[Flight, int, tuple[Any, ...]]] = deque()  # copies that wait for room
        self._completions = completions
        self._sink = sink
        self._free: list[Flight] = []
        self._stir = stir
        self._room_below = ROOM_BELOW * capacity

    def flight(self, link: Any, done: Callable[[BatchResult], None], count: int) -> Flight:
        try:
            flight = self._free.pop()
        except IndexError:
            flight = Flight(self)
        flight.begin(link, done, count)
        self.flights.add(flight)
        return flight

    def stir(self) -> None:
        """After a submit: an idle leader is not in `poll`, where the batch would linger, but waits for this."""
        if len(self.flights) == 1:
            self._stir()

    def drop(self, flight: Flight) -> None:
        """Nothing of it was accepted."""
        self.flights.discard(flight)
        self._recycle(flight)

    def landed(self, flight: Flight) -> None:
        done = flight.take_done()
        if done is not None:
            self.flights.discard(flight)
            self._completions.add(done, flight.result())
        # also one that was given up: its last late report is in. Not one that `accepted` still looks at
        if not flight.submitting:
            self._recycle(flight)

    def _recycle(self, flight: Flight) -> None:
        flight.clear()
        if len(self._free) < FREE_FLIGHTS_MAX:
            self._free.append(flight)

    def give_up(self, flight: Flight, why: str) -> None:
        """Answer now: what has no report may have been sent."""
        done = flight.take_done()
        if done is None:
            return
        self.flights.discard(flight)
        reports, errors = list(flight.reports), dict(flight.errors)
        for index, report in enumerate(reports):
            if report is None and index not in errors:
                errors[index] = Failed(SendOutcomeUnknown(why, adapter=ADAPTER_NAME), handed_over=True)
        self._completions.add(done, BatchResult(errors or None, Positions(reports)))

    def turn(self, timeout_s: float) -> None:
        """Serve reports for at most `timeout_s`."""
        producer = self.producer
        if self.backlog:
            self._try_backlog()
        if 0 < len(producer) <= FLUSH_BELOW:
            producer.flush(timeout_s)
        else:
            producer.poll(timeout_s)
        if self.full and len(producer) < self._room_below:
            waiting = list(self.full)
            self.full.clear()
            for link in waiting:
                self._completions.add(self._sink, Room(link))

    def _try_backlog(self) -> None:
        while self.backlog:
            flight, index, record = self.backlog[0]
            try:
                self.produce(flight, index, record)
            except BufferError:
                return
            except (KafkaException, ValueError, TypeError) as error:
                flight.refuse_late(index, error)
            self.backlog.popleft()

    def produce(self, flight: Flight, index: int, record: tuple[Any, ...]) -> None:
        topic, value, key, headers = record
        self.producer.produce(topic, value, key, on_delivery=flight.slots[index], headers=headers)

    def close(self, deadline: float) -> None:
        """Send what can be sent until `deadline`, purge the rest, answer everything."""
        while (self.flights or self.backlog) and (left_s := deadline - time.monotonic()) > 0:
            self.turn(min(left_s, TURN_MAX_S))
        while self.backlog:
            flight, index, _ = self.backlog.popleft()
            flight.refuse_late(index, BufferError("closed before there was room"))
        if len(self.producer):
            self.producer.purge(in_queue=True, in_flight=True, blocking=False)
            self.producer.flush(TURN_MAX_S)  # the purged report here
        for flight in list(self.flights):
            self.give_up(flight, "closed before it was confirmed; it may have been sent")
        if not len(self.producer):
            self.producer.close()  # it is in a cycle with its callbacks: not before the next collection otherwise
