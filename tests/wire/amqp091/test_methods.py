"""The table of methods against pika's own, and every method there and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import spec as pika_spec

from unimq.wire.amqp091 import Decoder, WireError, method_frame
from unimq.wire.amqp091.methods import BY_NAME, Method

from .strategies import TABLES

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "octet": st.integers(0, 0xFF),
    "short": st.integers(0, 0xFFFF),
    "long": st.integers(0, 0xFFFF_FFFF),
    "longlong": st.integers(0, 0xFFFF_FFFF_FFFF_FFFF),
    "bit": st.booleans(),
    "shortstr": st.text(max_size=60),
    "longstr": st.binary(max_size=300),
    "table": TABLES,
}
METHODS = sorted(BY_NAME)
PIKA_CANNOT = {"connection.update-secret"}  # its decode gives the fields other names than its encode


def arguments(method: Method) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(FIELDS[kind] for kind, reserved in method.fields if not reserved))


def test_the_ids_are_pikas() -> None:
    ours = {(method.class_id << 16 | method.method_id) for method in BY_NAME.values()}
    assert set(pika_spec.methods) == ours


SIMPLE = {"shortstr": "ab", "longstr": b"cd", "table": {"k": "v"}, "bit": True}


@pytest.mark.parametrize("name", METHODS)
def test_pika_reads_each_method_as_we_write_it(name: str) -> None:
    method = BY_NAME[name]
    theirs = pika_spec.methods[method.class_id << 16 | method.method_id]
    args = tuple(SIMPLE.get(kind, 1) for kind, reserved in method.fields if not reserved)
    payload = method.encode(args)[4:]
    read = theirs.__new__(theirs)
    read.decode(payload)
    if name not in PIKA_CANNOT:
        assert b"".join(read.encode()) == payload


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_there_and_back(name: str, data: st.DataObject) -> None:
    method = BY_NAME[name]
    args = data.draw(arguments(method))
    payload = method.encode(args)
    assert method.decode(payload, 4, len(payload)) == args


@pytest.mark.parametrize("name", METHODS)
def test_too_short_and_too_long_are_frame_errors(name: str) -> None:
    method = BY_NAME[name]
    payload = method.encode(tuple(SIMPLE.get(kind, 1) for kind, reserved in method.fields if not reserved))
    wrong = [payload[:cut] for cut in range(4, len(payload))] + [payload + b"x"]
    for bad in wrong:
        with pytest.raises(WireError) as caught:
            method.decode(bad, 4, len(bad))
        assert (caught.value.code, caught.value.class_id) == (501, method.class_id)


def test_text_that_is_not_utf8_survives() -> None:
    (event,) = Decoder(expect_protocol_header=False).feed(
        method_frame(0, "connection.close", 200, b"\xff\xfe".decode("utf-8", "surrogateescape"), 0, 0)
    )
    assert event[2][1].encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_a_short_string_is_never_cut_in_silence() -> None:
    with pytest.raises(ValueError, match="255"):
        method_frame(1, "basic.cancel", "x" * 256, False)
