"""Receiving: a channel per link; deliveries are buffered by the I/O thread and taken by whoever is in `receive`.

Rules
- `receive` takes from the buffer and waits only when it is empty. Signals are per read of the socket, not per message.
- Settling is `settling.py`'s. What it says is lost is said before `Lost` or `Cancelled`.
- Too many bytes in hand shrink the prefetch: a new consumer with a smaller one takes over before the old one ends, since a
  queue may delete itself with its last consumer. Not where order counts: the one that takes over could be another process's.
- Paused means cancelled, for a consumer's prefetch is its own: with another one nothing could be held back. A queue that would
  delete itself, or of which that is not known, goes on.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import pika.exceptions
import pika.spec

from unimq.delivery import Delivery
from unimq.driver import (
    Ack,
    Cancelled,
    Done,
    Lost,
    Outcome,
    ReceiverOptions,
    SettleResult,
    Sink,
)
from unimq.errors import Closed

from . import errors, fields, topology, wire
from .loop import Loop
from .questions import Answer, Channels, guarded
from .reader import Raw
from .settling import Settling

if TYPE_CHECKING:
    from .connection import RabbitConnection

PREFETCH_MAX: Final = 65_535  # 16 bits on the wire
GROW_BELOW: Final = 4  # a shrunk prefetch grows again when less than a quarter of the bytes are in hand
BROWSE_RETURN_MAX_S: Final = 1.0  # for a queue to have back what was looked at
BROWSE_LOOK_S: Final = 0.005
_ACK: Final = Ack()
_consumers = itertools.count(1)
_log = logging.getLogger("unimq.rabbitmq")

Step = Callable[[Any, Callable[[Any], None]], Any]


class RabbitReceiver:
    """See the module. `steps` prepare the channel before it consumes `queue` (a private queue makes itself there)."""

    prefetch_keeps_order = False

    def __init__(
        self,
        connection: RabbitConnection,
        loop: Loop,
        queue: str,
        options: ReceiverOptions,
        sink: Sink,
        *,
        steps: Sequence[Step] = (),
        no_ack: bool = False,
        ordered: bool = False,
        lasting: bool = False,
    ) -> None:
        self._connection = connection
        self._loop = loop
        self.queue = queue
        self._options = options
        self._sink = sink
        self._steps = list(steps)
        self._no_ack = no_ack
        self._ordered = ordered
        self._lasting = lasting
        self._paused = False
        self._pausing: list[Callable[[], None]] = []  # who waits for nothing more to come
        self._on_receive = options.mode == "on_receive" and not no_ack
        self._counted = options.until_end or options.mode == "browse"
        self._wanted = max(1, min(options.prefetch, PREFETCH_MAX))
        self._channel: Any = None
        self._number = 0
        self._consumer = ""
        self._buffer: deque[fields.RabbitDelivery] = deque()
        self._remaining: int | None = None  # messages still to come, where the end is known
        self._seen = 0
        self._settling = Settling(loop, no_ack=no_ack, let_go=self._let_go)
        self._settling.prefetch = self._wanted
        self._held = self._held_bytes = 0
        self._resizing = False
        # the receiving side
        self._event = threading.Event()
        self._waiting = False
        self._woken = False
        self._ready_wanted = False
        self._closing = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<RabbitReceiver {self.queue}>"

    # -------------------------------------------------------------------------------------------------- opening
    def open(self, timeout_s: float) -> None:
        """Blocks until the broker has the consumer: what is sent after that is received."""
        answer = Answer()
        steps = deque([*self._steps, *([self._count] if self._counted else []), self._qos])

        def start() -> None:
            if self._loop.dead:
                answer.fail(self._loop.error or Closed("the connection is closed"))
                return
            self._channel = self._loop.connection.channel(on_open_callback=lambda _channel: step(None))
            self._number = self._channel.channel_number
            self._settling.attach(self._channel)
            self._channel.add_on_close_callback(closed)

        def step(_frame: Any) -> None:
            def work() -> None:
                if steps:
                    steps.popleft()(self._channel, step)
                elif self._counted and not self._remaining:
                    answer.set()  # there is nothing to see
                else:
                    self._consume(lambda _frame: answer.set())

            guarded(work, answer)()

        def closed(_channel: Any, reason: BaseException) -> None:
            answer.fail(reason)
            self._die(reason, Lost)

        self._loop.on_end[self] = lambda reason: self._die(reason, None)
        self._loop.call(guarded(start, answer))
        try:
            answer.wait(timeout_s, f"opening a consumer of {self.queue}")
        except BaseException:  # an interrupt too: nobody has this link yet who could close its channel
            self._closing = True
            self.close(0.0)
            raise

    def use_queue(self, name: str) -> None:
        """The name the broker gave (a step's)."""
        self.queue = name

    def _count(self, channel: Any, done: Callable[[Any], None]) -> None:
        def counted(frame: Any) -> None:
            self._remaining = frame.method.message_count
            self._settling.prefetch = self._wanted = max(1, min(self._wanted, self._remaining or 1))
            done(frame)

        channel.queue_declare(self.queue, passive=True, callback=counted)

    def _qos(self, channel: Any, done: Callable[[Any], None]) -> None:
        channel.basic_qos(prefetch_count=self._settling.prefetch, callback=done)

    def _consume(self, done: Callable[[Any], None]) -> None:
        channel = self._channel
        if not self._consumer:
            channel.add_on_cancel_callback(self._on_cancel)
            if self._loop.fast:
                self._loop.connection.fast[self._number] = self
        self._consumer = f"unimq-{next(_consumers)}"
        channel.basic_consume(
            self.queue, self._on_message, auto_ack=self._no_ack, consumer_tag=self._consumer, callback=done
        )

    # ---------------------------------------------------------------------------------- deliveries (I/O thread)
    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        at = 5 + method[4]
        self._arrived(int.from_bytes(method[at : at + 8], "big"), Raw(method, header), body)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Where pika reads the deliveries."""
        # pika itself gives back what comes for a consumer that is ending
        self._settling.tags.skipped_to(method.delivery_tag)
        self._arrived(method.delivery_tag, Raw(decoded=(method, properties)), body)
        self.after_read()

    def _arrived(self, tag: int, raw: Raw, body: bytes) -> None:
        if self._remaining is not None:
            if self._remaining <= 0:
                if not self._closing and self._options.mode != "browse":
                    self._loop.write(wire.nack_requeue(self._number, tag))
                    self._settling.tags.settled(tag)
                return
            self._remaining -= 1
            self._seen += 1
        self._held += 1
        self._held_bytes += len(body)
        self._buffer.append(fields.make_delivery(raw, body, tag, None, self))

    def after_read(self) -> None:
        if self._buffer:
            if self._waiting:
                self._event.set()
            elif self._ready_wanted:
                self._tell_ready()
        if self._remaining == 0 and self._consumer and self._options.mode != "browse":
            self._cancel_at_end()
        if (
            self._held_bytes > self._options.prefetch_bytes
            and not self._resizing
            and not self._ordered
            and self._settling.prefetch > 1
        ):
            average = self._held_bytes // max(self._held, 1)
            self._resize(
                max(1, min(self._options.prefetch_bytes // max(average, 1), self._settling.prefetch // 2))
            )
        self._settling.complete()

    def _tell_ready(self) -> None:
        self._ready_wanted = False
        if self._options.on_ready is not None:
            self._options.on_ready()

    def _cancel_at_end(self) -> None:
        consumer, self._consumer = self._consumer, ""
        if self._channel.is_open:
            self._channel.basic_cancel(consumer, callback=lambda _frame: None)

    def set_prefetch(self, count: int) -> None:
        """How many may be in hand from now on. Any thread; never blocks."""

        def work() -> None:
            self._wanted = max(1, min(count, PREFETCH_MAX))
            if self._wanted != self._settling.prefetch and not self._resizing and self._error is None:
                self._resize(self._wanted)

        self._loop.call(work)

    def pause(self, done: Callable[[], None]) -> None:
        """Nothing more comes until `resume`; `done` when the broker has heard of it. Any thread; never blocks."""

        def work() -> None:
            self._pausing.append(done)
            self._paused = True
            if not self._resizing:
                self._cancel_for_now()

        if self._error is not None:
            done()
        else:
            self._loop.call(work)

    def _cancel_for_now(self) -> None:
        consumer = self._consumer
        if self._error is None and not self._closing and self._lasting and consumer and self._channel.is_open:
            self._consumer = ""
            self._channel.basic_cancel(consumer, callback=lambda _frame: self._stands_still())
        else:
            self._stands_still()

    def _stands_still(self) -> None:
        waiting, self._pausing = self._pausing, []
        for done in waiting:
            done()

    def resume(self) -> None:
        """Any thread; never blocks."""

        def work() -> None:
            self._paused = False
            if self._error is None and not (self._closing or self._consumer) and self._channel.is_open:
                self._settling.prefetch = self._wanted
                self._settling.ask_qos(lambda: None)
                self._consume(lambda _frame: None)

        self._loop.call(work)

    def _resize(self, count: int) -> None:
        if self._error is not None or self._closing or not self._consumer or not self._channel.is_open:
            return
        old, self._resizing, self._settling.prefetch = self._consumer, True, count

        def cancelled(_frame: Any) -> None:
            self._resizing = False
            if self._paused:
                self._cancel_for_now()
            elif self._wanted < self._settling.prefetch:
                self._resize(self._wanted)  # it was narrowed meanwhile

        def consuming(_frame: Any) -> None:
            if self._channel.is_open:
                self._channel.basic_cancel(old, callback=cancelled)

        self._settling.ask_qos(lambda: None)
        self._consume(consuming)

    def _on_cancel(self, frame: Any) -> None:
        """The broker ended the consumer; the channel and the connection live."""
        if frame.method.consumer_tag != self._consumer:
            return
        error = pika.exceptions.ConsumerCancelled(f"the queue {self.queue} is gone")
        self._die(error, Cancelled)
        if self._channel.is_open:
            self._channel.close()

    # -------------------------------------------------------------------------------------------------- receiving
    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        if not self._buffer and not self._wait(timeout_s):
            return []
        if self._error is not None:
            raise self._error
        taken = self._take(max_messages)
        self._woken = False
        if self._on_receive and taken:
            self._settling.command(taken, _ACK, None)
        return taken

    def _take(self, max_messages: int) -> list[fields.RabbitDelivery]:
        buffer = self._buffer
        if len(buffer) <= max_messages:
            max_messages = len(buffer)
        try:
            return [buffer.popleft() for _ in range(max_messages)]
        except IndexError:  # the link died meanwhile and took its deliveries back
            if self._error is not None:
                raise self._error from None
            raise

    def _wait(self, timeout_s: float) -> bool:
        """True when there is something, or the link is dead."""
        if self._error is not None:
            raise self._error
        if timeout_s <= 0 or self.ended:
            self._ready_wanted, self._woken = True, False
            if self._buffer or self._error is not None:
                self._ready_wanted = False
                return True
            return False
        deadline = time.monotonic() + timeout_s
        self._event.clear()
        self._waiting = True
        try:
            while not self._buffer and self._error is None:
                left = deadline - time.monotonic()
                if self._woken or self.ended or left <= 0:
                    self._woken = False
                    return False
                self._event.wait(left)
                self._event.clear()
        finally:
            self._waiting = False
        return True

    @property
    def ended(self) -> bool:
        """Everything that was there at the opening has been handed out (`until_end`, browse)."""
        return self._counted and not self._remaining and not self._buffer

    def wake(self) -> None:
        self._woken = True
        self._event.set()

    # --------------------------------------------------------------------------------------------------- settling
    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        self._settling.command(deliveries, outcome, done)

    def flush(self, done: Done[SettleResult]) -> None:
        self._settling.command((), None, done)

    def on_qos_ok(self) -> None:
        self._settling.on_qos_ok()

    def on_confirm(self, tag: int, multiple: bool, ok: bool) -> None:
        """For the reply consumer; elsewhere nothing is published on this channel."""

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        self._held -= len(deliveries)
        for delivery in deliveries:
            if delivery.body:
                self._held_bytes -= len(delivery.body)
        if (
            self._settling.prefetch < self._wanted
            and not self._resizing
            and self._held_bytes < self._options.prefetch_bytes // GROW_BELOW
        ):
            self._resize(min(self._wanted, self._settling.prefetch * 2))

    # ---------------------------------------------------------------------------------------------------- the end
    def _die(self, error: BaseException, event: type[Lost] | type[Cancelled] | None) -> None:
        """I/O thread, once. Everything not behind a barrier is lost; then the event."""
        if self._error is not None:
            return
        self._error = error
        self._loop.on_end.pop(self, None)
        if self._loop.fast and self._loop.connection is not None:
            self._loop.connection.forget(self._number)
        self._ended_channel(error)
        self._buffer.clear()
        self._settling.die()
        self._stands_still()
        self._event.set()
        if self._ready_wanted:
            self._tell_ready()
        self._connection.forget(self)
        if self._closing or event is None or self._loop.dead or not self._loop.connection.is_open:
            return
        self._sink(event(self, error))

    def _ended_channel(self, error: BaseException) -> None:
        """For the reply consumer."""

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._closing = True
        answer = Answer()

        def start() -> None:
            if (
                self._error is not None
                or self._loop.dead
                or self._channel is None
                or not self._channel.is_open
            ):
                answer.set()
                return
            self._settling.drain()
            # A single active consumer that is cancelled lets the next one begin before its own messages are back: there the
            # channel's end does both at once. Elsewhere the cancel spares what is still to come a delivery.
            if self._consumer and not self._ordered:
                consumer, self._consumer = self._consumer, ""
                self._channel.basic_cancel(consumer, callback=lambda _frame: None)
            self.flush(lambda _result: self._close_channel(answer))

        if timeout_s > 0:
            self._loop.call(guarded(start, answer))
            try:
                answer.wait(deadline - time.monotonic(), f"closing the consumer of {self.queue}")
            except Exception:  # a peer that stays silent: what is unsettled completes as lost below
                _log.debug("closing %r", self, exc_info=True)
        gone = Answer()

        def end() -> None:
            self._die(Closed("the receiver was closed", adapter=errors.ADAPTER), None)
            if not self._loop.dead and self._channel is not None and self._channel.is_open:
                self._channel.close()
            gone.set()

        self._loop.call(guarded(end, gone))
        if not self._loop.here:
            gone.wait(max(deadline - time.monotonic(), 1.0), "closing")
            if self._options.mode == "browse" and self._seen and not self._loop.dead:
                self._await_return(min(deadline, time.monotonic() + BROWSE_RETURN_MAX_S))

    def _await_return(self, deadline: float) -> None:
        """What was looked at goes back a moment after the channel closed; who looks again must see it."""
        with Channels(self._loop, BROWSE_RETURN_MAX_S) as channels:
            try:
                while time.monotonic() < deadline:
                    found = topology.queue_depth(channels, self.queue)
                    if found is None or found[0] >= self._seen:
                        return
                    self._event.wait(BROWSE_LOOK_S)
                    self._event.clear()
            # it is a courtesy: the link is closed, and whatever broke will be found by who comes next
            except Exception:
                _log.debug("waiting for %s to have its messages back", self.queue, exc_info=True)

    def _close_channel(self, answer: Answer) -> None:
        if self._error is None and self._channel.is_open:
            if self._ordered:
                # pika's close would cancel them first, see `close`
                getattr(self._channel, "_consumers", {}).clear()
            self._channel.add_on_close_callback(lambda *_: answer.set())
            self._channel.close()
        else:
            answer.set()
