"""The batcher under a broker that does anything the seam allows, with a clock and a seed of the simulation's own.

A failing seed is replayed with `pytest tests/simulation/test_batcher.py -k "[SEED]"`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tests.simulation.simulated_time import SimulatedTime
from unimq import ConnectionFailed, Message, Rejected, SendOutcomeUnknown, SendTimeout, UnimqError
from unimq._batcher import Batcher
from unimq._pack import Pack
from unimq.driver import Batch, BatchResult, Copy, Done, Failed, Op

STEPS = 400
WINDOW = 40
MAX_BATCH = 7
SEEDS = range(60)


class Broker:
    """What arrived, in order."""

    def __init__(self) -> None:
        self.stored: list[str] = []


class Link:
    """Takes prefixes, answers late, early, in part, or never; keeps the order on the wire."""

    def __init__(self, broker: Broker, rng: random.Random) -> None:
        self.broker = broker
        self.rng = rng
        self.dead = False
        self.open: list[tuple[Batch, int, Done[BatchResult]]] = []
        self.late: list[Done[BatchResult]] = []

    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        if self.dead:
            done(BatchResult({i: Failed(ConnectionFailed("dead"), False) for i in range(len(batch))}))
            return len(batch)
        accepted = self.rng.choice([len(batch), len(batch), self.rng.randint(0, len(batch))])
        if accepted:
            self.open.append((batch, accepted, done))
            if self.rng.random() < 0.3:
                self.answer()
        return accepted

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        raise AssertionError("not used here")

    def close(self, timeout_s: float) -> None:
        self.die()

    def answer(self) -> None:
        """The oldest open batch is written, and answered: well, in part, or not at all."""
        if not self.open:
            return
        batch, count, done = self.open.pop(0)
        assert batch.ids is not None
        failures: dict[int, Failed] = {}
        for i in range(count):
            fate = self.rng.random()
            if fate < 0.05:
                failures[i] = Failed(Rejected("no"), True)
            elif fate < 0.1:
                failures[i] = Failed(ConnectionFailed("not begun"), False)
            else:
                self.broker.stored.append(batch.ids[i])
                if fate < 0.15:
                    failures[i] = Failed(ConnectionFailed("answer lost"), True)
        if self.rng.random() < 0.05:
            self.late.append(done)  # answers after everybody has given up
            return
        done(BatchResult(failures or None, [f"p{i}" for i in range(count)]))

    def die(self) -> None:
        self.dead = True
        while self.open:
            batch, count, done = self.open.pop(0)
            written = self.rng.randint(0, count)
            assert batch.ids is not None
            self.broker.stored += batch.ids[:written]
            done(BatchResult({i: Failed(ConnectionFailed("died"), i < written) for i in range(count)}))


def classify(error: BaseException, op: Op, handed_over: bool) -> UnimqError:
    assert isinstance(error, UnimqError)
    return error


@pytest.mark.parametrize("seed", SEEDS)
def test_every_message_has_one_true_outcome(seed: int) -> None:
    rng = random.Random(seed)
    time, broker = SimulatedTime(), Broker()
    batcher = Batcher(
        classify=classify, ticker=time, what="q", window=WINDOW, max_batch=MAX_BATCH, clock=time.clock,
        linger_s=rng.choice([None, 0.01]),
    )  # fmt: skip
    link = Link(broker, rng)
    batcher.attach(link)
    sent: dict[str, tuple[Pack, int]] = {}
    for step in range(STEPS):
        action = rng.random()
        if action < 0.6:
            placed = batcher.add(
                Message(b"x" * 9), b"x" * 9, None, f"m{step}", time.now + rng.choice([0.5, 5, 50])
            )
            if placed is not None:
                sent[f"m{step}"] = placed
        elif action < 0.8:
            link.answer()
        elif action < 0.86:
            batcher.unstall()
        elif action < 0.9:
            link.die()
            batcher.detach(ConnectionFailed("died"))
        elif action < 0.95 and link.dead:
            link = Link(broker, rng)
            batcher.attach(link)
        else:
            time.advance(rng.choice([0.01, 0.3, 2]))
        assert batcher.outstanding <= WINDOW
    for _ in range(2000):
        if all(pack.is_set for pack, _ in sent.values()):
            break
        if link.dead:
            link = Link(broker, rng)
            batcher.attach(link)
        batcher.unstall()
        link.answer()
        time.advance(0.1)
    for done in link.late:
        done(BatchResult())  # an answer nobody waits for changes nothing

    stored = set(broker.stored)
    confirmed: list[str] = []
    for name, (pack, index) in sent.items():
        assert pack.is_set, f"{name} has no outcome"
        try:
            receipt = pack.outcome(index)
        except SendTimeout as error:
            assert name not in stored, f"{name} was reported as not sent, and is at the broker"
            assert error.message is not None
            assert error.message.message_id == name
        except SendOutcomeUnknown as error:
            assert error.may_have_been_sent
        except Rejected:
            assert name not in stored
        else:
            assert receipt.message_id == name
            assert name in stored, f"{name} was confirmed and is not at the broker"
            confirmed.append(name)
    assert len(broker.stored) == len(stored), "the batcher sent something twice by itself"
    assert confirmed, "the simulation confirmed nothing: it proves nothing"
    assert batcher.outstanding == 0
    assert batcher._bytes == 0


@pytest.mark.parametrize("seed", range(10))
def test_order_is_kept_through_dead_links(seed: int) -> None:
    rng = random.Random(seed)
    time, broker = SimulatedTime(), Broker()

    class Faithful(Link):
        def answer(self) -> None:
            if self.open:
                batch, count, done = self.open.pop(0)
                assert batch.ids is not None
                self.broker.stored += batch.ids[:count]
                done(BatchResult())

        def die(self) -> None:
            """Nothing was written: everything is queued again."""
            self.dead = True
            while self.open:
                _, count, done = self.open.pop(0)
                done(BatchResult({i: Failed(ConnectionFailed("died"), False) for i in range(count)}))

    batcher = Batcher(
        classify=classify, ticker=time, what="q", window=WINDOW, max_batch=MAX_BATCH, clock=time.clock
    )
    link = Faithful(broker, rng)
    batcher.attach(link)
    names: list[str] = []
    for step in range(STEPS):
        action = rng.random()
        if action < 0.05:
            link.die()
            batcher.detach(ConnectionFailed("died"))
            link = Faithful(broker, rng)
        elif action < 0.1:
            batcher.attach(link)
        elif action < 0.7:
            if batcher.add(Message(b""), b"", None, f"m{step}", 1e9) is not None:
                names.append(f"m{step}")
        else:
            link.answer()
            batcher.unstall()
    batcher.attach(link)
    while batcher.outstanding:
        link.answer()
        batcher.unstall()
    assert broker.stored == names
