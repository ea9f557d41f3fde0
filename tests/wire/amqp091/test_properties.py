"""Content properties: the sender's bytes, lazily decoded, spliced where the broker writes."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimq.wire.amqp091 import Properties, WireError
from unimq.wire.amqp091.properties import make_properties
from unimq.wire.amqp091.spec import PROPERTIES

from .strategies import TABLES

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "shortstr": st.text(max_size=30),
    "octet": st.integers(0, 255),
    "longlong": st.integers(0, (1 << 64) - 1),
    "table": TABLES,
}
VALUES = st.fixed_dictionaries({}, optional={name: KINDS[kind] for name, kind in PROPERTIES})


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_there_and_back(values: dict[str, Any]) -> None:
    assert Properties(make_properties(**values).raw).values == values


@settings(max_examples=200, deadline=None)
@given(VALUES, st.text(max_size=20))
def test_a_change_leaves_the_rest_alone(values: dict[str, Any], text: str) -> None:
    before = make_properties(**values)
    after = Properties(before.changed(headers={"x-added": text}, drop=("expiration",), reply_to=text).raw)
    expected = {name: value for name, value in values.items() if name != "expiration"}
    expected |= {"reply_to": text, "headers": {**values.get("headers", {}), "x-added": text}}
    assert after.values == expected


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=60))
def test_malformed_bytes_are_541_or_valid(raw: bytes) -> None:
    try:
        made = Properties(raw)
        values = made.values
    except WireError as error:
        assert error.code == 541
    else:
        assert make_properties(**values).values == values


def test_pikas_are_read() -> None:
    sent = pika.BasicProperties(
        content_type="a/b", headers={"n": 1}, delivery_mode=2, timestamp=99, app_id="x"
    )
    read = Properties(b"".join(sent.encode()))
    expected = {
        "content_type": "a/b",
        "headers": {"n": 1},
        "delivery_mode": 2,
        "timestamp": 99,
        "app_id": "x",
    }
    assert read.values == expected


def test_an_unknown_property_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="colour"):
        make_properties().changed(colour="red")
