"""What one receiver has out, and what becomes of it. Called by the owner thread only; calls no client.

Rules
- `unsettled` counts what is in the buffer or in somebody's hands: it is what `prefetch` bounds.
- A settlement completes with the commit that covers it; what is done behind an older one that is not completes at once, as
  held. Where there is no group (`grouped` False) there is nothing to commit.
- What may be in hand is in the journal of its partition before it is; a suspect's try before its handler begins.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from unimq.delivery import Delivery
from unimq.driver import Ack, Done, Forget, Outcome, Release, SettleResult

from .commits import Committer, Waiting
from .completions import Completions
from .fields import KafkaDelivery
from .offsets import Lane

GAP_CAP: Final = 10_000
_log = logging.getLogger("unimq.kafka")


class Books:
    def __init__(self, link: Any, completions: Completions, *, grouped: bool) -> None:
        self.lanes: dict[tuple[str, int], Lane] = {}
        self.unsettled = 0
        self.unsettled_bytes = 0
        self.commits = Committer(completions, self.held)
        self.gap_closed: list[Lane] = []  # lanes that may be fetched again
        self._link = link
        self._completions = completions
        self._grouped = grouped
        self._tags = itertools.count(1)

    # -------------------------------------------------------------------------------------------------- coming in
    def delivery(self, lane: Lane, record: Any, times: int | None = None) -> KafkaDelivery:
        """`times`: how often it was in hand when something ended badly, where anybody knows."""
        return KafkaDelivery(
            record, record.value(), next(self._tags), lane.place, self._link, lane, record.offset(), times
        )

    def enter(self, delivery: KafkaDelivery) -> bool:
        """It is about to be handed out. True when too much of its partition is behind a gap."""
        lane, body = delivery.lane, delivery.body
        self.unsettled += 1
        if body is not None:
            self.unsettled_bytes += len(body)
        if not self._grouped:
            lane.open[delivery.offset] = delivery
            return False
        lane.deliver(delivery.offset, delivery)
        journal = lane.journal
        if journal is not None and journal.suspects:
            delivery.times = journal.times(delivery.offset)
        return len(lane.pending) >= GAP_CAP

    def skip(self, delivery: KafkaDelivery) -> None:
        """A filter does not want it: done without being handed out."""
        if self._grouped:
            delivery.lane.skip(delivery.offset)
            if delivery.lane.advance():
                self.commits.dirty.add(delivery.lane)

    def cover(self) -> None:
        """What is out must be covered by what is written."""
        for lane in self.lanes.values():
            if lane.journal is not None and not lane.journal.reaches(len(lane.pending)):
                self.commits.dirty.add(lane)

    def widen(self, prefetch: int) -> bool:
        """Whether so many may be out: the broker must know first."""
        opened = True
        for lane in self.lanes.values():
            if lane.journal is not None and not (lane.journal.reaches(prefetch) and lane.is_open):
                self.commits.dirty.add(lane)
                opened = False
        return opened

    # -------------------------------------------------------------------------------------------------- going out
    def note(self, deliveries: Sequence[Any], done: Done[SettleResult]) -> None:
        """Their handlers are about to begin."""
        for delivery in deliveries:
            lane = delivery.lane
            if not lane.gone and lane.journal is not None:
                lane.journal.note(delivery.offset, delivery.times or 1)
                self.commits.dirty.add(lane)
        self.commits.wait(Waiting(deliveries, (), done))

    def end_well(self, lanes: Iterable[Lane]) -> None:
        """Whatever is still in hand: nobody died of it."""
        for lane in lanes:
            if lane.journal is not None and not lane.gone:
                lane.ended = True
                self.commits.dirty.add(lane)

    def flush(self, done: Done[SettleResult]) -> None:
        self.commits.wait(Waiting((), (), done, flushes=True))

    def settle(
        self, deliveries: Sequence[Any], outcome: Outcome, done: Done[SettleResult]
    ) -> list[KafkaDelivery]:
        """Returns what is to be handed out again."""
        if isinstance(outcome, Ack):
            self._ack(deliveries, done)
        elif isinstance(outcome, Forget):
            self.drop(deliveries)
            self._completions.add(done, SettleResult())
        elif isinstance(outcome, Release):
            self._completions.add(done, SettleResult(lost=[d for d in deliveries if d.lane.gone]))
            return self._again(deliveries)
        else:
            _log.error(
                "%s: Kafka has no %s; the message stays unsettled", self._link.what, type(outcome).__name__
            )
            self._completions.add(done, SettleResult(lost=deliveries))
        return []

    def _ack(self, deliveries: Sequence[Any], done: Done[SettleResult]) -> None:
        lost: list[Delivery] = []
        touched: set[Lane] = set()
        for delivery in deliveries:
            lane = delivery.lane
            if lane.gone:
                lost.append(delivery)
            elif lane.done(delivery.offset):
                self._left(delivery)
                touched.add(lane)
        if not self._grouped:
            self._completions.add(done, SettleResult(lost))
            return
        for lane in touched:
            if lane.advance():
                self.commits.dirty.add(lane)
                if len(lane.pending) < GAP_CAP:
                    self.gap_closed.append(lane)
        held: list[Delivery] = []
        covered: list[Delivery] = []
        for delivery in deliveries:
            if not delivery.lane.gone:
                (held if delivery.lane.behind(delivery.offset, delivery) else covered).append(delivery)
        if covered:
            self.commits.wait(Waiting(covered, held, _with_lost(done, lost)))
        else:
            self._completions.add(done, SettleResult(lost, held))

    def _again(self, deliveries: Sequence[Any]) -> list[KafkaDelivery]:
        """The same records as new deliveries: the nearest that Kafka has to giving one message back."""
        fresh = []
        for old in deliveries:
            if not old.lane.gone and old.lane.open.get(old.offset) is old:
                new = self.delivery(old.lane, old.raw, old.times)
                old.lane.again(old.offset, new)
                fresh.append(new)
        return fresh

    def drop(self, deliveries: Iterable[Any]) -> None:
        """In nobody's hands any more, and not done: nothing behind it is committed."""
        for delivery in deliveries:
            if not delivery.lane.gone and delivery.lane.forget(delivery.offset):
                self._left(delivery)

    def _left(self, delivery: Any) -> None:
        self.unsettled -= 1
        if delivery.body is not None:
            self.unsettled_bytes -= len(delivery.body)

    def held(self) -> list[Delivery]:
        return [delivery for lane in self.lanes.values() for delivery in lane.held.values()]

    def close(self, lanes: Iterable[Lane]) -> list[Delivery]:
        """These partitions are not ours any more. Returns what was in somebody's hands."""
        in_hand: list[Delivery] = []
        for lane in lanes:
            for delivery in lane.open.values():
                self._left(delivery)
                in_hand.append(delivery)
            lane.gone = True
            lane.parked.clear()
            self.lanes.pop((lane.topic, lane.partition), None)
        return in_hand


def _with_lost(done: Done[SettleResult], lost: Sequence[Delivery]) -> Done[SettleResult]:
    if not lost:
        return done

    def both(result: SettleResult) -> None:
        done(SettleResult([*lost, *result.lost], result.held))

    return both
