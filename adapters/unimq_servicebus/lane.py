"""A lane: one library receiver and the owner thread that alone touches it. A receiver link has one or more.

Rules
- The library is not thread-safe: whatever is to be done with it is a command in this lane's queue.
- A turn: commands first (settlements, renewals asked for), then locks that are due, then a receive of at most `SLICE_S`; a
  command that comes while the owner is in that receive waits no longer.
- A lock ends by our own clock: the broker says so only when it is settled. A lost lock ends a delivery, a lost session or a
  broken link ends the whole receiver link.
- A session is accepted here in tries of at most `SESSION_TRY_S`, which cannot be woken; what is asked meanwhile is
  answered at once, as nothing can be held.
- When the lane ends, every command left completes, all lost: the library would never answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from azure.servicebus.exceptions import (
    OperationTimeoutError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from unimq.driver import Ack, DeadLetterOutcome, Defer, Delivery, Forget, Outcome, Release
from unimq.errors import Closed

from . import dead, errors
from .commands import Call, Command, Flush, LaneOptions, Settle

if TYPE_CHECKING:
    from .fields import ServiceBusDelivery
    from .receiver import ServiceBusReceiverLink

SLICE_S: Final = 0.1
LOCK_CHECK_S: Final = 0.1
RENEW_AT: Final = 0.5  # of the lock's length: renewed when so much of it is left
SETTLES_PER_LOCK_CHECK: Final = 50
SESSION_TRY_S: Final = 5.0
SESSION_PAUSE_S: Final = 0.5  # between tries that came back at once
SESSION_IDLE_S: Final = (
    1.0  # a session without messages makes room for the next, where the receiver takes any
)
BROWSE_POLL_S: Final = 0.5
_log = logging.getLogger("unimq.servicebus")


class Lane:
    def __init__(self, link: ServiceBusReceiverLink, options: LaneOptions) -> None:
        self.link = link
        self.options = options
        self.commands: deque[Command] = deque()
        self.ended = False
        self.accepting = options.session is not None
        self.session_id: str | None = None
        self.opened = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"unimq-sb-{options.what}", daemon=True)
        self.session: Any = None
        self._session_lock_s = 0.0
        self._locks_checked = 0.0
        self._busy_at = 0.0
        self._from_number = 1
        self._fetched_deferred = False
        self._settling: Settle | None = None

    # ------------------------------------------------------------------------------------------- any thread
    def put(self, command: Command) -> None:
        """Under the link's lock. A lane that can hold nothing answers at once (the link runs the completions)."""
        if self.ended or self.accepting:
            self._drop(command)
        else:
            self.commands.append(command)
            self.link.cond.notify_all()

    def _drop(self, command: Command) -> None:
        if isinstance(command, Settle):
            command.finish([])
        elif isinstance(command, Flush):
            command.answer()
        else:
            command.finish(
                error=self.link.error or Closed(f"{self.options.what}: no session is held, or it ended")
            )

    def end(self) -> None:
        """Complete what is left. Any thread: `close` calls it when the owner is stuck in the library."""
        with self.link.cond:
            self.ended = True
            if self._settling is not None:
                self._settling.finish([])
            while self.commands:
                self._drop(self.commands.popleft())
        self.link.completions.run()

    # ----------------------------------------------------------------------------------------- owner thread
    def _run(self) -> None:
        sdk = None
        try:
            sdk = self._open()
            while sdk is not None and self._turn(sdk):
                if self._session_is_idle():
                    self._close(sdk)
                    sdk = None  # for the case that the next one raises
                    sdk = self._open()
            if sdk is not None:
                self._hand_back(sdk)
        except Exception as error:  # whatever the library raised is what the link died of
            self.link.fail(error, session_of=self if isinstance(error, SessionLockLostError) else None)
        self.end()
        if sdk is not None:
            self._close(sdk)
        self.opened.set()

    def _open(self) -> Any:
        """The opened library receiver; None when the link ended before there was a session."""
        options = self.options
        if options.session is None:
            sdk = options.make(None)
            self._enter(sdk)
            self.opened.set()
            return sdk
        while not self.link.ending:
            sdk = options.make(options.session)
            started = time.monotonic()
            try:
                self._enter(sdk)
            except (OperationTimeoutError, SessionCannotBeLockedError) as error:
                _log.debug("%s: no session yet: %s", options.what, error)
                if time.monotonic() - started < SESSION_PAUSE_S:
                    self.link.pause(self, SESSION_PAUSE_S)
                continue
            self._take_session(sdk.session)
            self.opened.set()
            return sdk
        return None

    def _enter(self, sdk: Any) -> None:
        try:
            sdk.__enter__()
        except BaseException:
            self._close(sdk)
            raise

    def _take_session(self, session: Any) -> None:
        self.session = session
        self.session_id = session.session_id
        self._session_lock_s = _left_s(session.locked_until_utc)
        self._busy_at = time.monotonic()
        with self.link.cond:
            self.accepting = False

    def _session_is_idle(self) -> bool:
        if not self.options.rolling or time.monotonic() - self._busy_at < SESSION_IDLE_S:
            return False
        with self.link.cond:
            if self.commands or self.link.holds(self):
                return False
            self.accepting = True
            self.session_id = None
            self.link.not_starved(self)
            return True

    def _turn(self, sdk: Any) -> bool:
        self._run_commands(sdk)
        self._watch_locks(sdk)
        if self.link.ending:
            return False
        room = self.link.reserve(self)
        if not room:
            self.link.pause(self, SLICE_S)
            return True
        raws: Sequence[Any] = ()
        try:
            raws = self._fetch(sdk, room)
        finally:
            self.link.arrived(self, raws, room)
        if raws:
            self._busy_at = time.monotonic()
        return True

    def _fetch(self, sdk: Any, room: int) -> Sequence[Any]:
        mode = self.options.mode
        if mode == "browse":
            raws = sdk.peek_messages(max_message_count=room, sequence_number=self._from_number)
            if raws:
                self._from_number = raws[-1].sequence_number + 1
            else:
                self.link.pause(self, BROWSE_POLL_S)
            return list(raws)
        if mode == "deferred":
            if self._fetched_deferred or not self.options.positions:
                self.link.pause(self, SLICE_S)
                return ()
            self._fetched_deferred = True
            return list(sdk.receive_deferred_messages(list(self.options.positions)))
        return list(sdk.receive_messages(max_message_count=room, max_wait_time=SLICE_S))

    # -------------------------------------------------------------------------------------------- commands
    def _run_commands(self, sdk: Any) -> None:
        while True:
            with self.link.cond:
                if not self.commands:
                    return
                command = self.commands.popleft()
            if isinstance(command, Settle):
                self._settle(sdk, command)
            elif isinstance(command, Flush):
                command.answer()
            else:
                self._call(sdk, command)
            self.link.completions.run()

    def _settle(self, sdk: Any, command: Settle) -> None:
        lost: list[Delivery] = []
        self._settling = command
        try:
            for delivery in command.deliveries:
                if command.over:
                    break
                if not self.link.still_holds(delivery) or not self._settle_one(
                    sdk, delivery, command.outcome
                ):
                    lost.append(delivery)
                self.link.forget((delivery,))
                command.taken += 1
                if command.taken % SETTLES_PER_LOCK_CHECK == 0:
                    self._watch_locks(sdk)
        finally:
            with self.link.cond:  # where the link broke, what the broker did not answer for is lost
                command.finish(lost)
            self._settling = None

    def _settle_one(self, sdk: Any, delivery: ServiceBusDelivery, outcome: Outcome) -> bool:
        raw = delivery.raw
        try:
            if isinstance(outcome, Ack):
                sdk.complete_message(raw)
            elif isinstance(outcome, Release):
                sdk.abandon_message(raw)
            elif isinstance(outcome, DeadLetterOutcome):
                sdk.dead_letter_message(
                    raw,
                    reason=dead.cut(outcome.reason, dead.DESCRIPTION_MAX_BYTES),
                    error_description=dead.description(outcome),
                )
            elif isinstance(outcome, Defer):
                sdk.defer_message(raw)
            else:
                assert isinstance(outcome, Forget)  # answered by the link
        # the library may raise anything: a refusal loses this one, silence ends the link
        except Exception as error:
            if errors.ends_link(error) or not errors.is_refusal(error):
                raise
            _log.info("%s: a settlement was refused: %s", self.options.what, error)
            return False
        return True

    def _call(self, sdk: Any, command: Call) -> None:
        try:
            command.finish(command.run(sdk))
        # it belongs to the thread that asked, and to the link where it ends the link
        except Exception as error:
            command.finish(error=error)
            if errors.ends_link(error):
                raise

    # ----------------------------------------------------------------------------------------------- locks
    def renew(self, sdk: Any, deliveries: Sequence[ServiceBusDelivery]) -> list[Delivery]:
        """On the owner thread: those that were lost."""
        if self.session is not None:
            until = self.session.renew_lock()
            for delivery in deliveries:
                delivery.lock(until, time.time())
            return []
        lost: list[Delivery] = []
        for delivery in deliveries:
            try:
                delivery.lock(sdk.renew_message_lock(delivery.raw), time.time())
            except Exception as error:  # as in _settle_one
                if errors.ends_link(error) or not errors.is_refusal(error):
                    raise
                lost.append(delivery)
        if lost:
            self.link.locks_lost(lost)
        return lost

    def _watch_locks(self, sdk: Any) -> None:
        now_s = time.monotonic()
        if now_s - self._locks_checked < LOCK_CHECK_S:
            return
        self._locks_checked = now_s
        if self.session is not None:
            self._watch_session()
            return
        now = time.time()
        due: list[ServiceBusDelivery] = []
        expired: list[ServiceBusDelivery] = []
        for delivery in self.link.held_by(self):
            if delivery.lock_ends is None:
                continue
            left_s = delivery.lock_ends - now
            if left_s <= 0:
                expired.append(delivery)
            elif left_s <= delivery.lock_s * RENEW_AT and now < delivery.renew_until:
                due.append(delivery)
        if expired:
            self.link.locks_lost(expired)
        if due:
            self.renew(sdk, due)

    def _watch_session(self) -> None:
        """The lock is the session's. Renewed while idle too; with something held, as long as its renewal is wanted."""
        left_s = _left_s(self.session.locked_until_utc)
        if left_s <= 0:
            raise SessionLockLostError()
        if left_s > self._session_lock_s * RENEW_AT:
            return
        held = self.link.held_by(self)
        if not held or time.time() < min(delivery.renew_until for delivery in held):
            self.renew(None, held)

    # --------------------------------------------------------------------------------------------- the end
    def _hand_back(self, sdk: Any) -> None:
        """A closed link keeps its locks until they expire; abandoning hands back now, and counts no more than that does.
        A session's messages go back with the session."""
        if self.session is not None or self.options.mode == "browse":
            return
        for delivery in self.link.held_by(self):
            if time.monotonic() >= self.link.close_by:
                return
            self._settle_one(sdk, delivery, Release())

    def _close(self, sdk: Any) -> None:
        self.session = None
        try:
            sdk.close()
        except Exception as error:  # closing a broken link may fail in any way; it is gone all the same
            _log.debug("%s: closing the link: %r", self.options.what, error)


def _left_s(until: Any) -> float:
    return float("inf") if until is None else until.timestamp() - time.time()
