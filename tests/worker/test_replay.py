"""Dead letters back into life: to their own group, begun anew, confirmed before they are removed."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import unimq
from unimq import Delivery, Message, Queue, Retry, Subscription, Topic
from unimq.registry import find
from unimq.testing.running import run
from unimq.worker import Worker

A, B = Queue("a"), Queue("b")
ONCE = Retry(immediate=0, delayed_s=[])


def die(mq: unimq.Client, source: Queue | Subscription, count: int, reason: str = "why") -> None:
    with mq.receiver(source) as receiver:
        left = count
        while left:
            for delivery in receiver.receive(min(left, 100), timeout_s=5):
                delivery.dead_letter(reason)
                left -= 1
        receiver.flush()


def filled(mq: unimq.Client, count: int, **fields: Any) -> None:
    mq.declare(A)
    mq.send_many(
        A, [Message(b"%d" % n, message_id=f"id-{n}", **fields) for n in range(count)]
    ).raise_for_errors()


def test_replay_begins_anew_and_keeps_the_history(unimq_url: str, unimq_client: unimq.Client) -> None:
    filled(unimq_client, 1, key="k", headers={"tenant": "x"})
    dies = Worker(unimq_url)

    @dies.handler(A, retry=Retry(immediate=1, delayed_s=[5]))
    def fail(body: bytes) -> None:
        raise ValueError("broken")

    run(dies)
    (before,) = unimq_client.dead_letters(A).browse()
    assert unimq_client.dead_letters(A).replay() == 1
    assert unimq_client.dead_letters(A).count() == 0
    seen: list[tuple[Any, ...]] = []
    lives = Worker(unimq_url)

    @lives.handler(A, retry=ONCE)
    def work(body: bytes, delivery: Delivery) -> None:
        meta = delivery.metadata
        seen.append(
            (delivery.attempt, delivery.message_id, delivery.key, dict(delivery.headers), meta.copies)
        )
        assert "unimq-reason" not in meta.unimq and "unimq-first-failed-at" not in meta.unimq
        raise ValueError("broken again")

    run(lives)
    copies = before.delivery.metadata.copies
    assert seen == [(1, "id-0", "k", {"tenant": "x"}, copies + 1)]
    (after,) = unimq_client.dead_letters(A).browse()
    assert after.attempts == 1
    assert [line.split(" ", 1)[1] for line in after.history] == [
        "exhausted attempt=4", "replayed", "exhausted attempt=1",
    ]  # fmt: skip


def test_limit_where_and_to(unimq_client: unimq.Client) -> None:
    filled(unimq_client, 30)
    unimq_client.declare(B)
    die(unimq_client, A, 30)
    dead = unimq_client.dead_letters(A)
    assert dead.replay(limit=5) == 5
    assert dead.count() == 25
    even = dead.replay(where=lambda letter: int(letter.body or b"0") % 2 == 0, to=B)
    assert {int(each.body or b"") % 2 for each in unimq_client.browse(B)} == {0}
    assert len(unimq_client.browse(B)) == even
    assert dead.count() == 25 - even
    assert [int(letter.body or b"") for letter in dead.browse()] == [n for n in range(5, 30) if n % 2], (
        "in their order"
    )
    assert dead.replay(limit=0) == 0


def test_it_is_bounded_by_what_lay_there_when_it_began(unimq_url: str, unimq_client: unimq.Client) -> None:
    """What dies again at once comes behind: a replay is not a hot loop."""
    filled(unimq_client, 50)
    die(unimq_client, A, 50)
    worker = Worker(unimq_url)
    tries: list[bytes] = []

    @worker.handler(A, retry=ONCE)
    def fail(body: bytes) -> None:
        tries.append(body)
        raise ValueError

    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        assert unimq_client.dead_letters(A).replay(rate=500) == 50
        deadline = time.monotonic() + 5
        while len(tries) < 50 and time.monotonic() < deadline:
            threading.Event().wait(0.01)
    finally:
        worker.stop()
        thread.join(10)
    assert len(tries) == 50
    assert unimq_client.dead_letters(A).count() == 50


def test_only_the_group_that_failed_sees_it_again(unimq_client: unimq.Client) -> None:
    topic = Topic("t")
    one, other = Subscription(topic, "one"), Subscription(topic, "other")
    unimq_client.declare(one)
    unimq_client.declare(other)
    unimq_client.send(topic, b"x")
    die(unimq_client, one, 1)
    assert unimq_client.dead_letters(one).replay() == 1
    assert [each.body for each in unimq_client.browse(one)] == [b"x"]
    assert len(unimq_client.browse(other)) == 1
    assert unimq_client.dead_letters(other).replay() == 0


def test_the_rate_is_kept(unimq_client: unimq.Client) -> None:
    filled(unimq_client, 21)
    die(unimq_client, A, 21)
    began = time.monotonic()
    assert unimq_client.dead_letters(A).replay(rate=20) == 21
    assert time.monotonic() - began >= 0.9


@pytest.mark.parametrize("fault", ["lose_confirms", "drop_in_next_batch", "drop_connections"])
def test_a_line_that_breaks_half_way_leaves_duplicates_never_a_gap(unimq_url: str, fault: str) -> None:
    broker = find("memory").broker(unimq_url)
    with unimq.connect(unimq_url) as mq:
        filled(mq, 300)
        die(mq, A, 300)
        armed = False

        def arm(letter: unimq.DeadLetter) -> bool:
            nonlocal armed
            if not armed and letter.body == b"150":
                armed = True
                getattr(broker, fault)()
                if fault == "lose_confirms":
                    threading.Timer(0.1, broker.drop_connections).start()
            return True

        with pytest.raises(unimq.UnimqError) as failed:
            mq.dead_letters(A).replay(where=arm)
        assert "run it again for the rest" in "".join(failed.value.__notes__)
    with unimq.connect(unimq_url) as mq:
        mq.dead_letters(A).replay()
        assert mq.dead_letters(A).count() == 0
        bodies = [each.body for each in mq.browse(A, limit=1000)]
    assert set(bodies) == {b"%d" % n for n in range(300)}
    assert len(bodies) <= 300 + 100, "at most one batch twice"


def test_more_left_behind_than_can_be_held_stays(
    unimq_client: unimq.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unimq._replay.HELD_MAX", 20)
    monkeypatch.setattr("unimq._replay.BATCH", 10)
    filled(unimq_client, 100)
    die(unimq_client, A, 100)
    dead = unimq_client.dead_letters(A)
    assert dead.replay(where=lambda letter: letter.body == b"99") == 1
    assert sorted(int(letter.body or b"") for letter in dead.browse(limit=200)) == list(range(99))
    assert all(letter.reason == "why" for letter in dead.browse(limit=200))


@pytest.mark.unimq_async(timeout_s=20)
async def test_async_and_cancelled(unimq_url: str) -> None:
    with unimq.connect(unimq_url) as mq:
        filled(mq, 40)
        die(mq, A, 40)
    async with unimq.connect_async(unimq_url) as mq:
        task = asyncio.create_task(mq.dead_letters(A).replay(rate=10))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.3)
        left = await mq.dead_letters(A).count()
        assert left is not None and 0 < left <= 40
        await asyncio.sleep(0.5)
        assert await mq.dead_letters(A).count() == left, "nothing goes on behind the caller's back"


def test_what_cannot_be_is_refused(unimq_client: unimq.Client) -> None:
    unimq_client.declare(A)
    dead = unimq_client.dead_letters(A)
    with pytest.raises(ValueError, match="limit"):
        dead.replay(limit=-1)
    with pytest.raises(ValueError, match="rate"):
        dead.replay(rate=0)
    with pytest.raises(unimq.InvalidMessage):
        dead.replay(to="queue:b")  # type: ignore[arg-type]
