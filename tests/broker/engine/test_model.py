"""Random programs on one queue, beside a model that keeps plain lists and sorts them every time.

At every step each message ever put is in exactly one state, the same as in the model; order, counts, bytes and the next
due time agree; in the end nothing is lost, nothing is there twice, and the engine holds no byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unimq.broker.engine import Engine, Entry, ManualClock, QueueOptions, Refusal, make_stored
from unimq.broker.engine.message import DEFERRED, DELAYED, LEASED, READY

from .kit import declared

OWNERS = ("a", "b")


@dataclass
class Known:
    """One message as the model knows it. `state` is ready, leased, delayed, deferred or how it ended."""

    seq: int
    state: str
    priority: int
    size_bytes: int
    ttl_s: float | None
    position: int = 0
    expires_at: float | None = None
    due_at: float | None = None
    owner: str = ""
    deadline: float | None = None
    locked: int = 0  # the order of locking: it breaks ties of deadlines
    deliveries: int = 0
    redelivered: bool = False
    was_deferred: bool = False


seconds = st.sampled_from([0.0, 0.5, 0.5, 1.0, 1.0, 2.0, 7.0])
messages = st.tuples(
    st.integers(0, 4),  # priority
    st.sampled_from([None, None, 1.0, 4.0]),  # ttl_s
    st.sampled_from([None, None, None, 0.0, 1.0, 3.0]),  # delay_s
    st.sampled_from([None, None, None, "x", "y"]),  # message_id
    st.binary(max_size=2),
)
choices = st.lists(st.integers(0, 30), min_size=1, max_size=4)


class QueueAndModel(RuleBasedStateMachine):
    @initialize(
        max_priority=st.sampled_from([None, 0, 3]),
        ttl_s=st.sampled_from([None, 2.0, 5.0]),
        lock_s=st.sampled_from([None, 1.0, 3.0]),
        max_delivery_count=st.sampled_from([None, 1, 2]),
        count_on=st.sampled_from(["delivery", "release"]),
        requeue_position=st.sampled_from(["original", "back", "head"]),
        max_length=st.sampled_from([None, None, 3]),
        overflow=st.sampled_from(["drop-head", "reject"]),
        dedup_window_s=st.sampled_from([None, 3.0]),
    )
    def begin(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.engine = Engine(self.clock, max_bytes=1_000_000)
        self.dead = declared(self.engine, "dlq")
        self.options = QueueOptions(dead_letter="dlq", **options)
        self.queue = declared(self.engine, "q", dead_letter="dlq", **options)
        self.known: dict[int, Known] = {}
        self.handles: list[Entry] = []  # every handle ever leased, valid or void
        self.ids: dict[str, float] = {}
        self.last = self.locks = 0
        self.first = -(10**9)

    # ------------------------------------------------------------------------------------------------ the model

    def among(self, state: str) -> list[Known]:
        return [k for k in self.known.values() if k.state == state]

    def in_order(self) -> list[Known]:
        return sorted(self.among("ready"), key=lambda k: (-k.priority, k.position))

    def arrive(self, k: Known, at: float) -> None:
        k.state = "ready"
        self.last += 1
        k.position = self.last
        ends = [at + ttl for ttl in (k.ttl_s, self.options.ttl_s) if ttl is not None]
        k.expires_at = min(ends, default=None)
        limit = self.options.max_length
        if limit is not None and self.options.overflow == "drop-head":
            for head in self.in_order()[: max(0, len(self.in_order()) - limit)]:
                head.state = "overflow"

    def come_back(self, k: Known, counted: bool) -> None:
        k.redelivered = True
        if self.options.count_on == "release":
            k.deliveries += counted
        else:
            k.deliveries -= not counted
        most = self.options.max_delivery_count
        if most is not None and k.deliveries >= most:
            k.state = "max-delivery"
        elif k.expires_at is not None and k.expires_at <= self.clock.now():
            k.state = "expired"
        elif k.was_deferred:
            k.state = "deferred"
        else:
            k.state = "ready"
            if self.options.requeue_position == "back":
                self.last += 1
                k.position = self.last
            elif self.options.requeue_position == "head":
                self.first += 1
                k.position = self.first

    def lease_to(self, k: Known, owner: str) -> None:
        k.state, k.owner, k.deadline = "leased", owner, None
        k.deliveries += self.options.count_on == "delivery"
        self.lock(k)

    def lock(self, k: Known) -> None:
        if self.options.lock_s is None:
            return
        deadline = self.clock.now() + self.options.lock_s
        if k.deadline != deadline:  # renewed in the very moment of its lock, it keeps its place
            self.locks += 1
            k.locked = self.locks
            k.deadline = deadline

    def time_passes(self) -> None:
        now = self.clock.now()
        for k in sorted(self.among("delayed"), key=lambda k: (k.due_at, k.seq)):
            assert k.due_at is not None
            if k.due_at <= now:
                self.arrive(k, k.due_at)
        for k in sorted(self.among("leased"), key=lambda k: (k.deadline or 0, k.locked)):
            if k.deadline is not None and k.deadline <= now:
                self.come_back(k, True)
        for k in self.among("ready") + self.among("deferred"):
            if k.expires_at is not None and k.expires_at <= now:
                k.state = "expired"
        self.ids = {i: until for i, until in self.ids.items() if until > now}

    # -------------------------------------------------------------------------------------------------- the steps

    @rule(fields=st.lists(messages, min_size=1, max_size=5))
    def put(self, fields: list[tuple[int, float | None, float | None, str | None, bytes]]) -> None:
        for each in fields:
            self.put_one(*each)

    def put_one(
        self, priority: int, ttl_s: float | None, delay_s: float | None, message_id: str | None, body: bytes
    ) -> None:
        options, now = self.options, self.clock.now()
        stored = make_stored(body, message_id=message_id, priority=priority, ttl_s=ttl_s)
        outcome = self.queue.put(stored, None if delay_s is None else now + delay_s)
        full = options.max_length is not None and len(self.among("ready")) >= options.max_length
        if message_id in self.ids:
            assert outcome is Refusal.DUPLICATE
        elif full and options.overflow == "reject" and not delay_s:
            assert outcome is Refusal.QUEUE_FULL
        else:
            assert isinstance(outcome, Entry)
            k = Known(
                outcome.seq, "delayed", min(priority, options.max_priority or 0), stored.size_bytes, ttl_s
            )
            assert k.seq not in self.known
            self.known[k.seq] = k
            if delay_s:
                k.due_at = now + delay_s
            else:
                self.arrive(k, now)
            if message_id is not None and options.dedup_window_s is not None:
                self.ids[message_id] = now + options.dedup_window_s

    # Without these conditions most programs would purge and lease an empty queue.
    @precondition(lambda self: self.among("ready"))
    @rule(owner=st.sampled_from(OWNERS), n=st.integers(1, 4))
    def lease(self, owner: str, n: int) -> None:
        self.took(self.queue.lease(owner, n), self.in_order()[:n], owner)

    @precondition(lambda self: self.among("ready"))
    @rule(owner=st.sampled_from(OWNERS), n=st.integers(1, 4))
    def lease_even_ones(self, owner: str, n: int) -> None:
        expected = [k for k in self.in_order() if k.seq % 2 == 0][:n]
        self.took(self.queue.lease(owner, n, wants=lambda e: e.seq % 2 == 0), expected, owner)

    @precondition(lambda self: self.among("deferred"))
    @rule(owner=st.sampled_from(OWNERS), picks=choices)
    def receive_deferred(self, owner: str, picks: list[int]) -> None:
        expected = [
            self.known[p]
            for p in dict.fromkeys(picks)
            if p in self.known and self.known[p].state == "deferred"
        ]
        self.took(self.queue.receive_deferred(owner, picks), expected, owner)

    def took(self, entries: list[Entry], expected: list[Known], owner: str) -> None:
        for k in expected:
            self.lease_to(k, owner)
        assert [e.seq for e in entries] == [k.seq for k in expected]
        assert [(e.redelivered, e.delivery_count) for e in entries] == [
            (k.redelivered, k.deliveries) for k in expected
        ]
        self.handles += entries

    @precondition(lambda self: self.handles)
    @rule(
        picks=choices,
        verb=st.sampled_from(["ack", "release", "release uncounted", "dead_letter", "defer", "renew"]),
    )
    def settle(self, picks: list[int], verb: str) -> None:
        """Handles of any age: those that are void must be answered as lost and change nothing."""
        chosen = [self.handles[-1 - p % len(self.handles)] for p in picks]
        lost = []
        valid = {id(e) for e in self.handles if self.holds(e)}
        for e in chosen:
            k = self.known[e.seq]
            if id(e) not in valid:
                lost.append(e)
                continue
            if verb == "renew":
                self.lock(k)
                continue
            valid.discard(id(e))
            if verb == "ack":
                k.state = "acked"
            elif verb == "dead_letter":
                k.state = "why"
            elif verb == "defer":
                k.redelivered = k.was_deferred = True
                outlived = k.expires_at is not None and k.expires_at <= self.clock.now()
                k.state = "expired" if outlived else "deferred"
            else:
                self.come_back(k, verb == "release")
        if verb == "dead_letter":
            answer = self.queue.dead_letter(chosen, "why")
        elif verb == "release uncounted":
            answer = self.queue.release(chosen, count=False)
        else:
            answer = getattr(self.queue, verb)(chosen)
        assert [id(e) for e in answer] == [id(e) for e in lost]

    def holds(self, handle: Entry) -> bool:
        """The newest handle of a message that the model says is leased."""
        newest = next(e for e in reversed(self.handles) if e.seq == handle.seq)
        return newest is handle and self.known[handle.seq].state == "leased"

    @precondition(lambda self: self.among("leased"))
    @rule(owner=st.sampled_from(OWNERS))
    def owner_vanishes(self, owner: str) -> None:
        expected = sorted((k for k in self.among("leased") if k.owner == owner), key=lambda k: k.position)
        for k in expected:
            self.come_back(k, True)
        assert self.queue.drop_owner(owner) == len(expected)

    @precondition(lambda self: self.among("delayed"))
    @rule(pick=st.integers(0, 30))
    def cancel(self, pick: int) -> None:
        k = self.known.get(pick)
        there = k is not None and k.state == "delayed"
        assert (self.queue.cancel_scheduled(pick) is not None) == there
        if there and k is not None:
            k.state = "cancelled"

    @precondition(lambda self: len(self.among("ready")) > 6)
    @rule(delayed=st.booleans())
    def purge(self, delayed: bool) -> None:
        expected = self.among("ready") + (self.among("delayed") if delayed else [])
        for k in expected:
            k.state = "purged"
        assert self.queue.purge(delayed=delayed) == len(expected)

    @precondition(lambda self: self.known)
    @rule(by_s=seconds, ticked=st.booleans())
    def advance(self, by_s: float, ticked: bool) -> None:
        self.clock.advance(by_s)
        self.time_passes()
        if ticked:
            self.engine.tick()
            due = self.engine.due()
            assert due is None or due > self.clock.now()

    # --------------------------------------------------------------------------------------------- always true

    @invariant()
    def each_message_is_in_the_state_that_the_model_says(self) -> None:
        for name, state in (
            ("ready", READY),
            ("leased", LEASED),
            ("delayed", DELAYED),
            ("deferred", DEFERRED),
        ):
            there = [e.seq for e in self.queue.browse(1_000, states=(state,))]
            assert there == sorted(k.seq for k in self.among(name)), name
        depth = self.queue.depth()
        waiting = [k for k in self.known.values() if k.state in ("ready", "leased", "delayed", "deferred")]
        assert depth.total == len(waiting)
        assert depth.held_bytes == sum(k.size_bytes for k in waiting)
        assert self.queue.ready_bytes == sum(k.size_bytes for k in self.among("ready"))
        assert sum(self.queue.removed.values()) == len(self.known) - len(waiting)

    @invariant()
    def the_dead_lie_in_their_place_once_with_their_reason(self) -> None:
        reasons = ("expired", "overflow", "max-delivery", "why")
        expected = sorted(k.state for k in self.known.values() if k.state in reasons)
        assert sorted(e.stored.deaths[0].reason for e in self.dead.browse(1_000)) == expected

    @invariant()
    def the_next_due_time_is_exact(self) -> None:
        times = [k.due_at for k in self.among("delayed")] + [k.deadline for k in self.among("leased")]
        times += [k.expires_at for k in self.among("ready") + self.among("deferred")]
        assert self.queue.due() == min(
            [t for t in times if t is not None] + list(self.ids.values()), default=None
        )
        assert self.engine.due() == self.queue.due()

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.clock.advance(100)
        self.time_passes()
        self.engine.tick()
        for owner in OWNERS:
            self.queue.drop_owner(owner)
        self.queue.ack(self.queue.lease("last", 1_000))
        self.queue.ack(self.queue.receive_deferred("last", list(self.queue.deferred)))
        self.dead.ack(self.dead.lease("last", 1_000))
        assert self.queue.depth().total == 0
        assert self.engine.budget.held_bytes == 0


# when it fails, minimising takes its time
TestQueueAndModel = pytest.mark.timeout(300)(QueueAndModel.TestCase)
TestQueueAndModel.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
