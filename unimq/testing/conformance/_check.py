"""Small checks that read the same in both worlds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

E = TypeVar("E", bound=BaseException)


class Caught(Generic[E]):
    """What `refused` caught."""

    error: E


@contextmanager
def refused(*kinds: type[E]) -> Iterator[Caught[E]]:
    """The body must raise one of `kinds`; anything else, and nothing, fails."""
    names = " or ".join(kind.__name__ for kind in kinds)
    caught: Caught[E] = Caught()
    try:
        yield caught
    except kinds as error:
        caught.error = error
        return
    raise AssertionError(f"{names} was not raised")


@contextmanager
def within(bound_s: float, what: str) -> Iterator[None]:
    """The body, whether it raises or not, must end within `bound_s`."""
    began = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - began
        if took > bound_s:
            raise AssertionError(f"{what} took {took:.1f} s, more than {bound_s:g} s")
