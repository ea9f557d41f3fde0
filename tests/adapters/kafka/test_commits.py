"""One commit in flight; what failed is tried again; what was not committed when its partition went is lost."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from unimq.delivery import Delivery
from unimq.driver import SettleResult
from unimq_kafka import commits
from unimq_kafka.commits import Committer, Waiting
from unimq_kafka.completions import Completions
from unimq_kafka.offsets import Lane


class Consumer:
    """Records commits; a test answers them."""

    def __init__(self) -> None:
        self.sent: list[list[TopicPartition]] = []

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        self.sent.append(offsets)
        return None if asynchronous else offsets


class Error:
    """A KafkaError as a callback brings it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def fatal(self) -> bool:
        return False


class One:
    def __init__(self, lane: Lane, offset: int) -> None:
        self.lane, self.offset = lane, offset


class Desk:
    def __init__(self) -> None:
        self.completions = Completions()
        self.consumer = Consumer()
        self.held: list[Delivery] = []
        self.committer = Committer(self.completions, lambda: self.held)
        self.committer.consumer = self.consumer
        self.results: list[SettleResult] = []

    def ack(self, lane: Lane, *offsets: int) -> None:
        for offset in offsets:
            lane.deliver(offset, offset)
            lane.done(offset)
        lane.advance()
        self.committer.dirty.add(lane)
        self.committer.wait(Waiting([One(lane, offset) for offset in offsets], (), self.results.append))

    def answer(self, error: str | None = None, of: int = -1) -> list[SettleResult]:
        partitions: list[Any] = self.consumer.sent[of]
        self.committer.answered(None if error is None else Error(error), partitions)
        self.completions.run()
        return self.results


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def lane() -> Lane:
    return Lane("t", 0, None)


def test_what_gathers_goes_with_the_next(desk: Desk, lane: Lane) -> None:
    desk.ack(lane, 0)
    desk.committer.start()
    desk.ack(lane, 1)
    desk.ack(lane, 2)
    desk.committer.start()
    assert [one.offset for one in desk.consumer.sent[0]] == [1]
    assert len(desk.consumer.sent) == 1
    assert len(desk.answer()) == 1
    desk.committer.start()
    assert [one.offset for one in desk.consumer.sent[1]] == [3]
    assert len(desk.answer()) == 3
    assert desk.committer.idle
    assert lane.committed == 3


@pytest.mark.parametrize("error", ["REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "_TRANSPORT"])
def test_what_failed_is_tried_again(
    desk: Desk, lane: Lane, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_PAUSE_S", 0.0)
    desk.ack(lane, 0)
    desk.committer.start()
    assert desk.answer(error) == []
    desk.committer.start()
    assert [one.offset for one in desk.consumer.sent[1]] == [1]
    (result,) = desk.answer()
    assert not result.lost
    assert desk.committer.fatal is None


def test_a_failed_commit_is_not_hammered(desk: Desk, lane: Lane) -> None:
    desk.ack(lane, 0)
    desk.committer.start()
    desk.answer("_TRANSPORT")
    began = time.monotonic()
    desk.committer.start()
    assert len(desk.consumer.sent) == 1 or time.monotonic() - began > commits.RETRY_PAUSE_S


def test_a_missing_right_is_fatal(desk: Desk, lane: Lane) -> None:
    desk.ack(lane, 0)
    desk.committer.start()
    desk.answer("GROUP_AUTHORIZATION_FAILED")
    assert desk.committer.fatal is not None
    desk.committer.give_up()
    desk.completions.run()
    assert len(desk.results[0].lost) == 1


def test_a_revoke_sends_beside_the_one_that_is_out(desk: Desk, lane: Lane) -> None:
    desk.ack(lane, 0)
    desk.committer.start()
    desk.ack(lane, 1)
    desk.committer.send()
    lane.gone = True
    other = Lane("t", 1, None)
    desk.ack(other, 7)
    desk.committer.start()
    assert len(desk.consumer.sent) == 2
    desk.answer(of=0)
    assert len(desk.results) == 1
    desk.answer(of=1)
    desk.committer.start()
    desk.answer(of=2)
    assert other.committed == 8
    assert [list(result.lost) for result in desk.results] == [[], [], []]


def test_a_revoked_partition_whose_commit_fails_is_lost(desk: Desk, lane: Lane) -> None:
    desk.ack(lane, 0)
    desk.committer.send()
    lane.gone = True
    (result,) = desk.answer("ILLEGAL_GENERATION")
    assert len(result.lost) == 1
    assert desk.committer.idle


def test_what_went_uncommitted_is_lost(desk: Desk, lane: Lane) -> None:
    desk.ack(lane, 0, 1)
    lane.gone = True
    desk.committer.start()
    desk.completions.run()
    assert not desk.consumer.sent
    assert [one.offset for one in desk.results[0].lost] == [0, 1]  # type: ignore[attr-defined]


def test_completions_never_nest() -> None:
    completions = Completions()
    depth = [0, 0]

    def done(left: int) -> None:
        depth[0] += 1
        depth[1] = max(depth)
        if left:
            completions.add(done, left - 1)
            completions.run()
        depth[0] -= 1

    completions.add(done, 5_000)
    completions.run()
    assert depth == [0, 1]


def test_the_name_of_an_error_is_the_librarys() -> None:
    assert KafkaError(KafkaError.ILLEGAL_GENERATION).name() == "ILLEGAL_GENERATION"
