"""What we write is byte for byte what pika writes."""

from __future__ import annotations

import datetime as dt
import decimal

import pika.frame
import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq.errors import InvalidMessage
from unimq_rabbitmq import fields, wire

VALUE = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.none(),
    st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2100, 1, 1)),
    st.lists(st.integers(0, 10), max_size=3),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    st.decimals(-1000, 1000, places=2),
)
SHORT = st.none() | st.text(max_size=60)


@given(st.dictionaries(st.text(max_size=20), VALUE, max_size=5))
def test_tables(headers: dict[str, object]) -> None:
    expected: list[bytes] = []
    pika.spec.data.encode_table(expected, headers)
    assert wire.table(headers) == b"".join(expected)


@given(
    SHORT,
    SHORT,
    SHORT,
    SHORT,
    st.none() | st.integers(0, 255),
    st.dictionaries(st.text(max_size=9), VALUE, max_size=3),
)
def test_properties(
    kind: str | None,
    correlation: str | None,
    ident: str | None,
    expiration: str | None,
    priority: int | None,
    headers: dict[str, object],
) -> None:
    native = {
        "content_type": kind, "correlation_id": correlation, "message_id": ident, "expiration": expiration,
        "priority": priority, "delivery_mode": 2, "timestamp": 12345, "reply_to": "r", "type": "t", "app_id": "a",
    }  # fmt: skip
    expected = b"".join(pika.spec.BasicProperties(headers=headers or None, **native).encode())
    assert fields.pack(native, headers) == expected


@pytest.mark.parametrize("size", [0, 1, 1000, 4088, 4089, 10_000])
def test_a_published_message(size: int) -> None:
    properties = pika.spec.BasicProperties(message_id="x", delivery_mode=2)
    body = bytes(range(256)) * 40
    body = body[:size]
    expected = pika.frame.Method(
        3, pika.spec.Basic.Publish(exchange="e", routing_key="k", mandatory=True)
    ).marshal()
    expected += pika.frame.Header(3, size, properties).marshal()
    for start in range(0, size, 4088):
        expected += pika.frame.Body(3, body[start : start + 4088]).marshal()
    out = [wire.publish_method(3, "e", "k", True)]
    counted = wire.content(3, b"".join(properties.encode()), body, 4088, out)
    assert b"".join(out) == expected
    if size <= 4088:
        assert counted == len(expected) - len(out[0])


def test_acks_and_qos() -> None:
    assert wire.ack(7, 2**40, True) == pika.frame.Method(7, pika.spec.Basic.Ack(2**40, True)).marshal()
    assert wire.ack(7, 1, False) == pika.frame.Method(7, pika.spec.Basic.Ack(1, False)).marshal()
    nack = pika.spec.Basic.Nack(5, multiple=False, requeue=True)
    assert wire.nack_requeue(7, 5) == pika.frame.Method(7, nack).marshal()
    assert wire.qos(7, 200) == pika.frame.Method(7, pika.spec.Basic.Qos(0, 200, False)).marshal()


def header(packed: bytes) -> bytes:
    """A content header's payload, as a receiver gets it."""
    return b"\x00\x3c\x00\x00" + bytes(8) + packed


@given(st.dictionaries(st.text(max_size=20), VALUE, max_size=5))
def test_reading_agrees_with_pika(headers: dict[str, object]) -> None:
    packed = fields.pack(
        {"content_type": "t", "message_id": "i", "delivery_mode": 2, "timestamp": 5}, headers
    )
    theirs = pika.spec.BasicProperties().decode(header(packed), 12)
    ours = pika.spec.BasicProperties(**wire.read_properties(header(packed)))
    assert ours == theirs


def test_floats_stay_floats() -> None:
    """pika makes an int of a double, and raises for a NaN."""
    table, _ = wire.read_table(wire.table({"x": 1.5, "nan": float("nan"), "n": decimal.Decimal("1.25")}), 0)
    assert table["x"] == 1.5
    assert table["nan"] != table["nan"]
    assert table["n"] == decimal.Decimal("1.25")


@pytest.mark.parametrize(
    "value", [b"T" + b"\xff" * 8, b"?xx", b"d\x7f\xf0" + bytes(6), b"A\x00\x00\x00\x01?"]
)
def test_nobodys_header_ends_the_connection(value: bytes) -> None:
    content = b"\x01aS\x00\x00\x00\x01b" + b"\x03odd" + value
    packed = b"\x20\x00" + len(content).to_bytes(4, "big") + content
    found = wire.read_properties(header(packed))
    assert found["headers"]["a"] == "b"


def test_what_amqp_cannot_carry() -> None:
    with pytest.raises(InvalidMessage):
        wire.short("x" * 256)
    with pytest.raises(InvalidMessage):
        wire.table({"x": object()})
