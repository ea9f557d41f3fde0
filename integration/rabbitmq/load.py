"""A publisher with confirms and a consumer, each with a client of its own, and what became of every message.

Rules
- Messages are numbered, each is sent once. `confirmed`, `unknown` and `unsent` are what `send_many` said of it.
- The consumer counts before it acknowledges. `findings` holds the two against each other: what was confirmed has come,
  and nothing has come that was never sent or was said not to have left.
- A gap is the longest time between two batches that were confirmed, or between two deliveries.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import unimq
from unimq import Queue
from unimq.errors import ConnectionFailed, LockLost, SettlementLost, UnimqError

BATCH = 50
SEND_TIMEOUT_S = 15.0
RECEIVE_S = 0.5
DRAIN_S = 30.0
JOIN_S = 40.0
PACE_S = 0.002  # between batches: a load, and not all that the machine can do


class Load:
    """In `with`, it runs; `finish()` ends it and waits until what was confirmed has come, or `DRAIN_S`."""

    def __init__(self, url: str, queue: Queue, **options: Any) -> None:
        self.confirmed: set[int] = set()
        self.unknown: set[int] = set()
        self.unsent: Counter[str] = Counter()
        self.received: Counter[int] = Counter()
        self.confirmed_at: list[float] = []
        self.received_at: list[float] = []
        self.errors: list[BaseException] = []
        self._url, self._queue, self._options = url, queue, options
        self._stop_sending = threading.Event()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"load-{work.__name__}", daemon=True)
            for work in (self._publish, self._consume)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_sending.set()
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _guard(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:  # raised again by `findings`, in the test's own thread
            self.errors.append(error)

    def _publish(self) -> None:
        number = 0
        with unimq.connect(self._url, **self._options) as mq, mq.sender(self._queue) as sender:
            while not self._stop_sending.is_set():
                batch = range(number, number + BATCH)
                number += BATCH
                report = sender.send_many([b"%d" % each for each in batch], timeout_s=SEND_TIMEOUT_S)
                self._sort(batch, report.errors)
                self._stop_sending.wait(PACE_S)

    def _sort(self, batch: Sequence[int], errors: dict[int, UnimqError]) -> None:
        for index, number in enumerate(batch):
            error = errors.get(index)
            if error is None:
                self.confirmed.add(number)
            elif error.may_have_been_sent:
                self.unknown.add(number)
            else:
                self.unsent[type(error).__name__] += 1
        if len(errors) < len(batch):
            self.confirmed_at.append(time.monotonic())

    def _consume(self) -> None:
        with suppress(SettlementLost):  # said again at the end; what was lost comes again
            with (
                unimq.connect(self._url, **self._options) as mq,
                mq.receiver(self._queue, prefetch=200) as link,
            ):
                while not self._stop.is_set():
                    self._take(link)

    def _take(self, link: unimq.Receiver) -> None:
        try:
            deliveries = link.receive(max_messages=200, timeout_s=RECEIVE_S)
        except ConnectionFailed:
            return  # it is down and being reconnected
        for delivery in deliveries:
            self.received[int(delivery.body or b"")] += 1
            with suppress(LockLost):  # its link is gone: it comes again
                delivery.ack()
        if deliveries:
            self.received_at.append(time.monotonic())

    # --------------------------------------------------------------------------------------------------- the end
    def finish(self) -> None:
        self._stop_sending.set()
        self._threads[0].join(JOIN_S)
        deadline = time.monotonic() + DRAIN_S
        while not self.confirmed <= self.received.keys() and time.monotonic() < deadline and not self.errors:
            self._stop.wait(0.05)
        self._stop.set()
        self._threads[1].join(JOIN_S)

    def findings(self) -> list[str]:
        """What is wrong; nothing, if all is well."""
        found = [f"it ended: {error!r}" for error in self.errors]
        if lost := self.confirmed - self.received.keys():
            found.append(f"{len(lost)} confirmed and lost, the first {min(lost)}")
        if strange := self.received.keys() - self.confirmed - self.unknown:
            found.append(f"{len(strange)} came that were never confirmed and said not to have left")
        return found

    def gaps_s(self) -> tuple[float, float]:
        """(sending, receiving)."""
        return longest(self.confirmed_at), longest(self.received_at)

    def __str__(self) -> str:
        came, lost = len(self.unknown & self.received.keys()), len(self.confirmed - self.received.keys())
        again = sum(self.received.values()) - len(self.received)
        sending_s, receiving_s = self.gaps_s()
        unsent = f"{self.unsent.total()} unsent{f' {dict(self.unsent)}' if self.unsent else ''}"
        return (
            f"{len(self.confirmed)} confirmed, {lost} lost, {len(self.unknown)} outcomes unknown ({came} of them came), "
            f"{unsent}, {again} came twice; gap {sending_s:.2f} s sending, {receiving_s:.2f} s receiving"
        )


def longest(times: Sequence[float]) -> float:
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
