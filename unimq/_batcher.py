"""The sending half of a link: packs of messages on their way to one place, in order, bounded, each with an outcome.

Theory of operation
- A pack is what senders add to; a flight is a part of a pack in the driver's hands (`_pack.py`). A Pending is (pack, index).
- Batching without timers: an idle link is fed at once; while flights are out, messages gather and leave together when one
  lands or when a full batch has gathered. `linger_s` makes an idle link wait that long as well.
- `handed_over=False` and retryable: queued again, in order, until the item's deadline, then `SendTimeout`. Handed over and
  without an answer at the deadline (and a grace for the driver to say otherwise): `SendOutcomeUnknown`.
- One re-entrant lock per batcher: `submit` of a link is called under it, in send order.
- Bounded by `window` messages and `WINDOW_BYTES`, whichever is first.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ._latch import Latch, WaitingRoom
from ._pack import Flight, Item, Pack, as_sent
from .driver import BatchResult, Failed, Op, SenderLink
from .errors import ConnectionFailed, SendOutcomeUnknown, SendTimeout, UnimqError
from .message import Message

if TYPE_CHECKING:
    from ._ticker import Clockwork, Job

WINDOW_BYTES: Final = 64 * 1024 * 1024
ANSWER_GRACE_S: Final = 0.25
BACK_OFF_FIRST_S, BACK_OFF_MAX_S = 0.02, 1.0
Classify = Callable[[BaseException, Op, bool], UnimqError]


class Batcher:
    """See the module. Every method is plain and never blocks; the facades wait on packs and on `room`."""

    def __init__(
        self,
        *,
        classify: Classify,
        ticker: Clockwork,
        what: str,
        window: int,
        max_batch: int,
        linger_s: float | None = None,
        drive: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._classify = classify
        self._ticker = ticker
        self._what = what
        self._window = window
        self._max_batch = max_batch
        self._linger_s = linger_s or 0.0
        self._drive = drive  # asks for a connection that needs a thread of ours to be driven
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._open = Pack()
        self._queue: deque[Flight] = deque()
        self._out: dict[Flight, None] = {}
        self._out_items = 0
        self._queued_items = 0
        self._bytes = 0
        self._link: SenderLink | None = None
        self._stalled = False  # the link is full, or is being left alone for a while
        self._pumping = False
        self._again = False
        self._back_off_s = BACK_OFF_FIRST_S
        self._deadline_job: Job | None = None
        self._deadline_due = float("inf")
        self._linger_job: Job | None = None
        self._over: UnimqError | None = None
        self._last_error: UnimqError | None = None
        self.room = WaitingRoom(self._has_room)
        self.dropped = 0
        self.landed = 0  # confirmed or failed: progress, for health

    # ------------------------------------------------------------------------------------------------- for senders
    @property
    def outstanding(self) -> int:
        return self._out_items + self._queued_items + len(self._open.messages)

    def _has_room(self) -> bool:
        return self.outstanding < self._window and self._bytes < WINDOW_BYTES

    def add(
        self,
        message: Message,
        body: bytes | None,
        content_type: str | None,
        message_id: str | None,
        deadline: float,
        nowait: bool = False,
    ) -> tuple[Pack, int] | None:
        """Take one message, or None when the window is full. Raises what ended the link."""
        with self._lock:
            pack = self._open
            index = len(pack.messages)
            if self._out_items + self._queued_items + index >= self._window or self._bytes >= WINDOW_BYTES:
                if self._over is not None:
                    raise self._over.for_message(as_sent(message, message_id))
                return None
            if self._over is not None:
                raise self._over.for_message(as_sent(message, message_id))
            pack.messages.append(message)
            pack.bodies.append(body)
            pack.deadlines.append(deadline)
            if message_id is None:
                pack.ids = None
            elif pack.ids is not None:
                pack.ids.append(message_id)
            if content_type is not message.content_type and content_type is not None:
                if pack.types is None:
                    pack.types = {}
                pack.types[index] = content_type
            if nowait:
                if pack.nowait is None:
                    pack.nowait = set()
                pack.nowait.add(index)
            pack.left += 1
            if body is not None:
                pack.bytes += len(body)
                self._bytes += len(body)
            if not self._out or index + 1 >= self._max_batch:
                self._feed()
            if deadline < self._deadline_due:  # behind the send: the first one starts a thread
                self._watch(deadline)
        return pack, index

    def add_many(self, items: Sequence[Item], deadline: float) -> tuple[Pack, int, int] | None:
        """As `add`, for as many of `items` as the window takes: (pack, index of the first, how many). One lock for all."""
        with self._lock:
            if self._over is not None:
                raise self._over
            pack = self._open
            first = len(pack.messages)
            count = min(len(items), self._window - (self._out_items + self._queued_items + first))
            if count <= 0 or self._bytes >= WINDOW_BYTES:
                return None
            size = 0
            for offset in range(count):
                message, body, content_type, message_id = items[offset]
                pack.messages.append(message)
                pack.bodies.append(body)
                if message_id is None:
                    pack.ids = None
                elif pack.ids is not None:
                    pack.ids.append(message_id)
                if content_type is not message.content_type and content_type is not None:
                    if pack.types is None:
                        pack.types = {}
                    pack.types[first + offset] = content_type
                if body is not None:
                    size += len(body)
                    if self._bytes + size >= WINDOW_BYTES:
                        count = offset + 1
                        break
            pack.deadlines.extend([deadline] * count)
            pack.left += count
            pack.bytes += size
            self._bytes += size
            if not self._out or first + count >= self._max_batch:
                self._feed()
            if deadline < self._deadline_due:  # behind the send: the first one starts a thread
                self._watch(deadline)
        return pack, first, count

    def flush_latches(self) -> list[Latch]:
        """What has to be set for everything added so far to have an outcome."""
        with self._lock:
            self._pump(everything=True)
            packs = {id(flight.pack): flight.pack for flight in (*self._queue, *self._out)}
            if self._open.left:
                packs[id(self._open)] = self._open
            return list(packs.values())

    # ------------------------------------------------------------------------------------------- for the supervisor
    def attach(self, link: SenderLink) -> None:
        with self._lock:
            self._link = link
            self._stalled = False
            self._back_off_s = BACK_OFF_FIRST_S
            self._pump()
        self.room.call()

    def detach(self, error: UnimqError | None = None) -> None:
        with self._lock:
            self._link = None
            self._last_error = error

    @property
    def link(self) -> SenderLink | None:
        return self._link

    def unstall(self) -> None:
        """The link said `Room`, or the back-off is over."""
        with self._lock:
            self._stalled = False
            self._pump()

    def end(self, error: UnimqError) -> None:
        """No more sends: what is queued fails with `error`; what is out keeps its answer until its deadline."""
        with self._lock:
            self._over = error
            finished = self._fail_queued(lambda flight, index: True, error)
        self._announce(finished)
        self.room.call()

    @property
    def is_over(self) -> bool:
        return self._over is not None

    def after_fork(self, error: UnimqError) -> None:
        """In the child: the lock may be held by a thread that does not exist here."""
        self._lock = threading.RLock()
        self._over = error
        self._link = None

    def abandon(self) -> None:
        """At the end of `close`: what the driver has not answered is unknown."""
        finished: list[Pack] = []
        with self._lock:
            for flight in list(self._out):
                unknown = SendOutcomeUnknown(
                    f"{self._what}: closed before the broker confirmed; it may have been sent"
                )
                finished += self._resolve(flight, dict.fromkeys(flight.indexes, unknown), None)
            self._out.clear()
            self._out_items = 0
        self._announce(finished)

    # -------------------------------------------------------------------------------------------------- the machine
    def _feed(self) -> None:
        """Something was added: send it now, unless the link lingers."""
        if self._linger_s and len(self._open.messages) < self._max_batch:
            if self._linger_job is None:
                self._linger_job = self._ticker.at(self._clock() + self._linger_s, self._lingered)
            return
        self._pump()

    def _lingered(self) -> None:
        with self._lock:
            self._linger_job = None
            self._pump(everything=True)

    def _pump(self, everything: bool = False) -> None:
        """Hand flights to the link in order. The caller holds the lock. Not re-entered: a `done` that comes back while
        `submit` is still on the stack only asks for another round, else later flights would overtake the rest of this."""
        if self._pumping:
            self._again = True
            return
        self._pumping = True
        try:
            while True:
                self._again = False
                self._round(everything)
                if not self._again:
                    return
        finally:
            self._pumping = False

    def _round(self, everything: bool) -> None:
        while self._link is not None and not self._stalled:
            if not self._queue:
                gathered = len(self._open.messages)
                if not gathered or (self._out and gathered < self._max_batch and not everything):
                    return
                self._close_pack()
            flight = self._queue.popleft()
            self._queued_items -= len(flight.indexes)
            if len(flight.indexes) > self._max_batch:
                flight = self._split(flight, self._max_batch)
            self._launch(self._link, flight)

    def _close_pack(self) -> None:
        pack, self._open = self._open, Pack()
        self._queue.append(Flight(pack, range(len(pack.messages)), next(self._numbers)))
        self._queued_items += len(pack.messages)

    def _split(self, flight: Flight, count: int) -> Flight:
        """The first `count` of a flight; the rest goes back to the head of the queue under the same number."""
        rest = Flight(flight.pack, flight.indexes[count:], flight.number)
        self._queue.appendleft(rest)
        self._queued_items += len(rest.indexes)
        return Flight(flight.pack, flight.indexes[:count], flight.number)

    def _launch(self, link: SenderLink, flight: Flight) -> None:
        count = len(flight.indexes)
        self._out[flight] = None
        self._out_items += count
        early: list[BatchResult] = []
        launching = True

        def done(result: BatchResult) -> None:
            with self._lock:  # another thread waits here until the launch is over
                if launching:
                    early.append(result)  # how much was accepted is not known yet
                    return
            self._landed(flight, result)

        try:
            accepted = link.submit(flight.batch(), done)
        except Exception as error:  # the contract: a driver that raises from submit has taken nothing
            accepted = count
            early.append(BatchResult({i: Failed(error, handed_over=False) for i in range(count)}))
        launching = False
        if accepted < count:  # done is for the accepted prefix; the rest is the next flight
            self._stalled = True
            rest = Flight(flight.pack, flight.indexes[accepted:], flight.number)
            self._queue.appendleft(rest)
            self._queued_items += len(rest.indexes)
            self._out_items -= count - accepted
            flight.indexes = flight.indexes[:accepted]
            if accepted == 0:
                del self._out[flight]
                return
        if early:
            self._landed(flight, early[0])
        elif self._drive is not None:
            self._drive()

    def _landed(self, flight: Flight, result: BatchResult) -> None:
        with self._lock:
            if flight not in self._out:
                return  # given up at its deadline: the answer comes too late
            del self._out[flight]
            self._out_items -= len(flight.indexes)
            failed: dict[int, UnimqError] = {}
            again: list[int] = []
            if result.failures:
                now = self._clock()
                for offset, failure in result.failures.items():
                    if offset >= len(flight.indexes):
                        continue
                    index = flight.indexes[offset]
                    error = self._classify(failure.error, Op.SEND, failure.handed_over)
                    if not failure.handed_over and error.retryable and self._over is None:
                        if flight.pack.deadlines[index] > now:
                            again.append(index)
                            self._last_error = error
                            continue
                        error = self._timed_out(error)
                    elif failure.handed_over and isinstance(error, ConnectionFailed):
                        error = SendOutcomeUnknown(
                            f"{self._what}: the connection died before the broker confirmed; it may have been sent",
                            cause=failure.error,
                            adapter=error.adapter,
                        )
                    failed[index] = error
            else:
                self._back_off_s = BACK_OFF_FIRST_S
            if again:
                self._requeue(Flight(flight.pack, again, flight.number))
            flying = flight
            if again:
                left_out = set(again)
                flying = Flight(flight.pack, [i for i in flight.indexes if i not in left_out], flight.number)
            finished = self._resolve(flying, failed, result.positions if not again else None)
            self._pump()
        self._announce(finished)
        self.room.call(len(flight.indexes))

    def _requeue(self, flight: Flight) -> None:
        """Back into its place in the order, and a pause before the next try: a link that refuses is not hammered."""
        position = 0
        for position, waiting in enumerate(self._queue):  # noqa: B007  # short: flights, not messages
            if (waiting.number, waiting.indexes[0]) > (flight.number, flight.indexes[0]):
                break
        else:
            position = len(self._queue)
        self._queue.insert(position, flight)
        self._queued_items += len(flight.indexes)
        self._stalled = True
        self._ticker.at(self._clock() + self._back_off_s, self.unstall)
        self._back_off_s = min(self._back_off_s * 2, BACK_OFF_MAX_S)

    def _resolve(
        self, flight: Flight, failed: dict[int, UnimqError], positions: Sequence[Any] | None
    ) -> list[Pack]:
        """Give every item of the flight its outcome. Returns the packs that are complete with it."""
        pack = flight.pack
        for index, error in failed.items():
            pack.errors[index] = (
                error
                if error.message is not None
                else error.for_message(
                    as_sent(pack.messages[index], None if pack.ids is None else pack.ids[index])
                )
            )
            pack.unread.add(index)
        if positions is not None:
            pack.positions.append((flight.indexes, positions))
        pack.left -= len(flight.indexes)
        self.landed += len(flight.indexes)
        if pack.left:
            return []
        if pack is not self._open:
            self._bytes -= pack.bytes
        if pack.nowait and pack.errors:
            lost = pack.nowait & pack.errors.keys()
            self.dropped += len(lost)
            pack.unread -= lost
        return [pack]

    @staticmethod
    def _announce(packs: list[Pack]) -> None:
        for pack in packs:
            pack.set()

    # -------------------------------------------------------------------------------------------------- deadlines
    def _watch(self, deadline: float) -> None:
        if self._deadline_job is not None:
            self._deadline_job.cancel()
        self._deadline_due = deadline
        self._deadline_job = self._ticker.at(deadline + 0.001, self._expire)

    def _timed_out(self, cause: UnimqError | None) -> UnimqError:
        cause = cause or self._last_error
        why = f": {cause}" if cause is not None else ""
        return SendTimeout(
            f"{self._what}: the time was up and nothing was sent; sending it again is safe{why}", cause=cause
        )

    def _expire(self) -> None:
        """Fail what is past its deadline, and look again at the next one."""
        with self._lock:
            now = self._clock()
            self._deadline_job = None
            self._deadline_due = float("inf")
            finished = self._fail_queued(lambda flight, index: flight.pack.deadlines[index] <= now, None)
            for flight in list(self._out):
                deadlines = flight.pack.deadlines
                if all(deadlines[i] + ANSWER_GRACE_S <= now for i in flight.indexes):
                    del self._out[flight]
                    self._out_items -= len(flight.indexes)
                    unknown = SendOutcomeUnknown(
                        f"{self._what}: no confirmation within the time; it may have been sent"
                    )
                    finished += self._resolve(flight, dict.fromkeys(flight.indexes, unknown), None)
            upcoming = [
                max(flight.pack.deadlines[i] + ANSWER_GRACE_S for i in flight.indexes) for flight in self._out
            ]
            upcoming += [min(flight.pack.deadlines[i] for i in flight.indexes) for flight in self._queue]
            upcoming += [min(self._open.deadlines)] if self._open.left else []
            if upcoming:
                self._watch(min(upcoming))
            self._pump()
        self._announce(finished)
        self.room.call()

    def _fail_queued(self, condition: Callable[[Flight, int], bool], error: UnimqError | None) -> list[Pack]:
        """Fail the queued items that meet `condition` (with `SendTimeout` where `error` is None)."""
        if self._open.messages:
            self._close_pack()
        finished: list[Pack] = []
        kept: deque[Flight] = deque()
        for flight in self._queue:
            failing = [i for i in flight.indexes if condition(flight, i)]
            if not failing:
                kept.append(flight)
                continue
            chosen = set(failing)
            staying = [i for i in flight.indexes if i not in chosen]
            if staying:
                kept.append(Flight(flight.pack, staying, flight.number))
            self._queued_items -= len(failing)
            reason = error or self._timed_out(None)
            finished += self._resolve(
                Flight(flight.pack, failing, flight.number), dict.fromkeys(failing, reason), None
            )
        self._queue = kept
        return finished
