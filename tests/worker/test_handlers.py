"""What a handler may look like, and what it is given."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
import pytest

import unimq
from unimq import AsyncClient, Client, Delivery, Message, Queue, Retry, Subscription, Topic
from unimq.testing import delivery as made
from unimq.testing.running import run
from unimq.worker import BadHandler, Verb, Worker

A, B = Queue("a"), Queue("b")
ONCE = Retry(immediate=0, delayed_s=[])


@dataclasses.dataclass
class Plain:
    n: int


class Struct(msgspec.Struct):
    n: int


class Model(pydantic.BaseModel):
    n: int


def fill(url: str, address: Queue, *contents: Any) -> None:
    with unimq.connect(url) as mq:
        mq.declare(address)
        mq.send_many(
            address, [each if isinstance(each, Message) else Message(each) for each in contents]
        ).raise_for_errors()


def take_all(url: str, address: Queue) -> list[Delivery]:
    with unimq.connect(url) as mq:
        return mq.browse(address)


def bytes_(body: bytes) -> None:
    GOT.append(body)


def text(body: str) -> None:
    GOT.append(body)


def mapping(body: dict[str, int]) -> None:
    GOT.append(body)


def plain(body: Plain) -> None:
    GOT.append(body)


async def struct(body: Struct) -> None:
    GOT.append(body)


async def model(body: Model) -> None:
    GOT.append(body)


def anything(body: Any) -> None:
    GOT.append(body)


def whole(delivery: Delivery) -> None:
    GOT.append(delivery.body)


GOT: list[Any] = []


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (bytes_, b'{"n":1}'),
        (text, '{"n":1}'),
        (mapping, {"n": 1}),
        (plain, Plain(1)),
        (struct, Struct(1)),
        (model, Model(n=1)),
        (anything, {"n": 1}),
        (whole, b'{"n":1}'),
    ],
)
def test_the_body_is_decoded_to_the_annotation(
    unimq_url: str, function: Callable[..., Any], wanted: Any
) -> None:
    GOT.clear()
    fill(unimq_url, A, b'{"n":1}')
    worker = Worker(unimq_url)
    worker.handler(A)(function)
    outcomes = run(worker)
    assert [wanted] == GOT
    assert [outcome.verb for outcome in outcomes] == [Verb.ACKED]
    assert outcomes.exit_code == 0
    assert take_all(unimq_url, A) == []


def optional(body: Plain | None) -> None:
    GOT.append(body)


def test_a_tombstone_is_none_where_the_annotation_allows_it(unimq_url: str) -> None:
    GOT.clear()
    fill(unimq_url, A, None, b'{"n":2}')
    worker = Worker(unimq_url)
    worker.handler(A)(optional)
    run(worker)
    assert [None, Plain(2)] == GOT


def test_delivery_and_client_are_injected(unimq_url: str) -> None:
    fill(unimq_url, A, b"1")
    fill(unimq_url, B, b"2")
    seen: list[Any] = []

    def on_a(body: bytes, mq: Client, *, delivery: Delivery) -> None:
        mq.send(B, body + b" from a thread")
        seen.append(delivery.attempt)

    async def on_b(body: bytes, mq: AsyncClient, spare: int = 7) -> None:
        if not body.endswith(b"again"):
            await mq.send(B, body + b" again")
        seen.append((body, spare))

    worker = Worker(unimq_url)
    worker.handler(A)(on_a)
    worker.handler(B)(on_b)
    run(worker)
    assert sorted(map(str, seen)) == sorted(
        map(str, [1, (b"2", 7), (b"2 again", 7), (b"1 from a thread", 7), (b"1 from a thread again", 7)])
    )


def test_a_handler_stays_a_plain_callable(unimq_url: str) -> None:
    worker = Worker(unimq_url)

    @worker.handler(A)
    def double(body: int, delivery: Delivery) -> int:
        return body * 2 * delivery.attempt

    assert double(2, made(b"2", attempt=3)) == 12


def test_sync_handlers_have_exactly_as_many_threads_as_they_may(unimq_url: str) -> None:
    fill(unimq_url, A, *[b"x"] * 40)
    threads: set[str] = set()
    at_once: list[int] = []
    together = threading.Barrier(4)
    now = 0
    lock = threading.Lock()

    worker = Worker(unimq_url)

    @worker.handler(A, concurrency=4)
    def slow(body: bytes) -> None:
        nonlocal now
        with lock:
            now += 1
            at_once.append(now)
            threads.add(threading.current_thread().name)
        together.wait(5)
        with lock:
            now -= 1

    run(worker)
    assert len(threads) == 4
    assert max(at_once) == 4


def test_async_handlers_run_as_many_at_once_as_they_may(unimq_url: str) -> None:
    fill(unimq_url, A, *[b"x"] * 30)
    now, most = 0, 0
    worker = Worker(unimq_url)

    @worker.handler(A, concurrency=3)
    async def slow(body: bytes) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1

    run(worker)
    assert most == 3


def test_match_chooses_the_handler_and_nobody_is_rejected(unimq_url: str) -> None:
    fill(
        unimq_url, A,
        Message(b"1", headers={"kind": "made"}), Message(b"2", subject="gone"), Message(b"3"),
    )  # fmt: skip
    seen: list[tuple[str, bytes]] = []
    worker = Worker(unimq_url)

    @worker.handler(A, match={"kind": "made"})
    def made_(body: bytes) -> None:
        seen.append(("made", body))

    @worker.handler(A, match=lambda delivery: delivery.subject == "gone")
    async def gone(body: bytes) -> None:
        seen.append(("gone", body))

    outcomes = run(worker)
    assert sorted(seen) == [("gone", b"2"), ("made", b"1")]
    assert [(dead.reason, dead.delivery.body) for dead in outcomes.dead] == [("rejected", b"3")]
    with unimq.connect(unimq_url) as mq:
        (letter,) = mq.dead_letters(A).browse()
    assert letter.reason == "rejected"


def test_the_default_handler_takes_the_rest_wherever_it_stands(unimq_url: str) -> None:
    fill(unimq_url, A, Message(b"1", headers={"kind": "made"}), Message(b"2"))
    seen: list[tuple[str, bytes]] = []
    worker = Worker(unimq_url)

    @worker.handler(A)
    def rest(body: bytes) -> None:
        seen.append(("rest", body))

    @worker.handler(A, match={"kind": "made"})
    def made_(body: bytes) -> None:
        seen.append(("made", body))

    run(worker)
    assert sorted(seen) == [("made", b"1"), ("rest", b"2")]


def test_a_match_that_raises_is_a_failed_try(unimq_url: str) -> None:
    fill(unimq_url, A, b"1")
    worker = Worker(unimq_url)

    def broken(delivery: Delivery) -> bool:
        raise KeyError("kind")

    @worker.handler(A, match=broken, retry=Retry(immediate=2, delayed_s=[]))
    def never(body: bytes) -> None:
        raise AssertionError

    outcomes = run(worker)
    assert [outcome.verb for outcome in outcomes] == [Verb.IN_HAND, Verb.IN_HAND, Verb.DEAD]


def test_what_is_returned_is_sent_before_the_ack(unimq_url: str) -> None:
    fill(unimq_url, A, b"1", b"2", b"3")
    with unimq.connect(unimq_url) as mq:
        mq.declare(B)
    worker = Worker(unimq_url)

    @worker.handler(A, to=B)
    def on_a(body: bytes) -> Message | None:
        return None if body == b"2" else Message(body * 2, key="k")

    run(worker)
    found = take_all(unimq_url, B)
    assert [(each.body, each.key) for each in found] == [(b"11", "k"), (b"33", "k")]


def test_a_result_that_cannot_be_sent_is_a_failed_try(unimq_url: str) -> None:
    fill(unimq_url, A, b"1")
    worker = Worker(unimq_url)

    @worker.handler(A, to=Queue("nowhere"), retry=ONCE)
    async def on_a(body: bytes) -> bytes:
        return body

    outcomes = run(worker)
    assert [dead.reason for dead in outcomes.dead] == ["exhausted"]
    assert isinstance(outcomes.errors[0], unimq.UnimqError)


class Around:
    """Writes down what passes."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def handle(self, delivery: Delivery, call_next: Callable[[Delivery], Any]) -> Any:
        self.notes.append(f"{self.name} before")
        try:
            return call_next(delivery)
        finally:
            self.notes.append(f"{self.name} after")

    async def handle_async(self, delivery: Delivery, call_next: Callable[[Delivery], Any]) -> Any:
        self.notes.append(f"{self.name} before async")
        try:
            return await call_next(delivery)
        finally:
            self.notes.append(f"{self.name} after async")


