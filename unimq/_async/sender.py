"""Sending to one place: three confirmation strategies over one pipeline.

Rules
- `send` waits for its own confirmation, `submit` for room only, `send_nowait` for nothing.
- Order of calls is order on the wire, per sender.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from .._outgoing import Line, PendingBase
from .._pack import as_sent
from ..address import Address
from ..errors import Closed, ConnectionFailed, SendTimeout, UnimqError
from ..message import Message, Receipt, SendReport
from . import _wait as wait

if TYPE_CHECKING:
    from .._pack import Item, Pack
    from .client import AsyncClient

BREATHE_EVERY: Final = 64  # sends that were confirmed at once before other tasks get a turn
CHUNK: Final = 500  # messages prepared at once by send_many


class AsyncPending(PendingBase, wait.Awaited):
    """A pipelined send on its way; `result` waits for its outcome."""

    __slots__ = ()

    async def result(self, timeout_s: float | None = None) -> Receipt:
        """The receipt, or the send's error raised. `SendTimeout` here only means: not known yet."""
        if not await wait.latch(self._pack, timeout_s):
            raise SendTimeout("no outcome yet; the send goes on", may_have_been_sent=True, code="pending")
        return self._line.receipt(self._pack, self._index)

    def future(self) -> wait.Promise:
        """The same as a future (asyncio's in async, concurrent.futures' in sync)."""
        return wait.future(self._pack, lambda: self._line.receipt(self._pack, self._index))


