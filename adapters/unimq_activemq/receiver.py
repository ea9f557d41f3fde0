"""A link that receives from one place (and from those of `also_read`).

Rules
- ack mode client-individual, always. Never NACK: Classic dead-letters for it, Artemis deletes.
- Credit: Classic counts (`activemq.prefetchSize`); Artemis knows bytes only (`consumer-window-size`). There the window
  begins at `prefetch` small messages (one message at a time for a prefetch of 1). When it is taken up by fewer, larger
  ones, one more subscription doubles it, up to `prefetch_bytes`: who takes `prefetch` before settling any gets them.
  What comes beyond `prefetch` waits here, held from other consumers. Classic has no bound in bytes, and pages a backlog
  in by 200 (`maxPageSize` as shipped): of a prefetch beyond that the rest comes after the first ACK (seen).
- The last ACK of a batch asks for a receipt. A broker handles one connection's frames in order, and an ACK it does not
  take is an ERROR before that receipt: an ERROR that names no receipt makes every open settlement count as lost.
- Closing unsubscribes: what is unsettled goes back in its old order. A copy is never made for it.
- Browsing: Classic has browsers. On Artemis what is looked at is held, and given back in its order and uncounted by
  unsubscribing (seen).
- on_receive: a message is handed out when the broker has confirmed its ACK, so it can never come again.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from unimq.delivery import Delivery
from unimq.driver import ALL_SETTLED, Ack, Done, Forget, Outcome, Place, ReceiverOptions, SettleResult

from . import names
from .errors import NoReceipt, StompError, closed
from .fields import StompDelivery, encode, escaped
from .session import CALL_TIMEOUT_S, Exchange, Failures, Session

_log = logging.getLogger("unimq.activemq")

ARTEMIS_SMALL_BYTES: Final = (
    1024  # what a small message takes of Artemis' window, its headers and overhead included
)
GROW_AT: Final = 0.5  # of the window: sizes are estimates here

_numbers = itertools.count(1)


class ReceiverLink:
    def __init__(self, session: Session, ref: names.Ref, flavour: str, options: ReceiverOptions) -> None:
        self._session = session
        self._flavour = flavour
        self._options = options
        self._acks_first = options.mode == "on_receive"
        self._browsing = options.mode == "browse"
        self._cond = threading.Condition()
        self._arrived: deque[StompDelivery] = deque()
        self._ready: deque[StompDelivery] = deque()  # on_receive: acknowledged, not handed out yet
        self._acking = 0
        self._in_hand = 0
        self._held_bytes = 0  # arrived and not settled
        self._window = 0  # Artemis: of all subscriptions to the source
        self._waiting = self._armed = self._woken = False
        self._dead: BaseException | None = None
        self._settling: set[Exchange] = set()
        self._flushes: list[tuple[set[Exchange], Done[SettleResult]]] = []
        self._lost: list[Delivery] = []
        self._unclaimed = session.unclaimed
        self._subscriptions: dict[str, Place | None] = {}
        self._places: list[tuple[names.Ref, Place | None]] = [(ref, None)]
        self._places += [(place.ref, place) for place in options.also_read]

    def open(self) -> None:
        """Subscribes and waits until the broker has: what is sent from now on is received."""
        self._session.on_end(self._on_end)
        try:
            for ref, place in self._places:
                self._window = 0
                subscription = f"s{next(_numbers)}"
                self._subscriptions[subscription] = place
                self._session.listen(subscription, self._listener(place, ref.origin))
                self._session.call("SUBSCRIBE", self._subscribe(subscription, ref))
        except BaseException as error:
            self._dead = error
            self._leave(time.monotonic() + 1.0)
            raise

    def _subscribe(self, subscription: str, ref: names.Ref) -> dict[str, str]:
        place = names.native(ref, self._flavour)
        headers = {"id": subscription, "destination": place.destination, "ack": "client-individual"}
        prefetch = max(self._options.prefetch, 1)
        if self._flavour == names.CLASSIC:
            headers["activemq.prefetchSize"] = str(prefetch)
            if self._browsing:
                headers["browser"] = "true"
            return headers
        small = 1 if prefetch == 1 else prefetch * ARTEMIS_SMALL_BYTES
        window = max(min(self._window or small, self._options.prefetch_bytes - self._window), 1)
        self._window += window
        headers["consumer-window-size"] = str(window)
        headers["subscription-type"] = place.routing or "ANYCAST"
        if ref.origin is not None:
            queue = names.native(ref.origin, self._flavour).queue.replace("'", "''")
            headers["selector"] = f"_AMQ_ORIG_QUEUE = '{queue}'"
        return headers

    # ------------------------------------------------------------------------------------ the receiver thread
    def _listener(self, place: Place | None, origin: names.Ref | None) -> Any:
        only = None
        if origin is not None and self._flavour == names.CLASSIC:
            # no selector sees it: left unsettled, given back
            only = names.native(origin, self._flavour).destination

        windowed = self._flavour == names.ARTEMIS

        def on_message(frame: Any) -> None:
            headers = frame.headers
            if "browser" in headers and headers["browser"] == "end":
                return
            if only is not None and headers.get("original-destination") != only:
                return
            body = None if "unimq_null" in headers else frame.body
            delivery = StompDelivery(frame, body, headers.get("ack"), place, self)
            self._arrived.append(delivery)
            if windowed:
                self._held_bytes += delivery.size
                if self._held_bytes > self._window * GROW_AT:
                    self._grow()
            if self._waiting or self._armed:
                self._announce()

        return on_message

    def _grow(self) -> None:
        """One more subscription, with as much window as there is; nobody waits for it."""
        with self._cond:
            count = len(self._arrived) + len(self._ready) + self._acking + self._in_hand
            full = count >= self._options.prefetch and not self._browsing
            if full or self._dead is not None or self._window >= self._options.prefetch_bytes:
                return
            ref, place = self._places[0]
            subscription = f"s{next(_numbers)}"
            self._subscriptions[subscription] = place
            headers = self._subscribe(subscription, ref)
        self._session.listen(subscription, self._listener(place, ref.origin))
        self._session.write(encode("SUBSCRIBE", headers))

    def _announce(self) -> None:
        with self._cond:
            armed, self._armed = self._armed, False
            self._cond.notify_all()
        if armed and self._options.on_ready is not None:
            self._options.on_ready()

    def _on_end(self, error: BaseException) -> None:
        with self._cond:
            if self._dead is None:
                self._dead = error
        self._announce()

    # ---------------------------------------------------------------------------------------------- receiving
    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        deadline = time.monotonic() + timeout_s
        while True:
            to_ack: list[StompDelivery] = []
            with self._cond:
                if self._dead is not None:
                    raise self._dead
                self._waiting = True  # before the look: who arrives after it sees this
                try:
                    taken = self._take(max_messages)
                    if taken:
                        return taken
                    if self._acks_first and self._arrived and not self._acking:
                        while self._arrived and len(to_ack) < max_messages:
                            to_ack.append(self._arrived.popleft())
                        self._acking = len(to_ack)
                    elif self._woken:
                        self._woken = False
                        return ()
                    elif (left := deadline - time.monotonic()) <= 0:
                        self._armed = True
                        if not self._available():
                            return ()
                        self._armed = False
                    else:
                        self._cond.wait(left)
                finally:
                    self._waiting = False
            if to_ack:
                self._ack_first(to_ack)

    def _available(self) -> bool:
        if self._acks_first:
            return bool(self._ready) or (bool(self._arrived) and not self._acking)
        return bool(self._arrived) and self._in_hand < self._options.prefetch

    def _take(self, max_messages: int) -> list[StompDelivery]:
        """At most `prefetch` are in hand: Artemis' window may have let more arrive."""
        if self._acks_first:
            taken = [self._ready.popleft() for _ in range(min(max_messages, len(self._ready)))]
        else:
            room = len(self._arrived) if self._browsing else self._options.prefetch - self._in_hand
            taken = [
                self._arrived.popleft() for _ in range(min(max_messages, len(self._arrived), max(room, 0)))
            ]
            self._in_hand += 0 if self._browsing else len(taken)
        return taken

    def _ack_first(self, deliveries: list[StompDelivery]) -> None:
        size = sum(delivery.size for delivery in deliveries) if self._flavour == names.ARTEMIS else 0

        def acked(result: SettleResult) -> None:
            lost = set(map(id, result.lost))
            with self._cond:
                self._acking = 0
                self._held_bytes -= size
                self._ready.extend(delivery for delivery in deliveries if id(delivery) not in lost)
            self._announce()

        self._acknowledge(deliveries, acked)

    def wake(self) -> None:
        with self._cond:
            self._woken = True
            self._cond.notify_all()

    # ----------------------------------------------------------------------------------------------- settling
    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        if isinstance(outcome, Forget) or self._acks_first or self._browsing:
            self._free(deliveries, taken=not (self._acks_first or self._browsing))
            self._session.trampoline.run(lambda: done(ALL_SETTLED))
            return
        # the plan names places for these: the core copies, then acknowledges
        if not isinstance(outcome, Ack):
            _log.error("settle(%s) is not native here; nothing was sent", type(outcome).__name__)
            self._session.trampoline.run(lambda: done(SettleResult(lost=deliveries)))
            return
        if self._dead is not None or not deliveries:
            self._session.trampoline.run(lambda: done(SettleResult(lost=deliveries)))
            return
        self._acknowledge(deliveries, done)
        self._free(deliveries, taken=True)

    def _free(self, deliveries: Sequence[Delivery], *, taken: bool) -> None:
        size = 0
        if self._flavour == names.ARTEMIS and taken:
            size = sum(delivery.size for delivery in deliveries if isinstance(delivery, StompDelivery))
        with self._cond:
            self._held_bytes = max(self._held_bytes - size, 0)
            if taken:
                self._in_hand = max(self._in_hand - len(deliveries), 0)
            tell = self._armed and self._available()
        if tell or self._waiting:
            self._announce()

    def _acknowledge(self, deliveries: Sequence[Delivery], done: Done[SettleResult]) -> None:
        key = str(self._session.reserve(1))
        lines = [f"ACK\nid:{escaped(delivery.tag)}\n\n\0" for delivery in deliveries[:-1]]
        lines.append(f"ACK\nid:{escaped(deliveries[-1].tag)}\nreceipt:{key}\n\n\0")
        unclaimed = self._session.unclaimed

        def finish(failures: Failures | None) -> None:
            sure = failures is None and self._session.unclaimed == unclaimed
            result = ALL_SETTLED if sure else SettleResult(lost=deliveries)
            with self._cond:
                self._settling.discard(exchange)
                self._lost.extend(result.lost)
                flushed = self._flushed(exchange)
            done(result)
            for call, what in flushed:
                call(what)

        exchange = Exchange((key,), (0,), finish)
        with self._cond:
            self._settling.add(exchange)
        complete = self._session.post(["".join(lines).encode()], exchange)
        if complete is not None:
            complete()

    def flush(self, done: Done[SettleResult]) -> None:
        """Every settlement has its own receipt: what is open now is all there is to wait for."""
        with self._cond:
            if self._settling:
                self._flushes.append((set(self._settling), done))
                return
            result = self._take_lost()
        self._session.trampoline.run(lambda: done(result))

    def _flushed(self, exchange: Exchange) -> list[tuple[Done[SettleResult], SettleResult]]:
        """Under the lock: the flushes that waited for this one last."""
        ready: list[tuple[Done[SettleResult], SettleResult]] = []
        for entry in list(self._flushes):
            entry[0].discard(exchange)
            if not entry[0]:
                self._flushes.remove(entry)
                ready.append((entry[1], self._take_lost()))
        return ready

    def _take_lost(self) -> SettleResult:
        lost, self._lost = self._lost, []
        return SettleResult(lost=lost) if lost else ALL_SETTLED

    # ------------------------------------------------------------------------------------------------ closing
    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._cond:
            if self._dead is None:
                self._dead = closed("receiver")
        self._announce()
        self._leave(deadline)

    def _leave(self, deadline: float) -> None:
        """UNSUBSCRIBE with a receipt: it stands behind every ACK, so those are confirmed too when it comes."""
        self._session.forget_end(self._on_end)
        for subscription in list(self._subscriptions):
            del self._subscriptions[subscription]
            if self._session.error is None and (left := deadline - time.monotonic()) > 0:
                try:
                    self._session.call("UNSUBSCRIBE", {"id": subscription}, min(left, CALL_TIMEOUT_S))
                except (NoReceipt, StompError, OSError) as error:
                    _log.debug("no goodbye of a subscription: %s", error)
            elif self._session.error is None:
                self._session.write(encode("UNSUBSCRIBE", {"id": subscription}))
            self._session.unlisten(subscription)
        if self._settling:
            self._session.settle_all(
                tuple(self._settling), closed("receiver"), max(deadline - time.monotonic(), 1.0)
            )
