"""Before a suspect begins: the broker has every verb so far, and what was still on its way is looked at first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from unimq._latch import Latch
from unimq.worker import alone


class Link:
    """What is still on its way, or the error of a dead link."""

    def __init__(self, coming: Sequence[str] = (), error: Exception | None = None) -> None:
        self._coming = coming
        self._error = error

    def receive(self, count: int, timeout_s: float) -> Sequence[str]:
        assert timeout_s == 0, "it never waits here"
        if self._error is not None:
            raise self._error
        return self._coming[:count]


class Intake:
    def __init__(self, link: Link | None) -> None:
        self.link = link
        self._stash: list[str] = []

    def arrived(self, link: Link, deliveries: Sequence[str]) -> None:
        self._stash += deliveries

    def take(self, count: int) -> list[str]:
        return self._stash[:count]


class Parts:
    """A receiver and its desk, as far as they are asked."""

    def __init__(self, link: Link | None) -> None:
        self._intake = Intake(link)
        self.confirmed = Latch()

    def flush(self) -> Latch:
        return self.confirmed


async def cleared(parts: Any) -> list[Any]:
    return await alone.cleared(parts, parts, 10)


def test_it_waits_for_the_broker_to_have_every_verb() -> None:
    async def main() -> None:
        parts = Parts(Link())
        waiting = asyncio.create_task(cleared(parts))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done(), "an acknowledgement is still on its way"
        parts.confirmed.set()
        assert await waiting == []

    asyncio.run(main())


def test_a_copy_that_cannot_be_written_does_not_stop_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "CLEAR_S", 0.01)
    assert asyncio.run(cleared(Parts(Link()))) == []


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (Link(["late"]), ["late"]),
        (Link([str(n) for n in range(20)]), [str(n) for n in range(10)]),
        (Link(error=ConnectionResetError("dead")), []),
        (None, []),
    ],
)
def test_what_left_the_broker_before_it_heard_is_looked_at_first(link: Link | None, found: list[str]) -> None:
    parts = Parts(link)
    parts.confirmed.set()
    assert asyncio.run(cleared(parts)) == found
