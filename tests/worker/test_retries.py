"""A failing message: tried a finite number of times, without blocking others, then at rest with its reason."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import unimq
from unimq import Delivery, Message, Queue, Retry, RetryLater, Subscription, Topic, Unsupported
from unimq.registry import find
from unimq.retry import DeadLetter
from unimq.testing.running import run
from unimq.worker import Verb, Worker

A = Queue("a")
NO_DELAY = Retry(immediate=2, delayed_s=[])


def fill(url: str, *contents: Any) -> None:
    with unimq.connect(url) as mq:
        mq.declare(A)
        mq.send_many(
            A, [each if isinstance(each, Message) else Message(each) for each in contents]
        ).raise_for_errors()


def letters(url: str, source: Queue | Subscription = A) -> list[unimq.DeadLetter]:
    with unimq.connect(url) as mq:
        return mq.dead_letters(source).browse()


def broken(body: bytes) -> None:
    raise ValueError("broken")


async def broken_async(body: bytes) -> None:
    raise ValueError("broken")


@pytest.mark.parametrize("function", [broken, broken_async])
def test_stages_of_tries_in_hand_joined_by_delays(unimq_url: str, function: Any) -> None:
    fill(unimq_url, b"1")
    worker = Worker(unimq_url)
    worker.handler(A, retry=Retry(immediate=1, delayed_s=[5, 3600]))(function)
    outcomes = run(worker)
    assert [(outcome.attempt, outcome.verb) for outcome in outcomes] == [
        (1, Verb.IN_HAND), (2, Verb.RETRIED), (3, Verb.IN_HAND), (4, Verb.RETRIED), (5, Verb.IN_HAND), (6, Verb.DEAD),
    ]  # fmt: skip
    (letter,) = letters(unimq_url)
    assert (letter.reason, letter.attempts, letter.error_type) == ("exhausted", 6, "builtins.ValueError")
    assert letter.description == "broken"
    assert letter.first_failed_at is not None and letter.died_at is not None


def test_it_waits_its_delay_and_others_pass(unimq_url: str) -> None:
    """The retry lies at the broker: nothing is held here, and nothing comes before its time."""
    clock = find("memory").broker(unimq_url).clock
    seen: list[tuple[bytes, int]] = []
    news = threading.Condition()
    worker = Worker(unimq_url)

    @worker.handler(A, retry=Retry(immediate=0, delayed_s=[60], jitter=0))
    def once(body: bytes, delivery: Delivery) -> None:
        with news:
            seen.append((body, delivery.attempt))
            news.notify_all()
        if body == b"bad" and delivery.attempt == 1:
            raise ValueError

    def wait_for(count: int) -> None:
        with news:
            assert news.wait_for(lambda: len(seen) >= count, 5)

    fill(unimq_url, b"bad")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_for(1)
        fill(unimq_url, b"good")
        wait_for(2)
        with unimq.connect(unimq_url) as mq:
            deadline = threading.Event()
            for _ in range(500):
                stats = mq.stats(A)
                if stats.delayed == 1 and stats.in_flight == 0:
                    break
                deadline.wait(0.01)
            assert (stats.delayed, stats.in_flight) == (1, 0)
        clock.advance(59)
        fill(unimq_url, b"good")
        wait_for(3)
        assert seen == [(b"bad", 1), (b"good", 1), (b"good", 1)]
        clock.advance(1.5)
        wait_for(4)
        assert seen[-1] == (b"bad", 2)
    finally:
        worker.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("raises", "options", "reason", "tries"),
    [
        (ValueError("x"), {"fatal": ValueError}, "fatal", 1),
        (KeyError("x"), {"fatal": (ValueError, LookupError)}, "fatal", 1),
        (ValueError("x"), {"retry_on": (OSError,)}, "fatal", 1),
        (ConnectionError("x"), {"retry_on": OSError}, "exhausted", 3),
        (DeadLetter("no such order", "order 7"), {}, "no such order", 1),
        (RetryLater(5), {"retry": Retry(immediate=0, delayed_s=[1])}, "exhausted", 2),
    ],
)
def test_classes_and_signals_decide(
    unimq_url: str, raises: Exception, options: dict[str, Any], reason: str, tries: int
) -> None:
    fill(unimq_url, b"1")
    worker = Worker(unimq_url)

    @worker.handler(A, **{"retry": NO_DELAY, **options})
    def fails(body: bytes) -> None:
        raise raises

    outcomes = run(worker)
    assert len(outcomes) == tries
    (letter,) = letters(unimq_url)
    assert (letter.reason, letter.attempts) == (reason, tries)


def test_retry_later_takes_its_own_delay(unimq_url: str) -> None:
    fill(unimq_url, b"1")
    clock = find("memory").broker(unimq_url).clock
    began = clock.now()
    at: list[float] = []
    worker = Worker(unimq_url)

    @worker.handler(A)
    def later(body: bytes) -> None:
        at.append(clock.now() - began)
        if len(at) < 3:
            raise RetryLater(1000)

    run(worker)
    assert [round(each, -2) for each in at] == [0, 1000, 2000]


def number(body: int) -> None: ...


async def number_async(body: int) -> None: ...


@pytest.mark.parametrize("function", [number, number_async])
def test_the_undecodable_is_dead_at_once_and_never_loops(unimq_url: str, function: Any) -> None:
    fill(unimq_url, b"1", b"one", Message(b"2", content_type="application/x-unheard-of"))
    worker = Worker(unimq_url)
    worker.handler(A)(function)
    outcomes = run(worker)
    assert sorted((outcome.attempt, outcome.verb.value) for outcome in outcomes) == [
        (1, "acked"),
        (1, "dead"),
        (1, "dead"),
    ]
    assert [letter.reason for letter in letters(unimq_url)] == ["undecodable", "undecodable"]


def test_a_dead_letter_place_of_ones_own(unimq_url: str) -> None:
    own = Queue("all the dead")
    fill(unimq_url, b"1")
    worker = Worker(unimq_url, declare=[own])
    worker.handler(A, retry=NO_DELAY, dead_letter=own)(broken)
    run(worker)
    with unimq.connect(unimq_url) as mq:
        assert [each.body for each in mq.browse(own)] == [b"1"]
        assert mq.dead_letters(A).count() == 0


def test_a_missing_dead_letter_place_fails_at_start(unimq_url: str) -> None:
    fill(unimq_url, b"1")
    worker = Worker(unimq_url)
    worker.handler(A, dead_letter=Queue("nowhere"))(broken)
    with pytest.raises(unimq.UnimqError, match=r"nowhere.*mq\.declare"):
        worker.run()
    with unimq.connect(unimq_url) as mq:
        assert mq.stats(A).depth == 1


def test_without_a_dead_letter_place_the_dead_are_dropped_loudly(
    unimq_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(unimq_url, b"1")
    worker = Worker(unimq_url)
    worker.handler(A, retry=NO_DELAY, dead_letter=None)(broken)
    outcomes = run(worker)
    assert [outcome.verb for outcome in outcomes] == [Verb.IN_HAND, Verb.IN_HAND, Verb.DROPPED]
    assert "is dropped: it failed for good, and dead_letter=None was written" in caplog.text
    with unimq.connect(unimq_url) as mq:
        assert mq.stats(A).depth == 0


def test_a_source_that_can_have_no_dead_letters_wants_it_said(unimq_url: str) -> None:
    private = Subscription(Topic("t"))
    worker = Worker(unimq_url)
    worker.handler(private)(broken)
    with pytest.raises(Unsupported, match="write dead_letter=None"):
        worker.run()


def test_a_delay_without_a_place_fails_at_start(unimq_url: str) -> None:
    worker = Worker(unimq_url)
    worker.handler(Subscription(Topic("t")), retry=Retry(delayed_s=[7]), dead_letter=None)(broken)
    with pytest.raises(
        Unsupported, match=r"no delayed retry on subscription:t: .* write Retry\(delayed_s=\[\]\)"
    ):
        worker.run()


def test_what_the_handler_settled_is_left_alone(unimq_url: str) -> None:
    fill(unimq_url, b"ack", b"dead", b"late")
    worker = Worker(unimq_url)

    @worker.handler(A)
    def settles(body: bytes, delivery: Delivery) -> None:
        if body == b"dead":
            delivery.dead_letter("why", "because")
        else:
            delivery.ack()
        if body == b"late":
            raise ValueError("after the ack")

    outcomes = run(worker)
    assert [outcome.verb for outcome in outcomes] == [Verb.SETTLED] * 3
    assert [letter.reason for letter in letters(unimq_url)] == ["why"]


# ---------------------------------------------------------------------------------------------------------- ordered
def test_ordered_sources_keep_each_key_in_order_under_concurrency(unimq_url: str) -> None:
    """A lane for each key: the retries in hand of one key never let its next message pass."""
    ordered = Queue("o", ordered=True)
    seen: dict[str, list[int]] = {}
    threads: set[str] = set()
    lock = threading.Lock()
    failed: set[tuple[str, int]] = set()
    with unimq.connect(unimq_url) as mq:
        mq.declare(ordered)
        keys = [f"k{number % 7}" for number in range(140)]
        mq.send_many(ordered, [Message(b"%d" % n, key=key) for n, key in enumerate(keys)]).raise_for_errors()
    worker = Worker(unimq_url)

    @worker.handler(ordered, concurrency=4)
    def work(body: int, delivery: Delivery) -> None:
        key = str(delivery.key)
        with lock:
            threads.add(threading.current_thread().name)
            if body % 5 == 0 and (key, body) not in failed:
                failed.add((key, body))
                raise ValueError("once")
            seen.setdefault(key, []).append(body)

    outcomes = run(worker)
    assert len(outcomes.handled) == 140 and not outcomes.dead
    assert all(bodies == sorted(bodies) for bodies in seen.values())
    assert len(threads) > 1


def test_an_explicit_delay_on_an_ordered_source_fails_at_start(unimq_url: str) -> None:
    worker = Worker(unimq_url)
    worker.handler(Queue("o", ordered=True), retry=Retry(delayed_s=[1]))(broken)
    with pytest.raises(Unsupported, match="it would change the order"):
        worker.run()


def test_retry_later_on_an_ordered_source_is_a_failure_like_any(unimq_url: str) -> None:
    ordered = Queue("o", ordered=True)
    with unimq.connect(unimq_url) as mq:
        mq.declare(ordered)
        mq.send(ordered, Message(b"1", key="k"))
    worker = Worker(unimq_url)

    @worker.handler(ordered, retry=Retry(immediate=1, delayed_s=[]))
    def later(body: bytes) -> None:
        raise RetryLater(5)

    outcomes = run(worker)
    assert [outcome.verb for outcome in outcomes] == [Verb.IN_HAND, Verb.DEAD]


# ------------------------------------------------------------------------------------------------- links that fail
@pytest.mark.parametrize("kind", ["links", "connections"])
def test_a_link_lost_under_the_handler_brings_the_message_again(unimq_url: str, kind: str) -> None:
    fill(unimq_url, b"1")
    broker = find("memory").broker(unimq_url)
    tries: list[int | None] = []
    worker = Worker(unimq_url)

    @worker.handler(A)
    def work(body: bytes, delivery: Delivery) -> None:
        tries.append(delivery.delivery_count)
        if len(tries) == 1:
            broker.kill_links("receiver") if kind == "links" else broker.drop_connections()

    outcomes = run(worker)
    assert tries == [0, 1]
    assert Verb.LOST in [outcome.verb for outcome in outcomes], "an ack that its link took along is told"
    assert outcomes.all[-1].verb is Verb.ACKED


def test_retry_then_dead_then_nothing_is_left_anywhere(unimq_url: str) -> None:
    fill(unimq_url, *[b"%d" % n for n in range(200)])
    worker = Worker(unimq_url)

    @worker.handler(A, concurrency=4, retry=Retry(immediate=1, delayed_s=[1, 10]))
    def work(body: int, delivery: Delivery) -> None:
        if body % 10 == 1 and delivery.attempt < 3:
            raise ValueError("passes")
        if body % 100 == 2:
            raise ValueError("stays")

    outcomes = run(worker)
    assert len(outcomes.handled) == 198
    assert sorted(str(letter.body) for letter in letters(unimq_url)) == ["b'102'", "b'2'"]
    with unimq.connect(unimq_url) as mq:
        stats = mq.stats(A)
        assert (stats.depth, stats.in_flight, stats.delayed, stats.dead) == (0, 0, 0, 2)
