"""Typed header values as strings, and the ladder of delays."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq import Unsupported
from unimq.headers import letters, text, types_of, untext
from unimq.ladder import LADDER_S, milliseconds, rung

values = st.one_of(
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.binary(max_size=50),
)


@given(st.dictionaries(st.text(min_size=1), values, max_size=8))
def test_types_survive_strings(headers: dict[str, str | int | float | bool | bytes]) -> None:
    wire = {name: text(value) for name, value in headers.items()}
    kinds = letters(types_of(headers))
    back = {name: untext(value, kinds.get(name)) for name, value in wire.items()}
    assert back == headers
    assert {name: type(value) for name, value in back.items()} == {
        name: type(value) for name, value in headers.items()
    }


@given(st.one_of(st.text(), st.binary(), st.none(), st.integers()), st.text())
def test_a_foreign_types_header_does_no_harm(types: object, value: str) -> None:
    for letter in {*letters(types).values(), None, "q"}:
        assert isinstance(untext(value, letter), str | int | float | bool | bytes)


@given(st.floats(0, LADDER_S[-1]), st.lists(st.floats(0.001, LADDER_S[-1]), max_size=4))
def test_a_rung_is_never_early_and_the_nearest(delay_s: float, own: list[float]) -> None:
    found = rung(delay_s, own)
    assert found >= delay_s - 1e-9
    assert found in (*own, *LADDER_S)
    assert all(step >= found or step < delay_s - 1e-9 for step in (*own, *LADDER_S))


def test_beyond_the_ladder_is_refused() -> None:
    with pytest.raises(Unsupported):
        rung(LADDER_S[-1] + 1)
    assert rung(LADDER_S[-1] + 1, [math.inf]) == math.inf
    assert milliseconds(0.1) == 100
