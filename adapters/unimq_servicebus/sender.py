"""The sending side: one entity, one library sender, one owner thread that alone touches it.

Rules
- `submit` and `forward` append jobs; the owner takes micro-batches from their head in order. A wire batch holds items of
  one key, of one due time and of about one deadline, and what the link says fits.
- A batch is taken or refused as a whole. Refused for good, its items are sent one by one, so that only the bad one fails.
- `handed_over` is False only for what never left or was refused; after silence it is True.
- A link that fell silent or broke is dead: everything queued completes, `Lost` is reported, nothing is retried here.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from unimq.driver import ALL_WELL, Batch, BatchResult, Copy, Done, Failed, Lost, Room, Sink
from unimq.errors import Closed, SendTimeout, UnimqError

from . import errors, fields
from .completions import Completions

QUEUE_MAX_ITEMS: Final = 2_000  # then `submit` accepts no more until half is gone
MICRO_BATCH_MAX_ITEMS: Final = 256
DEADLINE_SLACK_S: Final = 1.0  # items of one wire batch share its time-out
COPY_TIMEOUT_S: Final = 30.0
SILENT_S: Final = 5.0  # a send unanswered for so long, or a second in a row, ends the link
TIMEOUTS_MAX: Final = 2
CALL_MIN_S: Final = 0.001
_log = logging.getLogger("unimq.servicebus")


class Job:
    """One `submit` or `forward`; `finish` each item once, under the link's lock."""

    __slots__ = (
        "build",
        "count",
        "deadline",
        "done",
        "due",
        "failures",
        "key",
        "left",
        "next",
        "over",
        "positions",
    )

    def __init__(self, count: int, deadline: float, done: Done[BatchResult]) -> None:
        self.count = self.left = count
        self.deadline = deadline
        self.done = done
        self.next = 0
        self.over = bytearray(count)
        self.failures: dict[int, Failed] | None = None
        self.positions: list[Any] | None = None
        self.build: Callable[[int], Any] = _nothing
        self.key: Callable[[int], Any] = _nothing
        self.due: Callable[[int], dt.datetime | None] = _nothing

    def finish(self, index: int, failed: Failed | None, position: int | None = None) -> bool:
        """True for the last one."""
        if self.over[index]:
            return False
        self.over[index] = 1
        self.left -= 1
        if failed is not None:
            self.failures = self.failures or {}
            self.failures[index] = failed
        if position is not None:
            self.positions = self.positions or [None] * self.count
            self.positions[index] = position
        return self.left == 0

    def result(self) -> BatchResult:
        if self.failures is None and self.positions is None:
            return ALL_WELL
        return BatchResult(self.failures, self.positions)


def _nothing(index: int) -> None:
    return None


Item = tuple[Job, int]


