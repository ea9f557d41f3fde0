"""The plan: pure values, one place per delay, the group's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unimq.address import Queue, Subscription, Topic
from unimq.driver import IN_HAND, NATIVE, Facts, Place
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq_kafka import ADAPTER

POLICY = Retry(delayed_s=[1.5, 10])


def test_places_of_a_queue() -> None:
    plan = ADAPTER.plan(Queue("q"), POLICY, Facts())
    assert plan.release is NATIVE
    assert isinstance(plan.dead_write, Place)
    assert plan.dead_write.text == "q.dlq"
    assert [place.text for place in plan.also_read] == ["q.retry.1500", "q.retry.10000"]
    assert [place.text for place in plan.topology[0].places] == ["q.retry.1500", "q.retry.10000", "q.dlq"]
    assert plan.dead_read == (plan.dead_write,)
    assert plan.replay is not None
    assert plan.replay.ref == Queue("q")


@pytest.mark.parametrize(
    ("wish", "taken"), [(0.0, 0.1), (0.3, 0.5), (1.2, 1.5), (1.6, 2.0), (7 * 86_400, 7 * 86_400)]
)
def test_a_delay_takes_the_next_longer_place(wish: float, taken: float) -> None:
    place = ADAPTER.plan(Queue("q"), POLICY, Facts()).retry(wish)
    assert place.delay_s == taken
    assert place.ref.like == "q"


def test_beyond_the_longest_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        ADAPTER.plan(Queue("q"), POLICY, Facts()).retry(8 * 86_400)


def test_a_replay_goes_to_the_group_that_failed() -> None:
    plan = ADAPTER.plan(Subscription(Topic("t"), "s"), POLICY, Facts())
    assert plan.replay is not None
    assert plan.replay.text == "t.s.retry.100"


def test_ordered_has_no_delays_and_refuses_release_in_the_core() -> None:
    plan = ADAPTER.plan(Queue("q", ordered=True), Retry(immediate=1, delayed_s=[]), Facts())
    assert plan.release is IN_HAND
    assert plan.also_read == []


def test_without_a_policy_nothing_is_copied() -> None:
    plan = ADAPTER.plan(Queue("q"), None, Facts())
    assert plan.dead_write is None
    with pytest.raises(Unsupported):
        plan.retry(1.0)


@pytest.mark.parametrize("source", [Topic("t"), Subscription(Topic("t"))])
def test_what_has_no_group_has_no_places(source: Topic | Subscription) -> None:
    plan = ADAPTER.plan(source, POLICY, Facts())
    assert plan.dead_write is None
    with pytest.raises(Unsupported):
        plan.retry(1.0)


def test_the_group_of_the_url_has_places_of_its_own() -> None:
    plan = ADAPTER.plan(Queue("q"), POLICY, Facts(extra={"group": "g"}))
    assert plan.dead_read[0].text == "q.g.dlq"
    assert plan.replay is not None
    assert plan.replay.text == "q.g.retry.100"


def test_importing_and_planning_need_no_client_library() -> None:
    code = (
        "import sys, unimq_kafka as k; from unimq.driver import Facts, Op; from unimq.address import Queue\n"
        "k.ADAPTER.plan(Queue('q'), None, Facts()); k.ADAPTER.classify(ValueError('x'), op=Op.SEND, handed_over=True)\n"
        "assert not [m for m in sys.modules if m.startswith('confluent_kafka')]"
    )
    path = [entry for entry in sys.path if entry]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"], check=True, timeout=30
    )
