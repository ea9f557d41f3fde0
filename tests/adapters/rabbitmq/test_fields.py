"""Fields go out and come back; foreign messages are perfectly good ones."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq import Message, Queue
from unimq.driver import Copy
from unimq.errors import Unsupported
from unimq_rabbitmq import fields

WHEN = dt.datetime(2026, 11, 3, 12, 0, 0, 123000, dt.UTC)


def method(exchange: str = "", routing_key: str = "q", redelivered: bool = False) -> Any:
    return pika.spec.Basic.Deliver("c", 1, redelivered, exchange, routing_key)


def properties(packed: bytes) -> Any:
    return pika.spec.BasicProperties().decode(packed)


def delivered(packed: bytes, body: bytes = b"", **more: Any) -> fields.RabbitDelivery:
    raw = SimpleNamespace(method=method(**more), properties=properties(packed))
    return fields.make_delivery(raw, body, 1, None, None)  # type: ignore[arg-type]


HEADERS = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: not name.startswith(("unimq-", "x-"))),
    st.text(max_size=9) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.binary(max_size=9)
    | st.floats(allow_nan=False),
    max_size=5,
)  # fmt: skip


@given(HEADERS)
def test_headers_keep_their_types(headers: dict[str, Any]) -> None:
    meta = delivered(fields.encode(Message(headers=headers), False, "id", None, False, False)).metadata
    assert meta.headers == headers
    assert [type(meta.headers[name]) for name in headers] == [type(value) for value in headers.values()]


def test_every_field() -> None:
    message = Message(
        b"x", key="k", headers={"a": 1.5}, subject="s.t", content_type="text/plain", correlation_id="c",
        reply_to=Queue("answers"), priority=7, ttl_s=1.5, timestamp=WHEN,
    )  # fmt: skip
    packed = fields.encode(message, False, "id-1", "text/plain", False, False)
    native = properties(packed)
    assert (native.expiration, native.priority, native.reply_to, native.delivery_mode) == (
        "1500",
        7,
        "answers",
        2,
    )
    assert native.timestamp == int(WHEN.timestamp())
    d = delivered(packed, b"x", redelivered=True)
    assert (d.key, d.subject, d.content_type, d.correlation_id) == ("k", "s.t", "text/plain", "c")
    assert (d.message_id, d.reply_to, d.priority, d.timestamp) == ("id-1", Queue("answers"), 7, WHEN)
    assert d.expires_at == WHEN + dt.timedelta(seconds=1.5)
    assert d.redelivered
    assert d.headers == {"a": 1.5}
    assert d.delivery_count is None


def test_a_topics_subject_is_the_routing_key() -> None:
    packed = fields.encode(Message(b"x", subject="a.b"), False, None, None, True, False)
    assert properties(packed).headers is None
    assert delivered(packed, exchange="t", routing_key="a.b").subject == "a.b"
    assert delivered(packed, exchange="t", routing_key="").subject is None
    assert delivered(packed, exchange="", routing_key="some-queue").subject is None


def test_a_tombstone_is_not_an_empty_body() -> None:
    assert delivered(fields.encode(Message(None), True, None, None, False, False)).body is None
    assert delivered(fields.encode(Message(b""), False, None, None, False, False)).body == b""


def test_no_id_no_property() -> None:
    assert properties(fields.encode(Message(b"x"), False, None, None, False, False)).message_id is None
    assert properties(fields.encode(Message(b"x"), False, None, "a/b", False, False)).content_type == "a/b"


def test_ids_longer_than_a_short_string_travel_whole() -> None:
    long = "é" * 200
    packed = fields.encode(Message(b"x", correlation_id=long), False, long, None, False, False)
    assert len(properties(packed).message_id) == 64
    assert (delivered(packed).message_id, delivered(packed).correlation_id) == (long, long)


def test_a_ttl_beyond_the_brokers_is_refused() -> None:
    with pytest.raises(Unsupported, match="49 days"):
        fields.encode(Message(b"x", ttl_s=5e6), False, None, None, False, False)


def test_what_waits_keeps_its_end_of_life_aside() -> None:
    """An expiration in a delay queue would wake the message early."""
    packed = fields.encode(Message(b"x", ttl_s=60, timestamp=WHEN), False, None, None, False, True)
    assert properties(packed).expiration is None
    left = delivered(packed).expires_at
    assert left is not None
    assert 58 < (left - dt.datetime.now(dt.UTC)).total_seconds() <= 61


def test_a_foreign_message_without_anything() -> None:
    d = delivered(b"\x00\x00", b"x")
    assert (d.key, d.subject, d.message_id, d.timestamp, dict(d.headers)) == (None, None, None, None, {})


def test_foreign_oddities_do_not_fail() -> None:
    odd = pika.spec.BasicProperties(
        headers={
            "n": None, "list": [1, "a"], "t": {"x": 1}, "bin": b"\xff", "unimq-types": "a=f;bad", "a": "nan?",
            "unimq-timestamp-ms": "yesterday", "unimq-reply-to": "not an address", "x-delivery-count": 3,
        },
        timestamp=2**60, expiration="soon", reply_to="r",
    )  # fmt: skip
    d = delivered(b"".join(odd.encode()), b"x")
    assert (d.timestamp, d.expires_at, d.reply_to, d.delivery_count) == (None, None, "r", 3)
    assert d.headers == {"bin": b"\xff", "a": "nan?"}
    assert dict(d.headers_raw)["list"] == [1, "a"]


def test_copies() -> None:
    original = pika.spec.BasicProperties(
        headers={"a": "b", "x-death": [{"queue": "q"}], "x-delivery-count": 2, "x-first-death-queue": "q", "x-mine": 1,
                 "drop": 1},
        message_id="m", correlation_id="c", priority=3, expiration="5000", user_id="somebody", app_id="app",
    )  # fmt: skip
    d = delivered(b"".join(original.encode()), b"body", exchange="t", routing_key="a.b")
    copy = Copy(d, "m#1", {"unimq-copies": 1, "unimq-message-id": "m"}, frozenset({"drop"}))
    packed, body, subject, ident = fields.encode_copy(copy, False, False)
    native = properties(packed)
    assert native.headers == {
        "a": "b",
        "x-mine": 1,
        "unimq-copies": 1,
        "unimq-message-id": "m",
        "unimq-subject": "a.b",
    }
    assert (native.message_id, native.correlation_id, native.priority, native.app_id) == (
        "m#1",
        "c",
        3,
        "app",
    )
    assert (native.user_id, native.expiration, native.delivery_mode) == (None, "5000", 2)
    assert (body, subject, ident) == (b"body", "a.b", "m#1")
    back = delivered(packed, body)
    assert (back.message_id, back.subject, back.metadata.copies) == ("m", "a.b", 1)


def test_a_copy_lives_as_long_as_what_remains() -> None:
    packed = fields.encode(Message(b"x", ttl_s=60), False, "m", None, False, False)
    copied, *_ = fields.encode_copy(Copy(delivered(packed), "m#1", {}), False, False)
    assert 50_000 < int(properties(copied).expiration) <= 60_001
    waiting, *_ = fields.encode_copy(Copy(delivered(packed), "m#1", {}, ttl_s=5.0), False, True)
    assert properties(waiting).expiration is None
    assert delivered(waiting).expires_at is not None


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ("rejected", "rejected"),
        ("expired", "expired"),
        ("delivery_limit", "max-delivery"),
        ("maxlen", "rejected"),
    ],
)
def test_native_deaths(said: str, ours: str) -> None:
    deaths = [{"reason": said, "queue": "q", "count": 2, "time": dt.datetime(2026, 1, 1)}]
    d = delivered(b"".join(pika.spec.BasicProperties(headers={"x-death": deaths}).encode()))
    death = d.native_death()
    assert death is not None
    assert (death.reason, death.attempts) == (ours, 2)
    assert said in death.description
    assert delivered(b"\x00\x00").native_death() is None


def test_subject_survives_a_native_death() -> None:
    deaths = [{"reason": "expired", "queue": "t.s", "exchange": "t", "routing-keys": ["a.b"], "count": 1}]
    assert (
        delivered(b"".join(pika.spec.BasicProperties(headers={"x-death": deaths}).encode())).subject == "a.b"
    )