class ServiceBusSenderLink:
    def __init__(self, sdk: Any, what: str, sink: Sink, *, sessions: bool = False) -> None:
        self._sdk = sdk
        self._what = what
        self._sink = sink
        self._sessions = sessions
        self._cond = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._queued = 0
        self._full = False
        self._chunk: Sequence[Item] = ()  # taken by the owner
        self._flying: Sequence[Item] = ()  # of those, in the library's hands
        self._timeouts = 0
        self._closing = False
        self._error: BaseException | None = None
        self._opened = threading.Event()
        self._completions = Completions()
        self._thread = threading.Thread(target=self._run, name=f"unimq-sb-send-{what}", daemon=True)

    def open(self, timeout_s: float) -> None:
        """Blocks until the link is attached; raises what the library raised."""
        self._thread.start()
        if not self._opened.wait(timeout_s):
            error = TimeoutError(f"{self._what}: the link did not open within {timeout_s:g} s")
            self._die(error)
            raise error
        if self._error is not None:
            raise self._error

    # ---------------------------------------------------------------------------------------------- the seam
    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        with self._cond:
            accepted = len(batch)
            if self._error is None:
                accepted = min(accepted, QUEUE_MAX_ITEMS - self._queued)
                self._full = self._full or accepted < len(batch)
            if accepted == 0:
                return 0
            job = Job(accepted, batch.deadline, done)
            now = dt.datetime.now(dt.UTC)
            job.build = lambda index: fields.to_native(batch, index, sessions=self._sessions)
            job.key = lambda index: batch.messages[index].key
            job.due = lambda index: fields.due_at(batch.messages[index], now)
            self._enqueue(job)
        self._completions.run()
        return accepted

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        if not copies:
            done(ALL_WELL)
            return
        with self._cond:
            job = Job(len(copies), time.monotonic() + COPY_TIMEOUT_S, done)
            job.build = lambda index: fields.copy_native(copies[index], dt.datetime.now(dt.UTC))
            job.key = lambda index: copies[index].delivery.key
            self._enqueue(job)
        self._completions.run()

    def _enqueue(self, job: Job) -> None:
        if self._error is not None:
            failed = Failed(self._error, handed_over=False)
            for index in range(job.count):
                job.finish(index, failed)
            self._completions.add(job.done, job.result())
            return
        self._jobs.append(job)
        self._queued += job.count
        self._cond.notify()

    def close(self, timeout_s: float) -> None:
        with self._cond:
            self._closing = True
            self._cond.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._die(Closed(f"{self._what} was closed"), report=False)

    @property
    def ended(self) -> bool:
        return self._error is not None

    # ------------------------------------------------------------------------------------------ owner thread
    def _run(self) -> None:
        try:
            self._sdk.__enter__()
        except Exception as error:  # the library may raise anything here; `open` raises it to the caller
            self._die(error, report=False)
            self._opened.set()
            self._close_sdk()
            return
        self._opened.set()
        try:
            while chunk := self._take():
                self._write(chunk)
        # a bug of ours must not leave batches open: it ends the link, with its reason
        except Exception as error:
            _log.exception("%s: the owner thread ended", self._what)
            self._die(error)
        self._close_sdk()

    def _close_sdk(self) -> None:
        try:
            self._sdk.close()
        except Exception as error:  # closing a broken link may fail in any way; it is gone all the same
            _log.debug("%s: closing the link: %r", self._what, error)

    def _take(self) -> list[Item]:
        """The next micro-batch; [] = end. Blocks while there is nothing to do."""
        with self._cond:
            while not self._jobs and not self._closing and self._error is None:
                self._cond.wait()
            if self._error is not None or not self._jobs:
                return []
            first = self._jobs[0]
            head = (first.key(first.next), first.due(first.next))
            deadline = first.deadline
            chunk: list[Item] = []
            while self._jobs and len(chunk) < MICRO_BATCH_MAX_ITEMS:
                job = self._jobs[0]
                index = job.next
                if (
                    abs(job.deadline - deadline) > DEADLINE_SLACK_S
                    or (job.key(index), job.due(index)) != head
                ):
                    break
                chunk.append((job, index))
                job.next += 1
                if job.next == job.count:
                    self._jobs.popleft()
            self._chunk = chunk
            return chunk

    def _write(self, chunk: list[Item]) -> None:
        ready: list[Item] = []
        natives: list[Any] = []
        now = time.monotonic()
        for job, index in chunk:
            if job.deadline <= now:
                late = SendTimeout(f"{self._what}: the time was up before it was sent", adapter="servicebus")
                self._finish([(job, index)], Failed(late, handed_over=False))
                continue
            try:
                native = job.build(index)
            except (UnimqError, ValueError, TypeError) as error:  # a field that this broker does not carry
                self._finish([(job, index)], Failed(error, handed_over=False))
                continue
            ready.append((job, index))
            natives.append(native)
        if ready:
            due = ready[0][0].due(ready[0][1])
            if due is not None:
                self._call(
                    ready, natives, lambda items, left: self._sdk.schedule_messages(items, due, timeout=left)
                )
            else:
                self._send(ready, natives)

    def _send(self, items: list[Item], natives: list[Any]) -> None:
        """In wire batches of what the link says fits."""
        start = 0
        while start < len(items) and self._error is None:
            end = start + 1
            payload: Any = natives[start]
            if len(items) - start > 1:
                end, payload = self._fill(items, natives, start)
            whole = end - start

            def call(again: list[Any], left_s: float, payload: Any = payload, whole: int = whole) -> None:
                self._sdk.send_messages(payload if len(again) == whole else again[0], timeout=left_s)

            self._call(items[start:end], natives[start:end], call)
            start = end

    def _fill(self, items: list[Item], natives: list[Any], start: int) -> tuple[int, Any]:
        """As many as fit, from `start`: the index behind them and what to send."""
        batch = self._sdk.create_message_batch()
        end = start
        while end < len(items):
            try:
                batch.add_message(natives[end])
            except ValueError as error:
                # full (MessageSizeExceededError is a ValueError), or not encodable: the first alone gets the answer
                _log.debug("%s: a wire batch ends after %d: %r", self._what, end - start, error)
                break
            end += 1
        return (end, batch) if end > start else (start + 1, natives[start])

    def _call(self, items: list[Item], natives: list[Any], call: Callable[[list[Any], float], Any]) -> None:
        """One call of the library for all items, or, refused for good, one for each."""
        with self._cond:
            if self._error is not None:
                return  # it died meanwhile, and completed these as unsent
            self._flying = items
        started = time.monotonic()
        left_s = max(min(job.deadline for job, _ in items) - started, CALL_MIN_S)
        try:
            answer = call(natives, left_s)
        except Exception as error:  # the library may raise anything; every item's Failed carries it
            self._failed(items, natives, call, error, time.monotonic() - started)
            return
        self._timeouts = 0
        self._finish(items, None, answer if isinstance(answer, list) else None)

    def _failed(
        self,
        items: list[Item],
        natives: list[Any],
        call: Callable[[list[Any], float], Any],
        error: Exception,
        waited_s: float,
    ) -> None:
        refused = errors.is_refusal(error)
        dead = errors.ends_link(error)
        if refused and not dead and len(items) > 1 and not errors.retryable(error):
            for item, native in zip(items, natives, strict=True):
                self._call([item], [native], call)
            return
        if not refused and not dead:  # no answer in time
            self._timeouts += 1
            dead = self._timeouts >= TIMEOUTS_MAX or waited_s >= SILENT_S
        if dead:
            self._die(error, first=Failed(error, handed_over=not refused))
        else:
            self._finish(items, Failed(error, handed_over=not refused))

    # ------------------------------------------------------------------------------------------------- the end
    def _finish(self, items: list[Item], failed: Failed | None, positions: list[Any] | None = None) -> None:
        with self._cond:
            self._flying = ()
            self._finish_locked(items, failed, positions)
            room = self._full and self._queued <= QUEUE_MAX_ITEMS // 2 and self._error is None
            self._full = self._full and not room
        self._completions.run()
        if room:
            self._sink(Room(self))

    def _finish_locked(
        self, items: Sequence[Item], failed: Failed | None, positions: list[Any] | None = None
    ) -> None:
        for number, (job, index) in enumerate(items):
            if job.over[index]:
                continue
            self._queued -= 1
            if job.finish(index, failed, positions[number] if positions else None):
                self._completions.add(job.done, job.result())

    def _die(self, error: BaseException, *, first: Failed | None = None, report: bool = True) -> None:
        """`first`: what became of the wire batch that is out; the rest never left."""
        with self._cond:
            if self._error is not None:
                return
            self._error = error
            report = report and not self._closing and self._opened.is_set()
            out = first or Failed(error, handed_over=True)
            unsent = Failed(error, handed_over=False)
            self._finish_locked(self._flying, out)
            self._finish_locked(self._chunk, unsent)
            for job in self._jobs:
                self._finish_locked([(job, index) for index in range(job.next, job.count)], unsent)
            self._jobs.clear()
            self._cond.notify_all()
        self._completions.run()
        if report:
            self._sink(Lost(self, error))
