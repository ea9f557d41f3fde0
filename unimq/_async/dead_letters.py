"""The dead letters of one source: look at them, count them, empty the place.

Rules
- They lie where the delivery lay: every place of the plan's `dead_read` is looked into; a DeadLetter names its place.
- What the broker dead-lettered by itself is read into the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._dead import DeadLetter
from ..address import Source
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

    async def purge(self) -> int | None:
        """Remove them all; how many, or None where the broker does not tell."""
        self._client._check()
        return await wait.call(self._client._questions.purge_dead, self._source)
