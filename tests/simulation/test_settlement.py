"""The settlement desk and its copiers under a broker that loses links, refuses copies and answers late.

The rule it holds: a message is at every moment unsettled at its source, or settled with the next place confirmed. A failing
seed is replayed with `pytest tests/simulation/test_settlement.py -k "[SEED]"`.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence

import pytest

from tests.simulation.simulated_time import SimulatedTime
from unimq import AlreadySettled, ConnectionFailed, Delivery, LockLost, Queue, Retry, UnimqError
from unimq._copier import Copier
from unimq._settlement import TRANSITIONS, Desk, State
from unimq.capabilities import NATIVE as HAS
from unimq.capabilities import Capabilities
from unimq.codec import Codecs
from unimq.delivery import Metadata
from unimq.driver import (
    ALL_SETTLED,
    NATIVE,
    Ack,
    Batch,
    BatchResult,
    Copy,
    Done,
    Failed,
    Op,
    Outcome,
    Place,
    Plan,
    Release,
    SettleResult,
)

SEEDS = range(80)
STEPS = 250
RETRY_PLACE = Place("retry", "retry")
DEAD_PLACE = Place("dead", "dead")


class Message(Delivery):
    __slots__ = ()

    def _read(self) -> Metadata:
        return Metadata(message_id=self.raw, position=self.raw)


class Source:
    """Messages at the broker: waiting, out on a link, or settled."""

    def __init__(self, count: int) -> None:
        self.waiting = [f"m{i}" for i in range(count)]
        self.acked: list[str] = []


class Link:
    """Settlements are written in order and answered late; a dead link gives everything unsettled back."""

    def __init__(self, source: Source, rng: random.Random) -> None:
        self.source, self.rng = source, rng
        self.out: dict[str, Message] = {}
        self.dead = False
        self.open: list[tuple[Sequence[Delivery], Outcome, Done[SettleResult]]] = []

    def hand_out(self) -> Message | None:
        if self.dead or not self.source.waiting:
            return None
        name = self.source.waiting.pop(0)
        self.out[name] = Message(name, b"", name, None, self)  # type: ignore[arg-type]
        return self.out[name]

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        for delivery in deliveries:
            assert delivery.link is self, "a delivery of another link was settled here"
        if self.dead:
            done(SettleResult(lost=deliveries))
            return
        self.open.append((deliveries, outcome, done))
        if self.rng.random() < 0.4:
            self.answer()

    def answer(self) -> None:
        if self.open:
            deliveries, outcome, done = self.open.pop(0)
            self._take(deliveries, outcome)
            done(ALL_SETTLED)

    def _take(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        for delivery in deliveries:
            del self.out[delivery.raw]
            if isinstance(outcome, Ack):
                self.source.acked.append(delivery.raw)
            else:
                assert isinstance(outcome, Release)
                self.source.waiting.append(delivery.raw)

    def die(self) -> None:
        """Some of what was written was taken, without an answer; the rest goes back."""
        self.dead = True
        while self.open:
            deliveries, outcome, done = self.open.pop(0)
            if self.rng.random() < 0.5:
                self._take(deliveries, outcome)
            done(SettleResult(lost=deliveries))
        self.source.waiting += self.out
        self.out.clear()

    def flush(self, done: Done[SettleResult]) -> None:
        done(ALL_SETTLED)

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        raise AssertionError("the simulation hands out by itself")

    def wake(self) -> None: ...

    def close(self, timeout_s: float) -> None:
        self.die()


class CopyLink:
    """Writes copies, or fails to, or writes and loses the answer."""

    def __init__(self, written: list[str], rng: random.Random) -> None:
        self.written, self.rng = written, rng
        self.open: list[tuple[Sequence[Copy], Done[BatchResult]]] = []

    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        raise AssertionError("not used here")

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        self.open.append((copies, done))
        if self.rng.random() < 0.4:
            self.answer()

    def answer(self) -> None:
        if not self.open:
            return
        copies, done = self.open.pop(0)
        failures: dict[int, Failed] = {}
        for index, copy in enumerate(copies):
            fate = self.rng.random()
            if fate < 0.2:
                failures[index] = Failed(ConnectionFailed("refused"), False)
                continue
            self.written.append(copy.message_id)
            if fate < 0.3:
                failures[index] = Failed(ConnectionFailed("answer lost"), True)
        done(BatchResult(failures or None))

    def close(self, timeout_s: float) -> None: ...


def classify(error: BaseException, op: Op, handed_over: bool) -> UnimqError:
    assert isinstance(error, UnimqError)
    return error


def reachable() -> set[tuple[State, State]]:
    """What may be seen of a delivery at two moments, any number of transitions apart."""
    pairs = {(before, after) for (before, _), after in TRANSITIONS.items()}
    while True:
        more = {(first, last) for first, middle in pairs for other, last in pairs if middle is other}
        if more <= pairs:
            return pairs | {(state, state) for state in State}
        pairs |= more


REACHABLE = reachable()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_settled_before_the_next_place_has_it(seed: int) -> None:
    rng = random.Random(seed)
    time, source, written = SimulatedTime(), Source(60), list[str]()
    copy_links = {RETRY_PLACE.ref: CopyLink(written, rng), DEAD_PLACE.ref: CopyLink(written, rng)}
    copiers: dict[object, Copier] = {}
    stash: list[Delivery] = []

    def copier(place: Place) -> Copier:
        if place.ref not in copiers:
            copiers[place.ref] = Copier(
                place, classify=classify, ticker=time, wanted=lambda copy: desk.copy_wanted(copy)
            )
            copiers[place.ref].attach(copy_links[place.ref])
        return copiers[place.ref]

    desk = Desk(
        source=Queue("q"),
        codecs=Codecs(),
        policy=Retry(immediate=0, delayed_s=[1.0]),
        plan=Plan(release=NATIVE, retry=lambda delay_s: RETRY_PLACE, dead_write=DEAD_PLACE),
        capabilities=Capabilities(ack=HAS, release=HAS, retry_delay=HAS, dead_letter=HAS),
        copiers=copier,
        stash_front=lambda delivery: stash.insert(0, delivery),
        on_lost=None,
        now=lambda: dt.datetime.fromtimestamp(time.now, dt.UTC),
        seed=rng,
        adapter="simulated",
    )
    link = Link(source, rng)
    desk.attach(link)
    hands: list[Delivery] = []
    acked_by_user: set[str] = set()
    moved_by_user: set[str] = set()
    life: dict[Delivery, State] = {}

    def check() -> None:
        for delivery, before in life.items():
            now = life[delivery] = desk.state(delivery)
            assert (before, now) in REACHABLE, f"{delivery.raw} went from {before} to {now}"
        for name in source.acked:
            copied = any(each.startswith(f"{name}#") for each in written)
            assert name in acked_by_user or copied, f"{name} was settled and is nowhere"

    for _ in range(STEPS):
        action = rng.random()
        if action < 0.35:
            message = link.hand_out()
            if message is not None:
                desk.arrived([message])
                hands.append(message)
                life[message] = desk.state(message)
        elif action < 0.75 and hands:
            delivery = hands.pop(rng.randrange(len(hands)))
            verb = rng.choice(["ack", "retry", "dead", "release"])
            try:
                if verb == "ack":
                    acked_by_user.add(delivery.raw)
                    delivery.ack()
                elif verb == "release":
                    delivery.release()
                else:
                    moved_by_user.add(delivery.raw)
                    delivery.retry(1.0) if verb == "retry" else delivery.dead_letter("why")
            except LockLost:
                assert delivery.link is not link or link.dead
            else:
                with pytest.raises((AlreadySettled, LockLost)):
                    delivery.ack()
        elif action < 0.85:
            link.answer()
        elif action < 0.93:
            rng.choice(list(copy_links.values())).answer()
        elif action < 0.96:
            time.advance(rng.choice([0.5, 2, 61]))
        else:
            link.die()
            desk.link_lost()
            link = Link(source, rng)
            desk.attach(link)
        check()

    for _ in range(400):
        link.answer()
        for each in copy_links.values():
            each.answer()
        time.advance(61)
    check()
    assert desk.idle, "something never left the desk"
    assert set(link.out) == {each.raw for each in hands if desk.is_open(each)}, (
        "a delivery is in nobody's hands"
    )
    everything = {*source.waiting, *link.out, *source.acked}
    assert everything == {f"m{i}" for i in range(60)}, "a message is gone"
    assert source.acked, "the simulation settled nothing: it proves nothing"
    assert moved_by_user
    assert {State.SETTLING, State.LOST} <= set(life.values())
