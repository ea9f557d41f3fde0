"""Proof 6: a replay of 1,000 dead letters that is killed half way and run again loses none; other subscriptions see nothing.

    make proofs-worker ARGS='-k replay'

`UNIMQ_SHORT=1`: 300.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import unimq
from integration.proofs.kit import SHORT
from integration.worker.kit import until
from unimq import Message, Subscription, Topic

ROOT = Path(__file__).resolve().parents[2]
LETTERS = 300 if SHORT else 1_000
RATE = 400.0
BATCH = 100  # of the replay: so many copies may be written and not acknowledged when it is killed
REPLAY = f"""
import sys, unimq
from unimq import Subscription, Topic
with unimq.connect(sys.argv[1]) as mq:
    print("begins", flush=True)
    mq.dead_letters(Subscription(Topic(sys.argv[2]), "billing")).replay(rate={RATE})
"""


@pytest.mark.timeout(120)
def test_a_replay_killed_half_way_loses_none(
    url: str, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    topic = Topic(unique("replay"))
    billing, audit = Subscription(topic, "billing"), Subscription(topic, "audit")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"}
    with unimq.connect(url) as mq:
        for each in (billing, audit):
            mq.declare(each)
        mq.send_many(topic, [Message(b"%d" % n) for n in range(LETTERS)]).raise_for_errors()
        assert Counter(_taken(mq, audit)) == {b"%d" % n: 1 for n in range(LETTERS)}
        with mq.receiver(billing, prefetch=500) as receiver:
            left = LETTERS
            while left:
                for delivery in receiver.receive(500, timeout_s=10):
                    delivery.dead_letter("fatal")
                    left -= 1
            receiver.flush()
        dead = mq.dead_letters(billing)
        until(lambda: dead.count() == LETTERS, "all are dead")
        command = [sys.executable, "-c", REPLAY, url, topic.name]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            until(lambda: (mq.stats(billing).depth or 0) >= LETTERS // 3, "some are back")
            assert process.poll() is None, "it was to be killed at work"
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        before = mq.stats(billing).depth or 0
        until(lambda: (dead.count() or 0) >= LETTERS - before, "the rest comes back to its place")
        again = dead.replay()
        back = Counter(_taken(mq, billing))
        seen_by_audit = len(_taken(mq, audit))
        left_dead = dead.count()
        for each in (billing, audit):
            mq.delete(each)
    duplicates = back.total() - len(back)
    figure(
        f"replay, {url.rsplit('@')[-1]}: {LETTERS} dead letters, killed with {before} back, {again} at the second run, "
        f"{len(back)} different ones are back, {duplicates} twice; the other subscription saw {seen_by_audit}"
    )
    assert set(back) == {b"%d" % n for n in range(LETTERS)}
    assert duplicates <= BATCH and not seen_by_audit and not left_dead


def _taken(mq: unimq.Client, source: Subscription) -> list[bytes | None]:
    """Everything that is there, acknowledged."""
    bodies: list[bytes | None] = []
    with mq.receiver(source, prefetch=500) as receiver:
        while found := receiver.receive(500, timeout_s=1):
            bodies += [delivery.body for delivery in found]
            receiver.ack(found)
    return bodies