def test_middleware_wraps_handlers_the_first_outermost(unimq_url: str) -> None:
    fill(unimq_url, A, b"1")
    fill(unimq_url, B, b"2")
    notes: list[str] = []
    worker = Worker(unimq_url, middleware=[Around("x", notes), Around("y", notes)])

    @worker.handler(A)
    def on_a(body: bytes) -> None:
        notes.append("a")

    run(worker)
    assert notes == ["x before", "y before", "a", "y after", "x after"]
    notes.clear()

    @worker.handler(B)
    async def on_b(body: bytes) -> None:
        await asyncio.sleep(0)
        notes.append("b")

    run(worker)
    assert notes == ["x before async", "y before async", "b", "y after async", "x after async"]


def test_middleware_for_the_other_kind_is_refused(unimq_url: str) -> None:
    async def only_async(delivery: Delivery, call_next: Callable[[Delivery], Any]) -> Any:
        return await call_next(delivery)

    worker = Worker(unimq_url, middleware=[only_async])

    @worker.handler(A)
    def on_a(body: bytes) -> None: ...

    with pytest.raises(BadHandler, match="only_async is async, and a handler is not"):
        run(worker)


# --------------------------------------------------------------------------------------------------------- batches
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failing_batch_is_tried_one_by_one(unimq_url: str, kind: str) -> None:
    fill(unimq_url, A, *[b"%d" % number for number in range(7)])
    calls: list[list[int]] = []

    def work(bodies: list[int]) -> None:
        calls.append(bodies)
        if 3 in bodies:
            raise ValueError("three")

    async def work_async(bodies: list[int]) -> None:
        work(bodies)

    worker = Worker(unimq_url)
    worker.handler(A, batch=5, retry=ONCE)(work if kind == "sync" else work_async)
    outcomes = run(worker)
    assert len(outcomes.handled) == 6
    assert [(dead.reason, dead.delivery.body) for dead in outcomes.dead] == [("exhausted", b"3")]
    assert any(len(call) > 1 for call in calls)
    assert [3] in calls


