"""Dead letters back into life. Blocking, shared by both facades; each call runs on a thread that may block.

Rules (§5.4)
- The order is always: the copy is confirmed in the place it goes to, then the dead letter is acknowledged. A crash between
  gives a duplicate, never a loss.
- Bounded by what lay there when it began: what dies again meanwhile is for the next time.
- A copy begins anew: tries, crashes and what said why it died are dropped; history, ids and the count of copies go on.
- What `where` leaves behind is held and goes back with the link. On a log, and beyond `HELD_MAX`, it is appended to the
  same place again (confirmed) before it is acknowledged.
- A link that dies ends the call with its error; run again, it goes on with what is left.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from . import _dead
from . import _emulation as emulation
from . import headers as h
from ._dead import DeadLetter
from .address import Address, Source
from .capabilities import Capabilities
from .delivery import Delivery
from .driver import (
    Ack,
    BatchResult,
    Connection,
    Copy,
    Op,
    Place,
    Plan,
    ReceiverLink,
    ReceiverOptions,
    SenderLink,
    SenderOptions,
    SettleResult,
)
from .errors import ConnectionFailed, NotFound, Unsupported
from .retry import Retry

if TYPE_CHECKING:
    from ._questions import Questions
    from ._supervisor import Supervisor

BATCH: Final = 100
HELD_MAX: Final = 1_000
IDLE_S: Final = 5.0  # nothing for so long while some are still said to be there: others took them
IDLE_UNKNOWN_S: Final = 1.0  # the same where the broker does not say how many there are
CONFIRM_S: Final = 30.0
CLOSE_S: Final = 5.0
TURN_S: Final = 0.05
LIFE: Final = emulation.DEATH | {h.ATTEMPT, h.CRASHES, h.FIRST_FAILED_AT, h.NOT_BEFORE}
_ACK: Final = Ack()

Where = Callable[[DeadLetter], bool]


class Replay:
    """One call. `stop` ends it early, between two batches."""

    def __init__(
        self,
        supervisor: Supervisor,
        questions: Questions,
        capabilities: Capabilities,
        source: Source,
        *,
        limit: int | None,
        where: Where | None,
        rate: float | None,
        to: Address | None,
    ) -> None:
        if limit is not None and limit < 0:
            raise ValueError("limit is 0 or more")
        if rate is not None and rate <= 0:
            raise ValueError("rate is messages a second, above 0")
        self._supervisor = supervisor
        self._questions = questions
        self._capabilities = capabilities
        self._source = source
        self._limit = limit
        self._where = where
        self._rate = rate
        self._to = to
        self._began = time.monotonic()
        self.stop = threading.Event()
        self.replayed = 0

    def run(self) -> int:
        """How many went back. Raises our errors; a note says how many went before."""
        plan = self._questions.plan(self._source, Retry())
        target = plan.replay if self._to is None else Place(self._to, str(self._to))
        if target is None:
            raise Unsupported(
                f"replay of {self._source}: it has no place of its own to go back to: name one (to=)"
            )
        try:
            for place in plan.dead_read:
                if not self._done:
                    self._place(plan, place, target)
        except Exception as error:  # the library's own: classified
            fault = self._supervisor.classify(error, Op.ADMIN, False)
            fault.add_note(f"{self.replayed} were replayed before; run it again for the rest")
            raise fault from (None if fault is error else error)
        return self.replayed

    @property
    def _done(self) -> bool:
        return self.stop.is_set() or (self._limit is not None and self.replayed >= self._limit)

    def _place(self, plan: Plan, place: Place, target: Place) -> None:
        there = self._questions.depth(place)
        if there == 0:
            return
        connection = self._supervisor.wait_up(CONFIRM_S)
        prefetch = BATCH if self._where is None else BATCH + HELD_MAX
        if there is not None:
            prefetch = min(prefetch, there)
        try:
            link = connection.receiver(place, ReceiverOptions(mode="dead", prefetch=prefetch))
        except NotFound:
            return  # nothing ever died there
        senders: dict[Any, SenderLink] = {}
        try:
            senders[target.ref] = connection.sender(target, SenderOptions())
            self._empty(link, place, target, connection, senders, there)
        finally:
            link.close(CLOSE_S)
            for sender in senders.values():
                sender.close(CLOSE_S)

    def _empty(
        self,
        link: ReceiverLink,
        place: Place,
        target: Place,
        connection: Connection,
        senders: dict[Any, SenderLink],
        there: int | None,
    ) -> None:
        seen = held = 0
        idle_until = time.monotonic() + (IDLE_UNKNOWN_S if there is None else IDLE_S)
        while not self._done and (there is None or seen < there):
            wanted = BATCH if there is None else min(BATCH, there - seen)
            if self._limit is not None:
                wanted = min(wanted, self._limit - self.replayed)
            if self._rate is not None:
                wanted = min(wanted, max(int(self._rate), 1))
            found = link.receive(wanted, TURN_S)
            if not found:
                if time.monotonic() >= idle_until:
                    return
                continue
            seen += len(found)
            idle_until = time.monotonic() + (IDLE_UNKNOWN_S if there is None else IDLE_S)
            chosen, left = self._choose(found, place)
            if left and (self._capabilities.log or held + len(left) > HELD_MAX):
                if place.ref not in senders:
                    senders[place.ref] = connection.sender(place, SenderOptions())
                self._move(link, senders[place.ref], left, frozenset(), "")
            else:
                held += len(left)
            if chosen:
                self._pace(len(chosen))
                self.replayed += self._move(link, senders[target.ref], chosen, LIFE, "replayed")
        self._confirm(link.flush)

    def _choose(self, found: Sequence[Delivery], place: Place) -> tuple[list[Delivery], list[Delivery]]:
        if self._where is None:
            return list(found), []
        chosen: list[Delivery] = []
        left: list[Delivery] = []
        for delivery in found:
            (chosen if self._where(_dead.read(delivery, str(place))) else left).append(delivery)
        return chosen, left

    def _pace(self, count: int) -> None:
        if self._rate is None:
            return
        due = self._began + self.replayed / self._rate
        self.stop.wait(max(due - time.monotonic(), 0.0))

    def _move(
        self,
        link: ReceiverLink,
        sender: SenderLink,
        deliveries: Sequence[Delivery],
        drop: frozenset[str],
        entry: str,
    ) -> int:
        """Copies out, confirmed; then the acks of those that were. How many."""
        now = emulation.stamp(dt.datetime.now(dt.UTC))
        copies = []
        for delivery in deliveries:
            message_id, carried = emulation.copy_id(delivery)
            if entry:
                carried[h.HISTORY] = emulation.history_with(delivery.metadata.unimq, f"{now} {entry}")
            copies.append(Copy(delivery, message_id, carried, drop_headers=drop))
        result: BatchResult = self._confirm(lambda done: sender.forward(copies, done))
        failures = result.failures or {}
        written = [delivery for index, delivery in enumerate(deliveries) if index not in failures]
        if written:
            settled: SettleResult = self._confirm(lambda done: link.settle(written, _ACK, done))
            if settled.lost:
                raise ConnectionFailed(
                    f"{len(settled.lost)} acknowledgements were lost; those dead letters come again"
                )
        if failures:
            first = failures[min(failures)]
            raise self._supervisor.classify(first.error, Op.SEND, first.handed_over)
        return len(written)

    def _confirm(self, ask: Callable[[Callable[[Any], None]], None]) -> Any:
        """Wait for what a driver answers by callback."""
        answer: list[Any] = []
        there = threading.Event()

        def done(result: Any) -> None:
            answer.append(result)
            there.set()

        ask(done)
        drive = self._supervisor.driver_for()
        deadline = time.monotonic() + CONFIRM_S
        while not there.is_set():
            if drive is not None:
                drive()
            if not there.wait(TURN_S) and time.monotonic() >= deadline:
                raise ConnectionFailed(f"the broker does not confirm within {CONFIRM_S:g} s")
        return answer[0]
