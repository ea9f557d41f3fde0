"""A receiver link: lanes (the source, and the private retry queue of a subscription) into one buffer.

Rules
- `prefetch` bounds what is buffered and handed out together, over all lanes; a lane reserves room before it asks the broker.
- Deliveries are settled on the lane that brought them. Every settlement has the broker's answer, so a flush, an answer of
  every lane behind them, has no loss to name that was not named before.
- If one lane ends, the link ends: what is held is void, and the healthy lanes hand theirs back.
- Everything here is bookkeeping under one lock; nothing in here does I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from unimq.driver import (
    ALL_SETTLED,
    Ack,
    Delivery,
    Done,
    Forget,
    LockLostEvent,
    Lost,
    Outcome,
    ReceiverOptions,
    SettleResult,
    Sink,
)
from unimq.errors import Closed, ConnectionFailed, Unsupported

from .commands import Call, Flush, LaneOptions, Settle
from .completions import Completions
from .fields import ServiceBusDelivery
from .lane import Lane

RECEIVE_BATCH_MAX: Final = 100
CALL_WAIT_S: Final = 30.0  # a renewal or a session's state
SESSION_OPEN_WAIT_S: Final = (
    1.0  # so long an opening waits for a session, or for the reason why there is none
)
RENEW_FOR_S: Final = 300.0
_log = logging.getLogger("unimq.servicebus")


class ServiceBusReceiverLink:
    def __init__(self, lanes: Sequence[LaneOptions], options: ReceiverOptions, sink: Sink) -> None:
        self.cond = threading.Condition()
        self.completions = Completions()
        self.error: BaseException | None = None
        self.close_by = float("inf")
        self._sink = sink
        self._mode = options.mode
        self._prefetch = max(options.prefetch, 1)
        self._prefetch_bytes = options.prefetch_bytes
        self._on_ready = options.on_ready
        # The seam has no field for the bound of automatic renewal yet; until it has one it travels in `native`.
        self._renew_for_s = float(options.native.get("lock_renewal_max_s", RENEW_FOR_S))
        self._buffer: deque[ServiceBusDelivery] = deque()
        self._held: dict[int, ServiceBusDelivery] = {}
        self._held_bytes = 0
        self._reserved = 0
        self._starved: Lane | None = None
        self._next_tag = 0
        self._armed = False
        self._woken = False
        self._closing = False
        self._lanes = [Lane(self, lane) for lane in lanes]

    def open(self, timeout_s: float) -> None:
        """Blocks until every lane is attached, or, with sessions, until one is there or `SESSION_OPEN_WAIT_S` is over.
        Raises what the library raised."""
        for lane in self._lanes:
            lane.thread.start()
        end = time.monotonic() + timeout_s
        for lane in self._lanes:
            if lane.options.session is not None:
                lane.opened.wait(min(SESSION_OPEN_WAIT_S, timeout_s))
            elif not lane.opened.wait(max(end - time.monotonic(), 0)):
                self.fail(TimeoutError(f"{lane.options.what}: the link did not open within {timeout_s:g} s"))
            if self.error is not None:
                raise self.error

    # ---------------------------------------------------------------------------------------------- the seam
    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        end = time.monotonic() + timeout_s
        with self.cond:
            while True:
                if self._closing:
                    raise Closed("the receiver is closed")
                if self.error is not None:
                    raise self.error
                left_s = end - time.monotonic()
                if self._buffer or self._woken or left_s <= 0:
                    break
                self.cond.wait(left_s)
            self._woken = False
            out = [self._buffer.popleft() for _ in range(min(max_messages, len(self._buffer)))]
            if not out:
                self._armed = True
            elif self._mode == "browse":
                self._drop(out)
        if out and self._mode == "on_receive":
            self.settle(out, Ack(), self._taken)
        return out

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        with self.cond:
            if isinstance(outcome, Forget):
                self._drop(deliveries)
                self.completions.add(done, ALL_SETTLED)
            else:
                by_lane: dict[Lane, list[ServiceBusDelivery]] = {}
                for delivery in cast(Sequence[ServiceBusDelivery], deliveries):  # made by this link
                    by_lane.setdefault(delivery.lane, []).append(delivery)
                answer = self._gather(len(by_lane), done)
                for lane, some in by_lane.items():
                    lane.put(Settle(some, outcome, answer))
        self.completions.run()

    def flush(self, done: Done[SettleResult]) -> None:
        left = len(self._lanes)

        def answer() -> None:
            nonlocal left
            with self.cond:
                left -= 1
                if left == 0:
                    self.completions.add(done, ALL_SETTLED)

        with self.cond:
            for lane in self._lanes:
                lane.put(Flush(answer))
        self.completions.run()

    def wake(self) -> None:
        with self.cond:
            self._woken = True
            self.cond.notify_all()

    def close(self, timeout_s: float) -> None:
        with self.cond:
            self._closing = True
            self.close_by = time.monotonic() + timeout_s
            self.cond.notify_all()
        for lane in self._lanes:
            if lane.thread.is_alive() and lane.thread is not threading.current_thread():
                lane.thread.join(max(self.close_by - time.monotonic(), 0))
            lane.end()
        with self.cond:
            self._drop(list(self._held.values()))
            self._buffer.clear()

    # -- optional: LockRenewal, Sessions
    def renew(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        lost: list[Delivery] = []
        by_lane: dict[Lane, list[ServiceBusDelivery]] = {}
        with self.cond:
            for delivery in deliveries:
                if isinstance(delivery, ServiceBusDelivery) and delivery.tag in self._held:
                    by_lane.setdefault(delivery.lane, []).append(delivery)
                else:
                    lost.append(delivery)
        for lane, some in by_lane.items():
            lost += self._ask(lane, partial(lane.renew, deliveries=some))
        return lost

    @property
    def session_id(self) -> str | None:
        return self._lanes[0].session_id

    def get_state(self) -> bytes | None:
        state = self._ask(self._session_lane(), lambda sdk: sdk.session.get_state())
        return None if state is None else bytes(state)

    def set_state(self, state: bytes | None) -> None:
        self._ask(self._session_lane(), lambda sdk: sdk.session.set_state(state))

    def _session_lane(self) -> Lane:
        lane = self._lanes[0]
        if lane.options.session is None:
            raise Unsupported("this receiver was opened without a session", adapter="servicebus")
        return lane

    def _ask(self, lane: Lane, run: Callable[[Any], Any]) -> Any:
        call = Call(run)
        with self.cond:
            lane.put(call)
        if not call.over.wait(CALL_WAIT_S):
            raise ConnectionFailed(
                f"{lane.options.what}: no answer within {CALL_WAIT_S:g} s", adapter="servicebus"
            )
        if call.error is not None:
            raise call.error
        return call.result

    # -------------------------------------------------------------------------------------- for the lanes
    @property
    def ending(self) -> bool:
        return self._closing or self.error is not None

    @property
    def ended(self) -> bool:
        return all(lane.ended for lane in self._lanes)

    def pause(self, lane: Lane, timeout_s: float) -> None:
        """Until anything changes."""
        with self.cond:
            if not self.ending and not lane.commands:
                self.cond.wait(timeout_s)

    def not_starved(self, lane: Lane) -> None:
        """Under the lock: the lane wants no room for now."""
        if self._starved is lane:
            self._starved = None

    def reserve(self, lane: Lane) -> int:
        """How many the lane may ask the broker for; a lane that got nothing comes first next time."""
        with self.cond:
            room = self._prefetch - len(self._held) - self._reserved
            if self._held_bytes >= self._prefetch_bytes:
                room = 0
            if room <= 0 or (self._starved is not None and self._starved is not lane):
                self._starved = self._starved or lane
                return 0
            self._starved = None
            room = min(-(-room // len(self._lanes)), RECEIVE_BATCH_MAX)
            self._reserved += room
            return room

    def arrived(self, lane: Lane, raws: Sequence[Any], reserved: int) -> None:
        """Always called after `reserve`, also with nothing."""
        now = time.time()
        place = lane.options.place
        ready = False
        with self.cond:
            self._reserved -= reserved
            for raw in raws:
                self._next_tag += 1
                delivery = ServiceBusDelivery(raw, self._next_tag, place, self, lane)
                delivery.lock(
                    None if self._mode == "browse" else _locked_until(raw, lane),
                    now,
                    renew_for_s=self._renew_for_s,
                )
                self._held[delivery.tag] = delivery
                self._held_bytes += len(delivery.body or b"")
                self._buffer.append(delivery)
            if raws:
                ready, self._armed = self._armed, False
            self.cond.notify_all()
        if ready and self._on_ready is not None:
            self._on_ready()

    def held_by(self, lane: Lane) -> list[ServiceBusDelivery]:
        with self.cond:
            return [delivery for delivery in self._held.values() if delivery.lane is lane]

    def holds(self, lane: Lane) -> bool:
        return any(delivery.lane is lane for delivery in self._held.values())

    def still_holds(self, delivery: ServiceBusDelivery) -> bool:
        return delivery.tag in self._held

    def forget(self, deliveries: Sequence[ServiceBusDelivery]) -> None:
        with self.cond:
            self._drop(deliveries)

    def _drop(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._held.pop(delivery.tag, None) is not None:
                self._held_bytes -= len(delivery.body or b"")
        self.cond.notify_all()

    def locks_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Their locks are gone. Those nobody has seen yet simply are not there any more."""
        with self.cond:
            gone = {id(delivery) for delivery in deliveries}
            unseen = {id(delivery) for delivery in self._buffer} & gone
            self._buffer = deque(d for d in self._buffer if id(d) not in gone)
            self._drop(deliveries)
        for delivery in deliveries:
            delivery.lock_lost = True
        seen = [delivery for delivery in deliveries if id(delivery) not in unseen]
        if seen:
            self._sink(LockLostEvent(self, seen))

    def fail(self, error: BaseException, *, session_of: Lane | None = None) -> None:
        """The link is dead. `session_of`: because that lane's session is lost, and with it every lock of it."""
        if session_of is not None:
            self.locks_lost(self.held_by(session_of))
        with self.cond:
            if self.ending:
                return
            self.error = error
            report = all(lane.opened.is_set() or lane.options.session is not None for lane in self._lanes)
            ready, self._armed = self._armed, False
            self.cond.notify_all()
        if report:
            self._sink(Lost(self, error))
        if ready and self._on_ready is not None:
            self._on_ready()

    # ------------------------------------------------------------------------------------------- settlements
    def _gather(self, parts: int, done: Done[SettleResult]) -> Callable[[list[Delivery]], None]:
        """One `done` for the answers of `parts` lanes."""
        if parts == 0:
            self.completions.add(done, ALL_SETTLED)
        left = parts
        every: list[Delivery] = []

        def answer(lost: list[Delivery]) -> None:
            nonlocal left
            with self.cond:
                left -= 1
                every.extend(lost)
                self._drop(lost)
                if left == 0:
                    self.completions.add(done, SettleResult(every) if every else ALL_SETTLED)

        return answer

    def _taken(self, result: SettleResult) -> None:
        if result.lost:
            _log.warning("%d deliveries were handed out and will come again: not settled", len(result.lost))


def _locked_until(raw: Any, lane: Lane) -> Any:
    session = lane.session
    return session.locked_until_utc if session is not None else raw.locked_until_utc
