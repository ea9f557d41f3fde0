"""The dead letters of one source: look at them, count them, bring them back to life, empty the place.

Rules
- They lie where the delivery lay: every place of the plan's `dead_read` is looked into; a DeadLetter names its place.
- What the broker dead-lettered by itself is read into the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._dead import DeadLetter
from .._outgoing import check_target
from .._replay import Replay, Where
from ..address import Queue, Source, Topic
from . import _wait as wait

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncDeadLetters:
    """From `client.dead_letters(source)`."""

    def __init__(self, client: AsyncClient, source: Source) -> None:
        self._client = client
        self._source = source

    async def browse(self, limit: int = 100) -> list[DeadLetter]:
        """Up to `limit`, oldest first, without taking them."""
        self._client._check()
        return await wait.call(self._client._questions.browse_dead, self._source, limit)

    async def count(self) -> int | None:
        """How many there are; None where the broker does not tell."""
        self._client._check()
        return await wait.call(self._client._questions.count_dead, self._source)

    async def replay(
        self,
        limit: int | None = None,
        where: Where | None = None,
        rate: float | None = None,
        to: Queue | Topic | None = None,
    ) -> int:
        """Send them back to the group they failed in (or `to`), each confirmed before it is removed; how many. Those that
        `where(letter)` says False to stay. `rate` is messages a second. Bounded by what lies there now: what dies again
        meanwhile is not replayed again. A crash leaves duplicates, never a gap."""
        self._client._check()
        client = self._client
        replay = Replay(
            client._supervisor,
            client._questions,
            client.capabilities,
            self._source,
            limit=limit,
            where=where,
            rate=rate,
            to=None if to is None else check_target(to),
        )
        try:
            return await wait.call(replay.run)
        finally:
            replay.stop.set()  # a cancelled caller leaves no replay running

    async def purge(self) -> int | None:
        """Remove them all; how many, or None where the broker does not tell."""
        self._client._check()
        return await wait.call(self._client._questions.purge_dead, self._source)