def test_a_batch_may_settle_single_ones_and_the_undecodable_are_apart(unimq_url: str) -> None:
    fill(unimq_url, A, b"1", b"not a number", b"2", b"3")
    worker = Worker(unimq_url)

    @worker.handler(A, batch=10)
    def on_a(bodies: list[int], deliveries: list[Delivery]) -> None:
        for body, delivery in zip(bodies, deliveries, strict=True):
            if body == 2:
                delivery.dead_letter("two", "no twos today")

    outcomes = run(worker)
    assert sorted((outcome.delivery.body, outcome.verb.value) for outcome in outcomes) == [
        (b"1", "acked"), (b"2", "settled"), (b"3", "acked"), (b"not a number", "dead"),
    ]  # fmt: skip
    with unimq.connect(unimq_url) as mq:
        assert sorted(str(letter.reason) for letter in mq.dead_letters(A).browse()) == ["two", "undecodable"]


def test_each_item_a_batch_returns_is_sent(unimq_url: str) -> None:
    fill(unimq_url, A, *[b"%d" % number for number in range(6)])
    with unimq.connect(unimq_url) as mq:
        mq.declare(B)
    worker = Worker(unimq_url)

    @worker.handler(A, batch=10, to=B)
    def on_a(bodies: list[int]) -> list[int]:
        return [body * 10 for body in bodies]

    run(worker)
    assert sorted(each.decode(int) for each in take_all(unimq_url, B)) == [0, 10, 20, 30, 40, 50]


