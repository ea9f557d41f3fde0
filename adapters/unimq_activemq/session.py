"""One STOMP connection: handshake, receipts by id, subscriptions, and its end.

Rules
- A receipt confirms its own frame and no other. Classic stores messages without a receipt asynchronously and reports
  their errors without saying whose they are, so every SEND asks for one; a batch is complete when all came.
- Whatever waits for receipts is an `Exchange`. Exchanges complete on the receiver thread only, so they need no lock; on a
  dead session they complete at once in the caller's thread.
- The first error is the reason of the end: an ERROR frame that comes just before the close, not the close.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from unimq.driver import Failed

from .errors import NoReceipt, PeerSilent, StompError, closed
from .fields import encode
from .transport import OUTBOX_MAX_BYTES, Transport, Written

_log = logging.getLogger("unimq.activemq")

HEARTBEAT_MS: Final = 10_000
CALL_TIMEOUT_S: Final = 10.0  # for the frames of opening and closing a link
RECEIPT_GRACE_S: Final = 0.0  # after a batch's deadline; then its outcome is unknown
GOODBYE_S: Final = 2.0  # of a close, for DISCONNECT's receipt
JOIN_S: Final = 2.0

Failures = dict[int, Failed]


class Trampoline:
    """Runs callbacks one after another: a callback that leads to another never nests in it."""

    def __init__(self) -> None:
        self._local = threading.local()

    def run(self, call: Callable[[], None]) -> None:
        waiting: deque[Callable[[], None]] | None = getattr(self._local, "waiting", None)
        if waiting is not None:
            waiting.append(call)
            return
        self._local.waiting = waiting = deque([call])
        try:
            while waiting:
                try:
                    waiting.popleft()()
                # the core wraps its callbacks; one that fails all the same must not stop the others
                except Exception:
                    _log.exception("a completion failed")
        finally:
            self._local.waiting = None


class Exchange:
    """Frames waiting for their receipts. `keys[i]` is the receipt id of the frame that belongs to `indexes[i]`."""

    __slots__ = ("keys", "indexes", "left", "failures", "finish", "deadline", "written")

    def __init__(
        self,
        keys: Sequence[str],
        indexes: Sequence[int],
        finish: Callable[[Failures | None], None],
        *,
        failures: Failures | None = None,
        deadline: float | None = None,
    ) -> None:
        self.keys = keys
        self.indexes = indexes
        self.left = len(keys)
        self.failures = failures
        self.finish = finish
        self.deadline = deadline
        self.written = Written()

    def fail(self, key: str, error: BaseException, handed_over: bool) -> None:
        if self.failures is None:
            self.failures = {}
        self.failures[self.indexes[self.keys.index(key)]] = Failed(error, handed_over)


class Session:
    """`on_end(session, error)` is called once, on the receiver thread, after everything open has completed."""

    def __init__(self, role: str, on_end: Callable[[Session, BaseException], None]) -> None:
        self.role = role
        self._on_end = on_end
        self._lock = threading.Lock()
        self._next = 0
        self._awaiting: dict[str, Exchange] = {}
        self._open: set[Exchange] = set()
        self._subscriptions: dict[str, Callable[[Any], None]] = {}
        self._ends: list[Callable[[BaseException], None]] = []
        self._ticks: list[Callable[[], None]] = []
        self._connected = threading.Event()
        self._headers: dict[str, str] = {}
        self._refusal: BaseException | None = None
        self.error: BaseException | None = None
        self.unclaimed = 0  # ERROR frames that named no receipt
        self.trampoline = Trampoline()
        self._transport: Transport

    # ------------------------------------------------------------------------------------------- connecting
    def connect(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        user: str | None,
        password: str | None,
        vhost: str | None,
        timeout_s: float,
    ) -> dict[str, str]:
        """CONNECTED's headers. stomp.py's own wait has no bound: this one has."""
        deadline = time.monotonic() + timeout_s
        self._transport = Transport(
            host,
            port,
            tls,
            name=self.role,
            on_frame=self._on_frame,
            on_tick=self._on_tick,
            on_closed=self._on_closed,
        )
        self._transport.open(timeout_s)
        headers = {
            "accept-version": "1.2",
            "host": vhost or host,
            "heart-beat": f"{HEARTBEAT_MS},{HEARTBEAT_MS}",
        }
        if user is not None:
            headers["login"] = user
        if password is not None:
            headers["passcode"] = password
        self._transport.write(encode("CONNECT", headers, escape=False))
        answered = self._connected.wait(max(deadline - time.monotonic(), 0.0))
        if not answered or self._refusal is not None:
            self._transport.kill(None)
            self._transport.join(JOIN_S)
            raise self._refusal or PeerSilent(f"no answer to CONNECT within {timeout_s:g} s")
        return self._headers

    def _agree_on_beats(self, header: str) -> None:
        try:
            sends, wants = (int(part) for part in header.split(","))
        except ValueError:
            return
        self._transport.beat_out_s = max(HEARTBEAT_MS, wants) / 1000 if wants else 0.0
        self._transport.beat_in_s = max(HEARTBEAT_MS, sends) / 1000 if sends else 0.0

    # ---------------------------------------------------------------------------------------------- sending
    def reserve(self, count: int) -> int:
        """The first of `count` receipt ids in a row."""
        with self._lock:
            first = self._next
            self._next += count
        return first

    @property
    def full(self) -> bool:
        return self._transport.backlog >= OUTBOX_MAX_BYTES

    def post(self, frames: list[bytes], exchange: Exchange) -> Callable[[], None] | None:
        """Writes; the exchange completes when all its receipts came, at its deadline, or with the session. Never blocks.

        Where it is complete already, its completion is returned: the caller runs it when it holds no lock.
        """
        if not exchange.keys:
            return lambda: self._complete(exchange)
        with self._lock:
            error = self.error
            if error is None:
                self._awaiting.update(dict.fromkeys(exchange.keys, exchange))
                self._open.add(exchange)
        if error is not None:
            return lambda: self._fail_rest(exchange, error)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        self._transport.write(data, exchange.written, [len(frame) for frame in frames])
        return None

    def soon(self, call: Callable[[], None]) -> None:
        """`call` on the receiver thread, through the trampoline; never blocks."""
        self._transport.call_soon(lambda: self.trampoline.run(call))

    def write(self, data: bytes) -> None:
        """A frame nobody waits for."""
        self._transport.write(data)

    def call(self, command: str, headers: dict[str, str], timeout_s: float = CALL_TIMEOUT_S) -> None:
        """A frame with a receipt, waited for. Raises the ERROR, or `NoReceipt`."""
        done = threading.Event()
        result: list[Failures | None] = []

        def finish(failures: Failures | None) -> None:
            result.append(failures)
            done.set()

        key = str(self.reserve(1))
        exchange = Exchange((key,), (0,), finish, deadline=time.monotonic() + timeout_s)
        complete = self.post([encode(command, {**headers, "receipt": key})], exchange)
        if complete is not None:
            complete()
        if not done.wait(timeout_s + 1.0):
            raise NoReceipt(f"no receipt for {command} within {timeout_s:g} s")
        if failures := result[0]:
            raise failures[0].error

    # -------------------------------------------------------------------------------------------- receiving
    def listen(self, subscription: str, on_message: Callable[[Any], None]) -> None:
        self._subscriptions[subscription] = on_message

    def unlisten(self, subscription: str) -> None:
        self._subscriptions.pop(subscription, None)

    def on_end(self, call: Callable[[BaseException], None]) -> None:
        """For links: `call` when the session ends, at once if it has."""
        with self._lock:
            if self.error is None:
                self._ends.append(call)
                return
        call(self.error)

    def forget_end(self, call: Callable[[BaseException], None]) -> None:
        with self._lock:
            if call in self._ends:
                self._ends.remove(call)

    def on_tick(self, call: Callable[[], None]) -> None:
        self._ticks.append(call)

    def forget_tick(self, call: Callable[[], None]) -> None:
        if call in self._ticks:
            self._ticks.remove(call)

    # ------------------------------------------------------------------------------------ the receiver thread
    def _on_frame(self, frame: Any) -> None:
        command, headers = frame.cmd, frame.headers
        if command == "MESSAGE":
            on_message = self._subscriptions.get(headers.get("subscription"))
            if on_message is not None:
                on_message(frame)
        elif command == "RECEIPT":
            self._on_receipt(headers.get("receipt-id"))
        elif command == "ERROR":
            self._on_error(frame)
        elif command == "CONNECTED":
            self._headers = dict(headers)
            self._agree_on_beats(headers.get("heart-beat", "0,0"))
            self._connected.set()

    def _on_receipt(self, key: str | None) -> None:
        exchange = self._awaiting.pop(key, None) if key is not None else None
        if exchange is None:
            return  # it came after its deadline
        exchange.left -= 1
        if not exchange.left:
            self._complete(exchange)

    def _on_error(self, frame: Any) -> None:
        text = (
            frame.headers.get("message") or frame.body.decode("utf-8", "replace") or "an ERROR without a text"
        )
        error = StompError(text.strip(), connecting=not self._connected.is_set())
        if not self._connected.is_set():
            self._refusal = error
            self._connected.set()
            return
        key = frame.headers.get("receipt-id")
        exchange = self._awaiting.pop(key, None) if key is not None else None
        if exchange is not None and key is not None:
            exchange.fail(key, error, handed_over=True)
            exchange.left -= 1
            if not exchange.left:
                self._complete(exchange)
        else:
            self.unclaimed += 1
            _log.warning("ERROR on the %s connection: %s", self.role, error)
        self._refusal = error  # should the close follow, as on Artemis, this is why

    def _complete(self, exchange: Exchange) -> None:
        self._open.discard(exchange)
        self.trampoline.run(lambda: exchange.finish(exchange.failures))

    def _fail_rest(self, exchange: Exchange, error: BaseException) -> None:
        written, reached = exchange.written, self._transport.reached
        for position, key in enumerate(exchange.keys):
            if written.begun and self._awaiting.pop(key, None) is None:
                continue  # its receipt came
            exchange.fail(key, error, reached(written, position))
        self._complete(exchange)

    def _on_tick(self) -> None:
        if self._open:
            now = time.monotonic() - RECEIPT_GRACE_S
            for exchange in list(self._open):
                if exchange.deadline is not None and exchange.deadline < now:
                    self._expire(exchange)
        for call in tuple(self._ticks):
            call()

    def _expire(self, exchange: Exchange) -> None:
        """What is still in the outbox cannot be taken back: it is as good as sent."""
        error = NoReceipt("no receipt before the deadline")
        for key in exchange.keys:
            if self._awaiting.pop(key, None) is not None:
                exchange.fail(key, error, handed_over=True)
        self._complete(exchange)

    def _on_closed(self, error: BaseException) -> None:
        error = self._refusal or error
        with self._lock:
            self.error = error
            ends, self._ends = self._ends, []
        if not self._connected.is_set():
            self._refusal = error
            self._connected.set()
            return
        for exchange in list(self._open):
            self._fail_rest(exchange, error)
        for end in ends:
            self.trampoline.run(lambda end=end: end(error))  # type: ignore[misc]
        self._on_end(self, error)

    # ---------------------------------------------------------------------------------------------- closing
    def settle_all(self, exchanges: Sequence[Exchange], error: BaseException, timeout_s: float) -> None:
        """Completes what is open, as it is. Waits until that is done."""
        done = threading.Event()

        def fail() -> None:
            for exchange in exchanges:
                if exchange in self._open:
                    self._fail_rest(exchange, error)
            done.set()

        self._transport.call_soon(fail)
        done.wait(timeout_s)

    def kill(self, error: BaseException | None = None) -> None:
        self._transport.kill(error)

    def close(self, timeout_s: float) -> None:
        """DISCONNECT, bounded; then the end at once. What is open completes."""
        deadline = time.monotonic() + timeout_s
        if self.error is None:
            try:
                self.call("DISCONNECT", {}, min(GOODBYE_S, timeout_s))
            except (NoReceipt, StompError, OSError) as error:
                _log.debug("no goodbye on the %s connection: %s", self.role, error)
        self._refusal = self._refusal or closed("connection")
        self._transport.kill(None)
        self._transport.join(max(deadline - time.monotonic(), JOIN_S))
