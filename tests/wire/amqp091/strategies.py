"""Values for hypothesis: field tables with every type there is."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from unimq.wire.amqp091 import table as t


def _numbers(kind: type, low: int, high: int) -> st.SearchStrategy[Any]:
    return st.integers(low, high).map(kind)


NOT_UTF8 = st.binary(min_size=1, max_size=20).map(lambda raw: b"\xff" + raw)
NAMES = st.text(max_size=20)
SCALARS = st.one_of(
    st.booleans(),
    st.none(),
    st.text(max_size=40),
    NOT_UTF8,
    st.binary(max_size=40).map(t.ByteArray),
    _numbers(int, -(1 << 31), (1 << 31) - 1),
    _numbers(t.Int8, -128, 127),
    _numbers(t.UInt8, 0, 255),
    _numbers(t.Int16, -(1 << 15), (1 << 15) - 1),
    _numbers(t.UInt16, 0, (1 << 16) - 1),
    _numbers(t.UInt32, 0, (1 << 32) - 1),
    _numbers(t.Int64, -(1 << 63), (1 << 63) - 1),
    _numbers(t.Timestamp, 0, (1 << 64) - 1),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32).map(t.Float32),
    st.tuples(st.integers(0, 255), st.integers(0, (1 << 32) - 1)).map(lambda pair: t.DecimalField(*pair)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
TABLES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(NAMES, VALUES, max_size=6)
