"""Names, plan, fields and classify: pure, no broker."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unimq_memory
from unimq import Message, Queue, Retry, Subscription, Topic
from unimq import headers as h
from unimq.broker.engine import Entry, Refusal
from unimq.broker.engine.message import READY
from unimq.driver import NATIVE, Copy, Facts, Op, Place
from unimq.errors import (
    ConnectionFailed,
    NotFound,
    Rejected,
    ResourceExhausted,
    SendOutcomeUnknown,
    Unroutable,
    Unsupported,
)
from unimq_memory import names
from unimq_memory.errors import LineLost, classify, refused, unknown
from unimq_memory.fields import MemoryDelivery, encode, encode_copy


# --------------------------------------------------------------------------------------------------------- names
def test_a_name_is_the_name() -> None:
    assert names.queue_of(Queue("a.b%2E ü")) == "a.b%2E ü"
    assert names.queue_of(Queue("x", broker_name="there")) == "there"
    assert names.queue_of(Subscription(Topic("t"), "s")) == "t.s"
    assert names.dead_place(Subscription(Topic("t"), "s")).text == "t.s.dlq"


def test_the_joint_is_one_to_one() -> None:
    words = ["a", "a.b", "b", "a%2Eb", "dlq", "%64lq", "b.dlq", "%", "."]
    made = {names.queue_of(Subscription(Topic(t), s)) for t, s in itertools.product(words, words)}
    assert len(made) == len(words) ** 2
    assert not any(name.endswith(names.DEAD_SUFFIX) for name in made), (
        "a subscription is somebody's dead-letter place"
    )


@given(st.text(min_size=1, max_size=20))
def test_part_comes_back(text: str) -> None:
    assert names.unpart(names.part(text)) == text
    assert "." not in names.part(text)


def test_a_name_too_long_is_refused() -> None:
    with pytest.raises(Unsupported, match="1024"):
        names.queue_of(Queue("x" * 1025))
    with pytest.raises(Unsupported):
        names.dead_place(Queue("x" * 1021))


# ---------------------------------------------------------------------------------------------------------- plan
def test_plan_of_a_queue() -> None:
    plan = unimq_memory.ADAPTER.plan(Queue("q"), Retry(), Facts())
    assert plan.release is NATIVE
    assert plan.retry(0).ref == plan.retry(99_999_999.0).ref == names.QueueRef("q")
    assert plan.retry(5).delay_s is None
    assert plan.dead_write == Place(names.QueueRef("q.dlq", dead_of="q"), "q.dlq")
    assert plan.replay is not None and plan.replay.text == "q"


def test_plan_of_what_holds_nothing() -> None:
    for source in (Topic("t"), Subscription(Topic("t"))):
        plan = unimq_memory.ADAPTER.plan(source, Retry(), Facts())
        assert plan.dead_write is None and [d.address for d in plan.topology] == [Topic("t")]
        with pytest.raises(Unsupported):
            plan.retry(1.0)


# -------------------------------------------------------------------------------------------------------- fields
def delivery_of(message: Message, message_id: str | None = "id-1") -> MemoryDelivery:
    stored = encode(message, message.body, message.content_type, message_id, 100.0)
    entry = Entry(stored, 7, READY, 100.0, expires_at=stored.expires_at)
    return MemoryDelivery(entry, None, None)  # type: ignore[arg-type]


def test_every_field_comes_back_as_it_was() -> None:
    at = dt.datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
    headers = {"s": "ü", "i": 2**62, "f": 0.1, "b": True, "x": b"\x00\xff"}
    message = Message(
        b"body", key="k", headers=headers, subject="a.b", content_type="text/plain", correlation_id="c",
        reply_to=Queue("answers"), priority=4, ttl_s=10, timestamp=at,
    )  # fmt: skip
    got = delivery_of(message)
    headers.clear()  # the user's own, after the send
    assert (got.body, got.key, got.subject, got.content_type) == (b"body", "k", "a.b", "text/plain")
    assert (got.correlation_id, got.reply_to, got.priority, got.timestamp) == ("c", Queue("answers"), 4, at)
    assert got.headers == {"s": "ü", "i": 2**62, "f": 0.1, "b": True, "x": b"\x00\xff"}
    assert type(got.headers["b"]) is bool and got.message_id == "id-1" and got.position == 7
    assert got.expires_at == dt.datetime.fromtimestamp(110.0, dt.UTC)


def test_what_was_not_said_is_none() -> None:
    got = delivery_of(Message(None), None)
    assert got.body is None and not got.headers and list(got.headers_raw) == []
    named = (
        "key",
        "subject",
        "content_type",
        "message_id",
        "correlation_id",
        "reply_to",
        "priority",
        "timestamp",
    )
    assert {getattr(got, name) for name in named} == {None} and got.expires_at is None


def test_a_copy_is_faithful_and_keeps_our_headers_apart() -> None:
    first = delivery_of(Message(b"x", key="k", headers={"mine": 1}, ttl_s=50))
    told = {h.COPIES: 1, h.MESSAGE_ID: "id-1", h.ATTEMPT: 3}
    copy = encode_copy(Copy(first, "id-1#1", told), 120.0)
    again = MemoryDelivery(Entry(copy, 8, READY, 120.0), None, None)  # type: ignore[arg-type]
    assert again.message_id == "id-1" and again.metadata.broker_message_id == "id-1#1"
    assert again.headers == {"mine": 1} and again.metadata.unimq == told and again.key == "k"
    assert dict(again.headers_raw) == {"mine": 1, **told}
    assert copy.expires_at == 150.0, "what remains of its life"
    dead = encode_copy(Copy(again, "id-1#2", {h.REASON: "fatal", h.COPIES: 2}, frozenset({h.ATTEMPT})), 130.0)
    assert dead.expires_at is None and h.ATTEMPT not in dead.meta.unimq and dead.meta.unimq[h.COPIES] == 2
    assert encode_copy(Copy(first, "i", {}, ttl_s=5), 130.0).expires_at == 135.0


# ------------------------------------------------------------------------------------------------------ classify
def test_classify() -> None:
    lost = LineLost("cut")
    assert type(classify(lost, op=Op.SEND, handed_over=True)) is SendOutcomeUnknown
    assert type(classify(lost, op=Op.SEND, handed_over=False)) is ConnectionFailed
    assert type(classify(TimeoutError("silent"), op=Op.CONNECT, handed_over=False)) is ConnectionFailed
    said = NotFound("x")
    assert classify(said, op=Op.OPEN, handed_over=False) is said
    before = unknown["ZeroDivisionError"]
    fault = classify(ZeroDivisionError(), op=Op.SEND, handed_over=True)
    assert fault.code == "unknown" and fault.may_have_been_sent and unknown["ZeroDivisionError"] == before + 1


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(Refusal.QUEUE_FULL, Rejected), (Refusal.BROKER_FULL, ResourceExhausted), (Refusal.CLOSED, Unroutable)],
)
def test_refusals(refusal: Refusal, kind: type) -> None:
    assert type(refused(refusal, "queue 'q'", stored_elsewhere=False)) is kind
