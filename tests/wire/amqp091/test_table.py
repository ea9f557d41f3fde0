"""Field tables: every type there and back, the sender's bytes kept, malformed input refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pika import data as pika_data

from unimq.wire.amqp091 import WireError
from unimq.wire.amqp091 import table as t
from unimq.wire.amqp091.limits import TABLE_DEPTH_MAX

from .strategies import NAMES, TABLES, VALUES


def types_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: types_of(each) for name, each in value.items()}
    if isinstance(value, list):
        return [types_of(each) for each in value]
    return type(value)


@settings(max_examples=500, deadline=None)
@given(TABLES)
def test_there_and_back_with_types(table: dict[str, Any]) -> None:
    raw = t.encode_table(table)
    decoded, end = t.decode_table(raw, 0, len(raw))
    assert (decoded, end) == (table, len(raw))
    assert types_of(decoded) == types_of(table)
    assert t.encode_table(decoded) == raw
    assert t.check_table(raw, 0, len(raw)) == len(raw)


@settings(max_examples=200, deadline=None)
@given(TABLES, NAMES, VALUES)
def test_splicing_keeps_the_bytes_of_what_stays(table: dict[str, Any], name: str, value: Any) -> None:
    raw = t.encode_table(table)
    changed = t.spliced(raw, {name: value}, drop=("gone",))
    kept = [field for key, field in t.fields_of(raw) if key not in (name, "gone")]
    assert [field for _, field in t.fields_of(changed)] == [*kept, t.encode_field(name, value)]


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=80))
@example(b"\x00\x00\x00\x05\x01aS\xff\xff")
def test_what_decoding_refuses_checking_refuses(rest: bytes) -> None:
    raw = len(rest).to_bytes(4, "big") + rest

    def outcome(call: Any) -> object:
        try:
            return call()
        except WireError as error:
            return error.code

    decoded = outcome(lambda: t.decode_table(raw, 0, len(raw))[1])
    checked = outcome(lambda: t.check_table(raw, 0, len(raw)))
    assert decoded == checked
    assert decoded in (502, len(raw))


def test_deep_nesting_is_refused_not_recursed() -> None:
    raw = b""
    for _ in range(TABLE_DEPTH_MAX + 2):
        raw = b"\x01kF" + len(raw).to_bytes(4, "big") + raw
    raw = len(raw).to_bytes(4, "big") + raw
    for call in (lambda: t.decode_table(raw, 0, len(raw)), lambda: t.check_table(raw, 0, len(raw))):
        with pytest.raises(WireError, match="nested"):
            call()


def test_pika_reads_what_we_write() -> None:
    table = {
        "text": "ü",
        "count": t.Int64(2),
        "n": 7,
        "flag": True,
        "none": None,
        "list": [1, "x"],
        "t": {"a": 1},
    }
    decoded, _ = pika_data.decode_table(t.encode_table(table), 0)
    assert decoded == table


def test_an_int_beyond_64_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        t.encode_value(1 << 63)


def test_types_have_rabbitmqs_names() -> None:
    assert [t.type_name(value) for value in (1, "x", True, t.Int64(1), 1.5)] == [
        "signedint",
        "longstr",
        "bool",
        "long",
        "double",
    ]
