"""Sending: a channel in confirm mode per link; batches are encoded by the caller and written in one go by the I/O thread.

Rules
- The order of `submit` and `forward` is the order on the wire. A batch is begun before its deadline or not at all.
- At most `OUTSTANDING_MAX` messages are accepted and not finished; then `submit` answers 0 and `Room` follows.
- While the broker blocks the connection nothing is begun; what waits fails at its deadline as not handed over.
- A queue's messages are `mandatory`: what comes back is `Unroutable`. A topic's are only with `unroutable="error"`.
- When the channel dies, what was written is handed over, what was not is not; then `Lost` says so.
- `done` is called on the I/O thread, one after the other, from a queue: sending again inside it nests nothing.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pika.spec

from unimq.driver import Batch, BatchResult, Copy, Done, Failed, Lost, Room, SenderOptions, Sink
from unimq.errors import Closed, MessageTooLarge, SendTimeout

from . import errors, fields, names, topology, wire
from .confirms import Open, spans
from .loop import Loop
from .publisher import Parcel, Publisher, Route
from .questions import Answer, guarded

if TYPE_CHECKING:
    from .connection import RabbitConnection

OUTSTANDING_MAX: Final = 4_096
ROOM_AT: Final = OUTSTANDING_MAX // 2
CHUNK_BYTES: Final = (
    65_536  # frames are joined up to this: few system calls, and a partial write copies little
)
REPLY_TO: Final = names.DIRECT_REPLY
_log = logging.getLogger("unimq.rabbitmq")


class RabbitSender:
    """See the module."""

    def __init__(
        self,
        connection: RabbitConnection,
        loop: Loop,
        route: Route,
        options: SenderOptions,
        sink: Sink,
        *,
        ask: bool = True,
    ) -> None:
        self._ask = ask  # whether its place is there
        self._connection = connection
        self._loop = loop
        self._options = options
        self._sink = sink
        self.route = route
        self._publisher = Publisher(self)
        self._max_body = connection.capabilities.max_message_bytes or 2**63
        self._waiting: deque[Parcel] = deque()
        self._accepted = 0  # written by submit and forward alone (under the core's lock)
        self._forward_lock = threading.Lock()
        self.finished_count = 0  # written by the I/O thread alone
        self._wants_room = False
        self._completing = False
        self._error: BaseException | None = None
        self._closing = False
        self._idle = threading.Event()
        self._methods: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"<RabbitSender {self.route.text}>"

    # -------------------------------------------------------------------------------------------------- opening
    def open(self, timeout_s: float) -> None:
        answer = Answer()

        def start() -> None:
            if self._loop.dead:
                answer.fail(self._loop.error or Closed("the connection is closed"))
                return
            channel = self._loop.connection.channel(on_open_callback=opened)
            channel.unimq_asks = True
            channel.add_on_close_callback(closed)
            self._publisher.channel = channel
            self._publisher.number = channel.channel_number

        def opened(channel: Any) -> None:
            if self._ask and self.route.key is not None:
                # Who may not write here should hear it now, and not from the first message. It goes to no queue, before there
                # are confirms: all that can come of it is the end of the channel.
                channel.basic_publish("", f"unimq-may-write-{secrets.token_hex(8)}", b"")
            channel.add_on_return_callback(self._publisher.on_return)
            # without a callback it asks for no answer
            channel.confirm_delivery(self._publisher.on_pika_confirm)
            # The place must be there: asked on this very channel, behind the confirm.select, so it is one round trip for both.
            # Passive: that needs no right to configure. What is not there closes the channel.
            if not self._ask or (self.route.key or "").startswith(REPLY_TO):
                ready(None)
            elif self.route.key is None:
                channel.exchange_declare(self.route.exchange, passive=True, callback=ready)
            else:
                channel.queue_declare(self.route.key, passive=True, callback=ready)

        def ready(_frame: Any) -> None:
            if self._loop.fast:
                self._loop.connection.fast[self._publisher.number] = self._publisher
            self._publisher.channel.unimq_asks = False  # from here on pika may warn of its end
            answer.set()

        def closed(_channel: Any, reason: BaseException) -> None:
            if not answer.over:
                self._closing = True  # nobody has this link yet: the answer tells it, not an event
            answer.fail(topology.not_there(self.route, reason))
            self._channel_closed(reason)

        self._loop.on_end[self] = self._channel_closed
        self._loop.call(guarded(start, answer))
        try:
            answer.wait(timeout_s, f"opening a channel for {self.route.text}")
        except BaseException:  # an interrupt too: nobody has this link yet who could take its callback away
            self._loop.on_end.pop(self, None)
            raise

    # --------------------------------------------------------------------------------------------------- sending
    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        count = len(batch)
        room = OUTSTANDING_MAX - (self._accepted - self.finished_count)
        if room < count and self._error is None:
            if room <= 0:
                self._wants_room = True
                room = OUTSTANDING_MAX - (self._accepted - self.finished_count)
                if room <= 0:
                    return 0
                self._wants_room = False
            count = min(count, room)
        parcel = self._encode(batch, count, done)
        with self._forward_lock:
            self._accepted += count
            self._waiting.append(parcel)
        self._loop.call(self._pump)
        return count

    def _encode(self, batch: Batch, count: int, done: Done[BatchResult]) -> Parcel:
        route, ids, bodies, messages = self.route, batch.ids, batch.bodies, batch.messages
        types = batch.content_types
        number, frame_max = self._publisher.number, self._loop.body_frame_max
        fixed = self._method(route.key) if route.key is not None else None
        keyed, waits, max_body = route.key is None, route.waits, self._max_body
        frames: list[bytes] = []
        failures: dict[int, Failed] = {}
        written: list[int] = []
        native: list[tuple[str, bytes, bytes]] = []
        slow = not self._loop.fast

        def match(index: int, message_id: str | None, key: str, body: bytes) -> bool:
            if ids is not None:
                return message_id == fields.short_id(ids[index])
            return (bodies[index] or b"") == body and (not keyed or (messages[index].subject or "") == key)

        opened = Open(count, done, match)
        parts: list[tuple[int, int, list[bytes]]] = []
        for index in range(count):
            message, body = messages[index], bodies[index]
            try:
                if body is not None and len(body) > max_body:
                    raise MessageTooLarge(
                        f"{len(body)} bytes: {self._connection.capabilities.found} takes {max_body}"
                    )
                kind = message.content_type
                if types is not None:
                    kind = types.get(index, kind)
                properties = fields.encode(
                    message, body is None, ids[index] if ids is not None else None, kind, keyed, waits
                )
                method = fixed if fixed is not None else self._method(message.subject or "")
            except Exception as error:  # one message that cannot be carried must not take the others with it
                failures[index] = Failed(error, handed_over=False)
                continue
            if message.reply_to == REPLY_TO:
                self._request(
                    opened,
                    index,
                    message.subject if keyed else route.key,
                    properties,
                    body or b"",
                    batch.deadline,
                )
                continue
            if slow:
                native.append((message.subject or "" if keyed else route.key or "", properties, body or b""))
            else:
                frames.append(method)
                wire.content(number, properties, body or b"", frame_max, frames)
            written.append(index)
        if len(written) == count:
            parts.append((0, count, frames))
        else:
            parts.extend((first, size, []) for first, size in spans(written))
            if parts:
                parts[-1] = (parts[-1][0], parts[-1][1], frames)
        if failures:
            self._loop.call(lambda: self._refused(opened, failures))
        return Parcel(opened, parts, batch.deadline, len(written), native)

    def _method(self, key: str) -> bytes:
        found = self._methods.get(key)
        if found is None:
            if len(self._methods) >= 1024:
                self._methods.clear()
            found = self._methods[key] = wire.publish_method(
                self._publisher.number, self.route.exchange, key, self.route.mandatory
            )
        return found

    def _request(
        self, batch: Open, index: int, key: str | None, properties: bytes, body: bytes, deadline: float
    ) -> None:
        """Direct reply-to works only on the channel of the reply consumer."""

        def done(result: BatchResult) -> None:
            if result.failures is None:
                batch.left -= 1
            else:
                batch.fail(index, result.failures[0])
            self.finished_count += 1
            self._finish(batch)

        frames = (self.route.exchange, key or "", properties, body, self.route.text)
        self._loop.call(lambda: self._connection.requests.publish(frames, deadline, done))

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        number, frame_max, route = self._publisher.number, self._loop.body_frame_max, self.route
        frames: list[bytes] = []
        ids: list[str] = []
        failures: dict[int, Failed] = {}
        written: list[int] = []
        native: list[tuple[str, bytes, bytes]] = []
        for index, copy in enumerate(copies):
            try:
                properties, body, subject, message_id = fields.encode_copy(
                    copy, route.key is None, route.waits
                )
                key = route.key if route.key is not None else subject or ""
                method = self._method(key)
            except Exception as error:  # as in `_encode`
                failures[index] = Failed(error, handed_over=False)
                ids.append("")
                continue
            ids.append(message_id)
            if self._loop.fast:
                frames.append(method)
                wire.content(number, properties, body, frame_max, frames)
            else:
                native.append((key, properties, body))
            written.append(index)
        opened = Open(len(copies), done, lambda index, message_id, _key, _body: message_id == ids[index])
        parts: list[tuple[int, int, list[bytes]]] = [(first, size, []) for first, size in spans(written)]
        if parts:
            parts[-1] = (parts[-1][0], parts[-1][1], frames)
        if failures:
            self._loop.call(lambda: self._refused(opened, failures))
        with self._forward_lock:
            self._accepted += len(copies)
            self._waiting.append(Parcel(opened, parts, float("inf"), len(written), native))
        self._loop.call(self._pump)

    # ------------------------------------------------------------------------------------------ on the I/O thread
    def _refused(self, batch: Open, failures: dict[int, Failed]) -> None:
        for index, failed in failures.items():
            batch.fail(index, failed)
        self.finished_count += len(failures)
        self._finish(batch)

    def _finish(self, batch: Open) -> None:
        if batch.left == 0:
            batch.left = -1
            self._publisher.finished.append(batch)
        self.complete()

    def _pump(self) -> None:
        """Write what waits, unless the broker blocks."""
        waiting, now = self._waiting, time.monotonic()
        out: list[bytes] = []
        size = 0
        while waiting:
            parcel = waiting[0]
            if self._loop.dead or self._error is not None:
                error = self._error or self._loop.error or Closed("the link is closed")
                self._unsent(waiting.popleft(), error)
                continue
            if parcel.deadline < now:
                why = "the broker blocks the connection" if self._loop.blocked else "the time was up"
                self._unsent(
                    waiting.popleft(), SendTimeout(f"{why} before it was begun", adapter=errors.ADAPTER)
                )
                continue
            if self._loop.blocked:
                if parcel.deadline != float("inf"):
                    self._loop.connection.ioloop.call_later(parcel.deadline - now + 0.001, self._pump)
                break
            waiting.popleft()
            for first, count, frames in parcel.parts:
                self._publisher.ledger.published(parcel.open, first, count)
                for piece in frames:
                    out.append(piece)
                    size += len(piece)
                    if size >= CHUNK_BYTES:
                        self._loop.write(b"".join(out))
                        out, size = [], 0
            self._publish_by_pika(parcel.native)
            if parcel.open.left == 0:  # nothing of it was to be written
                self._finish(parcel.open)
        if out:
            self._loop.write(b"".join(out))

    def _publish_by_pika(self, messages: list[tuple[str, bytes, bytes]]) -> None:
        for key, properties, body in messages:
            decoded = pika.spec.BasicProperties().decode(properties)
            self._publisher.channel.basic_publish(
                self.route.exchange, key, body, decoded, mandatory=self.route.mandatory
            )

    def _unsent(self, parcel: Parcel, error: BaseException) -> None:
        for first, count, _ in parcel.parts:
            for index in range(first, first + count):
                parcel.open.fail(index, Failed(error, handed_over=False))
        self.finished_count += parcel.count
        self._finish(parcel.open)

    def unblocked(self) -> None:
        self._pump()

    def complete(self) -> None:
        """Tell what is finished. Not re-entrant: what finishes inside a `done` is told by the outer call."""
        if self._completing:
            return
        self._completing = True
        try:
            finished = self._publisher.finished
            while finished:
                batch = finished.popleft()
                batch.done(batch.result())
        finally:
            self._completing = False
        outstanding = self._accepted - self.finished_count
        if self._wants_room and outstanding <= ROOM_AT and self._error is None:
            self._wants_room = False
            self._sink(Room(self))
        if outstanding == 0:
            self._idle.set()

    def limit(self) -> str | None:
        return None if self.route.key is None else self._connection.limited_queues.get(self.route.key)

    def _channel_closed(self, reason: BaseException) -> None:
        """Also when the connection died: pika closes its channels first."""
        if self._error is not None:
            return
        self._error = reason
        if self._loop.fast:
            self._loop.connection.forget(self._publisher.number)
        self.finished_count += self._publisher.ledger.all_failed(Failed(reason, handed_over=True))
        self._pump()
        self.complete()
        self._idle.set()
        self._loop.on_end.pop(self, None)
        self._connection.forget(self)
        if not self._closing and not self._loop.dead and self._loop.connection.is_open:
            self._sink(Lost(self, reason))

    def give_up(self, reason: BaseException) -> None:
        """This channel is of no use, the connection lives. I/O thread only; what waits is told as not sent."""
        self._channel_closed(reason)
        if self._publisher.channel.is_open:
            self._publisher.channel.close()

    # -------------------------------------------------------------------------------------------------- closing
    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._closing = True
        self._idle.clear()
        self._loop.call(self.complete)
        self._idle.wait(max(timeout_s, 0.0))
        answer = Answer()

        def end() -> None:
            self._channel_closed(Closed("the link was closed", adapter=errors.ADAPTER))
            channel = self._publisher.channel
            if not self._loop.dead and channel is not None and channel.is_open:
                channel.add_on_close_callback(lambda *_: answer.set())
                channel.close()
            else:
                answer.set()

        self._loop.call(guarded(end, answer))
        if not self._loop.here:
            try:
                answer.wait(deadline - time.monotonic(), "closing a channel")
            except Exception:  # a peer that stays silent: the connection's own bounds end it
                _log.debug("closing %r", self, exc_info=True)