# ------------------------------------------------------------------------------------------------- refused at start
def no_parameters() -> None: ...
def not_annotated(body) -> None: ...  # type: ignore[no-untyped-def]
def stars(*bodies: bytes) -> None: ...
def unknown_second(body: bytes, other: int) -> None: ...
def undecodable(body: threading.Thread) -> None: ...
def undecodable_inside(body: list[threading.Thread]) -> None: ...
def not_a_list(body: bytes) -> None: ...
def async_client_in_a_thread(body: bytes, mq: AsyncClient) -> None: ...
async def client_on_the_loop(body: bytes, mq: Client) -> None: ...
def yields(body: bytes) -> Any:
    yield body


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (no_parameters, {}, "takes nothing: its first parameter is the body"),
        (not_annotated, {}, "annotate its first parameter 'body'"),
        (stars, {}, "name its parameters"),
        (unknown_second, {}, "'other' can be given nothing: annotate it Delivery"),
        (undecodable, {}, "no body can be decoded to Thread: annotate 'body' with bytes, str, dict"),
        (undecodable_inside, {}, "no body can be decoded to list.threading.Thread."),
        (not_a_list, {"batch": 3}, "takes batches: annotate its first parameter 'body' list"),
        (async_client_in_a_thread, {}, "is a plain function: annotate 'mq' Client"),
        (client_on_the_loop, {}, "is an async function: annotate 'mq' AsyncClient"),
        (yields, {}, "yields: a handler is a plain or an async function"),
        (bytes_, {"concurrency": 0}, "concurrency= and prefetch= are 1 or more"),
        (bytes_, {"batch": 0}, "batch= is 1 or more"),
        (bytes_, {"timeout_s": 0}, "timeout_s= is above 0"),
        (bytes_, {"to": "queue:b"}, "to= is a Queue or a Topic, not 'queue:b'"),
        (bytes_, {"fatal": "ValueError"}, "fatal= is a tuple of exception classes"),
        (bytes_, {"retry": None}, "without tries: Retry"),
        (bytes_, {"transaction": True}, "transaction=True is not there yet"),
    ],
)
def test_what_cannot_work_fails_at_start(
    unimq_url: str, function: Any, options: dict[str, Any], says: str
) -> None:
    worker = Worker(unimq_url)
    worker.handler(A, **options)(function)
    with pytest.raises(unimq.UnimqError, match=says):
        worker.run()


@pytest.mark.parametrize("source", [Topic("t"), "queue:a"])
def test_a_source_is_a_queue_or_a_subscription(unimq_url: str, source: Any) -> None:
    worker = Worker(unimq_url)
    worker.handler(source)(bytes_)
    with pytest.raises(BadHandler, match=r"Queue or a Subscription|a topic is only sent to"):
        worker.run()


def test_two_default_handlers_of_one_source_are_refused(unimq_url: str) -> None:
    worker = Worker(unimq_url)
    worker.handler(A)(bytes_)
    worker.handler(A)(text)
    with pytest.raises(BadHandler, match="both take everything of queue:a: give one of them match="):
        worker.run()


def test_handlers_of_one_source_say_the_same_about_it(unimq_url: str) -> None:
    worker = Worker(unimq_url)
    worker.handler(A, match={"a": 1}, retry=ONCE)(bytes_)
    worker.handler(A)(text)
    with pytest.raises(BadHandler, match="differ in retry=: say the same in both"):
        worker.run()


def test_a_worker_without_handlers_says_so(unimq_url: str) -> None:
    with pytest.raises(BadHandler, match=r"register some with @worker\.handler"):
        Worker(unimq_url).run()


def test_a_subscription_is_made_before_anything_is_sent_to_it(unimq_url: str) -> None:
    topic = Topic("t")
    seen: list[bytes] = []
    worker = Worker(unimq_url, declare=[topic])

    @worker.handler(Subscription(topic, "s"))
    async def on_s(body: bytes, mq: AsyncClient) -> None:
        seen.append(body)
        if len(seen) < 3:
            await mq.send(topic, body + b"!")

    run(worker)
    with unimq.connect(unimq_url) as mq:
        mq.send(topic, b"x")
    run(worker)
    assert seen == [b"x", b"x!", b"x!!"]