class AsyncSender:
    """Messages to one Queue or Topic. From `client.sender(address)`; opens at first use or in `with`."""

    def __init__(self, client: AsyncClient, line: Line) -> None:
        self._client = client
        self._line = line
        self._delayed: dict[object, Line] = {}
        self._closed = False

    @property
    def address(self) -> Address:
        return self._line.target

    @property
    def dropped(self) -> int:
        """Messages of `send_nowait` that failed or found the window full."""
        return self._line.batcher.dropped

    async def send(self, message: Message | Any, *, timeout_s: float = 30.0) -> Receipt:
        """Returns when the broker has confirmed it. Raises `SendTimeout` (nothing left), `SendOutcomeUnknown`,
        `Rejected`, `Unroutable`, `NotFound`, `MessageTooLarge`, `InvalidMessage`, `Unsupported`, `Closed`."""
        deadline = time.monotonic() + timeout_s
        line = self._line
        if self._closed or not line.opened or line.emulated_delay(message) is not None:
            line = await self._ready(message, deadline)
        item = line.prepare(message)
        placed = line.batcher.add(*item, deadline)
        if placed is None:
            placed = await self._when_room(line, item, deadline)
        pack, index = placed
        if not pack.is_set:
            await wait.slot(pack)
        else:
            line.quick += 1
            if not line.quick % BREATHE_EVERY:
                await wait.breathe()
        return line.receipt(pack, index)

    async def submit(self, message: Message | Any, *, timeout_s: float = 30.0) -> AsyncPending:
        """Returns when the window has taken it; the Pending has the outcome."""
        deadline = time.monotonic() + timeout_s
        line = self._line
        if self._closed or not line.opened or line.emulated_delay(message) is not None:
            line = await self._ready(message, deadline)
        item = line.prepare(message)
        placed = line.batcher.add(*item, deadline)
        if placed is None:
            placed = await self._when_room(line, item, deadline)
        return AsyncPending(line, *placed)

    def send_nowait(self, message: Message | Any, *, timeout_s: float = 30.0) -> bool:
        """Fire and forget. False when the window is full or the link was never opened: counted in `dropped`, as are
        failures. Raises only local errors."""
        line = self._line
        if self._closed:
            raise Closed(f"the sender to {line.target} is closed")
        if line.emulated_delay(message) is not None:
            raise UnimqError(
                "send_nowait cannot open the place of a delay: use send or submit", code="would-block"
            )
        item = line.prepare(message)
        placed = None
        if line.opened:
            placed = line.batcher.add(*item, time.monotonic() + timeout_s, nowait=True)
        if placed is None:
            line.batcher.dropped += 1
        return placed is not None

    async def send_many(self, messages: Iterable[Message | Any], *, timeout_s: float = 30.0) -> SendReport:
        """Pipelines a batch; returns when every item has its outcome. A failed item never holds up its neighbours."""
        deadline = time.monotonic() + timeout_s
        spans: list[tuple[Line, Pack, int, int]] = []
        errors: dict[int, UnimqError] = {}
        where: list[int] = []  # position in `messages` of each placed item, in order
        chunk: list[Item] = []
        chunk_line: Line | None = None
        total = 0
        for position, message in enumerate(messages):
            total += 1
            line = self._line
            try:
                if self._closed or not line.opened or line.emulated_delay(message) is not None:
                    line = await self._ready(message, deadline)
                item = line.prepare(message)
            except UnimqError as error:
                errors[position] = error
                continue
            if chunk and (line is not chunk_line or len(chunk) >= CHUNK):
                await self._place(chunk_line, chunk, where, deadline, spans, errors)
                chunk = []
            chunk_line = line
            chunk.append(item)
            where.append(position)
        await self._place(chunk_line, chunk, where, deadline, spans, errors)
        return await self._report(spans, where, errors, total)

    async def _place(
        self,
        line: Line | None,
        chunk: Sequence[Item],
        where: list[int],
        deadline: float,
        spans: list[tuple[Line, Pack, int, int]],
        errors: dict[int, UnimqError],
    ) -> None:
        """Give a chunk to the batcher, waiting for room. What the time did not allow is in `errors`."""
        if line is None:
            return
        done = 0
        room = line.batcher.room
        turn = room.turn()
        try:
            while done < len(chunk):
                taken = line.batcher.add_many(chunk[done:] if done else chunk, deadline)
                if taken is not None:
                    pack, first, count = taken
                    spans.append((line, pack, first, count))
                    done += count
                    continue
                if not await wait.latch(turn, deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise SendTimeout("the window stayed full; nothing was sent")
                turn = room.again(turn)
        except UnimqError as error:
            self._refuse(chunk, done, where, errors, error)
        finally:
            room.leave(turn)

    @staticmethod
    def _refuse(
        chunk: Sequence[Item], done: int, where: list[int], errors: dict[int, UnimqError], error: UnimqError
    ) -> None:
        refused = where[len(where) - (len(chunk) - done) :]
        for position, item in zip(refused, chunk[done:], strict=True):
            errors[position] = error.for_message(as_sent(item[0], item[3]))
        del where[len(where) - len(refused) :]

    async def _report(
        self,
        spans: list[tuple[Line, Pack, int, int]],
        where: list[int],
        errors: dict[int, UnimqError],
        total: int,
    ) -> SendReport:
        placed: list[tuple[int, Line, Pack, int, int]] = []
        at = 0
        for line, pack, first, count in spans:
            if not pack.is_set:
                await wait.slot(pack)
            for index in pack.errors.keys() & set(range(first, first + count)) if pack.errors else ():
                pack.unread.discard(index)
                errors[where[at + index - first]] = pack.errors[index]
            placed.append((at, line, pack, first, count))
            at += count

        def receipts() -> list[Receipt | None]:
            made: list[Receipt | None] = [None] * total
            for start, line, pack, first, count in placed:
                for offset in range(count):
                    if first + offset not in pack.errors:
                        made[where[start + offset]] = line.receipt(pack, first + offset)
            return made

        return SendReport(total - len(errors), dict(sorted(errors.items())), receipts)

    async def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything sent so far has its outcome. Raises `SendTimeout` when it has not by then."""
        deadline = time.monotonic() + timeout_s
        for line in (self._line, *self._delayed.values()):
            for pack in line.batcher.flush_latches():
                if not await wait.latch(pack, deadline - time.monotonic()):
                    raise SendTimeout(
                        f"{line.batcher.outstanding} sends have no outcome yet", may_have_been_sent=True
                    )

    async def close(self, timeout_s: float = 30.0) -> None:
        """Flush, then close the link. Idempotent."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        try:
            await self.flush(timeout_s)
        finally:
            for line in (self._line, *self._delayed.values()):
                await wait.call(self._client._close_line, line, max(deadline - time.monotonic(), 0.0))

    async def _when_room(self, line: Line, item: Item, deadline: float) -> tuple[Pack, int]:
        room = line.batcher.room
        turn = room.turn()
        try:
            while (placed := line.batcher.add(*item, deadline)) is None:
                if not await wait.latch(turn, deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise SendTimeout(
                        f"the window to {line.target} stayed full; nothing was sent",
                        message=as_sent(item[0], item[3]),
                    )
                turn = room.again(turn)
            return placed
        finally:
            room.leave(turn)

    async def _ready(self, message: Message | Any, deadline: float) -> Line:
        """The line for this message, its link opened."""
        if self._closed:
            raise Closed(f"the sender to {self._line.target} is closed")
        self._client._check()
        line = self._line
        delay_s = line.emulated_delay(message)
        if delay_s is not None:
            line.prepare(message)  # what is wrong with it is said before a place is made for it
            line = self._client._delay_line(line, delay_s, self._delayed)
        if not line.opened:
            await self._open(line, message, deadline)
        return line

    async def _open(self, line: Line, message: Message | Any | None, deadline: float) -> None:
        """Open the line's link; its error is the message's too, where one is waiting for it."""
        try:
            await wait.within(
                max(deadline - time.monotonic(), 0.001),
                f"the link to {line.target}",
                self._client._open_line,
                line,
            )
        except UnimqError as error:
            if message is None:
                raise
            item = line.prepare(message)
            sent = as_sent(item[0], item[3])
            if isinstance(error, ConnectionFailed):
                raise SendTimeout(f"nothing was sent: {error}", cause=error, message=sent) from error
            raise error.for_message(sent) from error

    async def __aenter__(self) -> AsyncSender:
        await self._ready(None, time.monotonic() + self._client._open_timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
