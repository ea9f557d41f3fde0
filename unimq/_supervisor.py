"""The supervisor owns the *intent*: which connection and which links there should be. A plain thread in both worlds.

Rules
- An `Intent` opens a link, is told when it has one (`attach`), when it is gone (`detach`), and when it never will be back
  (`end`). Links die alone: one is reopened without touching the others; a lost connection reopens all.
- Reconnecting is tried for ever with growing, jittered pauses (tenacity), at most `AUTH_RETRY_S` apart where the broker
  refused the login: a booting broker says 403 too. Only `close` ends it.
- A permanent error of one link (its place is gone and may not be made) ends that link alone.
- The thread starts with the first loss and ends when all is well again. `close` ends the supervisor first; a connection
  that arrives later is closed unused.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from ._latch import Turnstile
from .driver import (
    Adapter,
    Blocked,
    Cancelled,
    Connection,
    ConnectOptions,
    Driven,
    Event,
    FlowPaused,
    LockLostEvent,
    Lost,
    Op,
    Restored,
    Revoked,
    Room,
    Unblocked,
)
from .errors import AuthenticationFailed, Closed, ConnectionFailed, UnimqError
from .registry import missing_extra
from .url import Endpoint

if TYPE_CHECKING:
    from ._ticker import Ticker

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 5.0
AUTH_RETRY_S: Final = 30.0
OLD_CONNECTION_CLOSE_S: Final = 1.0
EARLY_LOSSES_MAX: Final = 64
DRIVE_TURN_S: Final = 0.02
DRIVE_IDLE_S: Final = 0.5
_log = logging.getLogger("unimq.connection")


class State(enum.Enum):
    NEW = "new"
    UP = "up"
    DOWN = "down"  # lost, and being reconnected
    CLOSED = "closed"


TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.NEW, "connected"): State.UP,
    (State.UP, "lost"): State.DOWN,
    (State.DOWN, "connected"): State.UP,
    (State.DOWN, "lost"): State.DOWN,
    (State.NEW, "closed"): State.CLOSED,
    (State.UP, "closed"): State.CLOSED,
    (State.DOWN, "closed"): State.CLOSED,
    (State.CLOSED, "closed"): State.CLOSED,
}


class Intent(Protocol):
    """A link that should be there. `open` blocks and raises the library's errors; the others never block."""

    what: str
    patient: bool  # try again even after a permanent error: somebody may make the place again

    @property
    def link(self) -> Any: ...
    def open(self, connection: Connection) -> Any: ...
    def attach(self, link: Any) -> None: ...
    def detach(self, error: UnimqError | None) -> None: ...
    def end(self, error: UnimqError) -> None: ...
    def event(self, event: Event) -> None: ...


class _Kept:
    """What the supervisor remembers of an intent: who opens it now, and how often that failed in a row."""

    __slots__ = ("guard", "failures")

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.failures = 0


class Supervisor:
    """One per client. `connect` first, `close` last."""

    def __init__(self, adapter: Adapter, endpoint: Endpoint, options: ConnectOptions, ticker: Ticker) -> None:
        self.adapter = adapter
        self._endpoint = endpoint
        self._options = options
        self._ticker = ticker
        self._lock = threading.RLock()
        self._state = State.NEW
        self._connection: Connection | None = None
        self._epoch = 0
        self._intents: dict[Intent, _Kept] = {}
        self._todo: list[Intent] = []
        self._thread: threading.Thread | None = None
        self._losses: deque[tuple[int, Lost | Cancelled]] = deque()
        self._stop = threading.Event()
        self._driver: threading.Thread | None = None
        self._driver_lock = threading.Lock()
        self._drive_wanted = threading.Event()
        self._drive_stop = threading.Event()
        self._early_losses: deque[tuple[object, UnimqError]] = deque(maxlen=EARLY_LOSSES_MAX)
        self._early_loss: tuple[int, UnimqError] | None = None
        self.changed = Turnstile()
        self.last_error: UnimqError | None = None
        self.down_since: float | None = None
        self.blocked: str | None = None

    # ---------------------------------------------------------------------------------------------- connecting
    def connect(self) -> None:
        """The first connection. Blocks; raises our errors, once: nothing is retried here."""
        connection, epoch = self._connect()
        with self._lock:
            if self._state is State.CLOSED:
                late = connection
            else:
                late = None
                self._connection, self._epoch = connection, epoch
                self._move("connected")
        if late is not None:
            late.close(OLD_CONNECTION_CLOSE_S)
            raise Closed("the client was closed while it connected")
        self._check_early(epoch)

    def _connect(self) -> tuple[Connection, int]:
        with self._lock:
            self._epoch += 1
            epoch = self._epoch
        try:
            connection = self.adapter.connect(self._endpoint, self._options, partial(self._sink, epoch))
        except ImportError as error:
            raise missing_extra(self.adapter, error) from error
        except Exception as error:  # whatever the library raises, classify names it; nothing is swallowed
            raise self.classify(error, Op.CONNECT, False) from error
        return connection, epoch

    def classify(self, error: BaseException, op: Op, handed_over: bool) -> UnimqError:
        """The one place where a library's error becomes ours."""
        if isinstance(error, UnimqError):
            fault = error
        else:
            fault = self.adapter.classify(error, op=op, handed_over=handed_over)
            if fault.cause is None:
                fault.cause = error
        if not fault.adapter:
            fault.adapter = self.adapter.name
        return fault

    def _move(self, what: str) -> None:
        self._state = TRANSITIONS[(self._state, what)]
        self.down_since = time.monotonic() if self._state is State.DOWN else None

    @property
    def state(self) -> State:
        return self._state

    @property
    def connection(self) -> Connection | None:
        """The connection if it is up."""
        return self._connection if self._state is State.UP else None

    def wait_up(self, timeout_s: float) -> Connection:
        """The connection, waiting for a reconnect. Blocks; raises `ConnectionFailed` at the time-out."""
        deadline = time.monotonic() + timeout_s
        while True:
            latch = self.changed.latch()
            if self._state is State.CLOSED:
                raise Closed("the client is closed")
            connection = self.connection
            if connection is not None:
                return connection
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self.down_error()
            gate = threading.Event()
            latch.add(gate.set)
            gate.wait(remaining)

    def down_error(self) -> UnimqError:
        last = self.last_error
        why = f": {last}" if last is not None else ""
        return ConnectionFailed(
            f"{self._endpoint} is not reachable, reconnecting{why}", adapter=self.adapter.name, cause=last
        )

    # --------------------------------------------------------------------------------------------------- links
    def open(self, intent: Intent, timeout_s: float) -> None:
        """Open the intent's link, if it has none, and keep it open from now on. Blocks; raises our errors."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            guard = self._intents.setdefault(intent, _Kept()).guard
        try:
            while intent.link is None:
                self.wait_up(deadline - time.monotonic())
                with guard:
                    if intent.link is not None:
                        return
                    try:
                        if self._open_now(intent):
                            return
                    except UnimqError as error:
                        if not isinstance(error, ConnectionFailed) or time.monotonic() >= deadline:
                            raise
                self._stop.wait(PAUSE_FIRST_S)
        except BaseException:
            if intent.link is None:
                self.forget(intent)
            raise

    def _open_now(self, intent: Intent) -> bool:
        """One try. False when the connection changed under it."""
        with self._lock:
            connection, epoch = self.connection, self._epoch
        if connection is None:
            return False
        try:
            link = intent.open(connection)
        except Exception as error:  # as in _connect: classified, then raised
            fault = self.classify(error, Op.OPEN, False)
            if self.taken_down(connection, fault):
                return False
            raise fault from error
        # attached without the lock: attaching sends, and a driver may say that the link is lost from inside of that
        intent.attach(link)
        with self._lock:
            wanted = self._state is not State.CLOSED and intent in self._intents
            keep = wanted and self._state is State.UP and epoch == self._epoch
            early = next((error for dead, error in self._early_losses if dead is link), None)
        if not keep:
            intent.detach(None)
            link.close(OLD_CONNECTION_CLOSE_S)
            if not wanted:
                raise Closed(f"{intent.what} was closed while it opened")
        elif early is not None:
            with self._lock:
                self._losses.append((epoch, Lost(link, early)))
                self._start_thread()
        return keep

    def taken_down(self, connection: Connection, fault: UnimqError) -> bool:
        """Whether `fault` only says that a lost connection was closed, here, while somebody still used it."""
        return (
            isinstance(fault, Closed)
            and self._state is not State.CLOSED
            and connection is not self.connection
        )

    def keep(self, intent: Intent) -> None:
        """Open the intent's link on the supervisor's thread: for callers that must not block."""
        with self._lock:
            if self._state is State.CLOSED or intent in self._intents:
                return
            self._intents[intent] = _Kept()
            if self._state is State.UP:
                self._todo.append(intent)
                self._start_thread()

    def forget(self, intent: Intent) -> None:
        """The intent is closed by its owner."""
        with self._lock:
            self._intents.pop(intent, None)
            if intent in self._todo:
                self._todo.remove(intent)

    # -------------------------------------------------------------------------------------------------- events
    def _sink(self, epoch: int, event: Event) -> None:
        """Any thread, never blocks, never raises into the driver."""
        try:
            self._handle(epoch, event)
        except Exception:  # a bug of ours must not end the driver's thread
            _log.exception("an event could not be handled: %r", type(event).__name__)

    def _handle(self, epoch: int, event: Event) -> None:
        if epoch != self._epoch or self._state is State.CLOSED:
            return
        if isinstance(event, Lost | Cancelled):
            # only the supervisor's thread takes links away and gives them back: in one order, whoever reports the loss
            with self._lock:
                self._losses.append((epoch, event))
                self._start_thread()
        elif isinstance(event, Blocked):
            self.blocked = event.reason or "the broker takes no messages for now"
            _log.warning("blocked: %s", self.blocked)
        elif isinstance(event, Unblocked):
            self.blocked = None
        elif isinstance(event, Restored) and event.link is None:
            return
        elif isinstance(event, Room | Revoked | LockLostEvent | FlowPaused | Restored):
            intent = self._intent_of(event.link)
            if intent is not None:
                intent.event(event)

    def _intent_of(self, link: object) -> Intent | None:
        with self._lock:
            return next((intent for intent in self._intents if intent.link is link), None)

    def _lost(self, epoch: int, event: Lost | Cancelled) -> None:
        """On the supervisor's thread."""
        if epoch != self._epoch:
            return
        if event.link is None:
            assert isinstance(event, Lost)
            self._connection_lost(epoch, self.classify(event.error, Op.CONNECT, False))
            return
        error = event.error or ConnectionFailed("the broker ended the consumer", adapter=self.adapter.name)
        self._link_lost(event.link, self.classify(error, Op.RECEIVE, False))

    def _connection_lost(self, epoch: int, error: UnimqError) -> None:
        with self._lock:
            if self._state is not State.UP:
                self._early_loss = (epoch, error)  # lost before `connect` returned
                return
            self.last_error = error
            self.blocked = None
            self._move("lost")
            intents = list(self._intents)
            self._todo.clear()
        _log.warning("the connection to %s is lost, reconnecting: %s", self._endpoint, error)
        for intent in intents:
            intent.detach(error)
        self.changed.turn()

    def _link_lost(self, link: object, error: UnimqError) -> None:
        intent = self._intent_of(link)
        if intent is None:
            self._early_losses.append((link, error))  # it may be on its way to its intent
            return
        _log.warning("%s is lost, reopening: %s", intent.what, error)
        intent.detach(error)
        with self._lock:
            self._todo.append(intent)
        self.changed.turn()

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="unimq-supervisor", daemon=True)
            self._thread.start()

    # -------------------------------------------------------------------------------------------------- thread
    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                loss = self._losses.popleft() if self._losses else None
                intent = self._todo.pop(0) if self._todo and loss is None else None
                if self._state is not State.DOWN and intent is None and loss is None:
                    self._thread = None
                    return
            try:
                if loss is not None:
                    self._lost(*loss)
                elif self._state is State.DOWN:
                    self._reconnect()
                elif intent is not None:
                    self._reopen(intent)
            except Exception:  # a bug of ours must not end reconnecting for good
                _log.exception("reconnecting failed in an unforeseen way; trying again")
                self._stop.wait(1.0)

    def _reconnect(self) -> None:
        old = self._connection
        self._connection = None
        if old is not None:
            self._close_quietly(old)
        import tenacity  # only who loses a connection needs it

        retrying = tenacity.Retrying(
            wait=lambda state: self._pause_s(state.attempt_number, self.last_error),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            retry=tenacity.retry_if_exception_type(UnimqError),
            reraise=True,
        )
        try:
            connection, epoch = retrying(self._try_connect)
        except UnimqError:
            return  # stopped: close was called
        with self._lock:
            if self._state is State.CLOSED:
                late = connection
            else:
                late = None
                self._connection, self._epoch = connection, epoch
                self._move("connected")
                self._todo = list(self._intents)
        if late is not None:
            self._close_quietly(late)
            return
        _log.info("reconnected to %s", self._endpoint)
        self.changed.turn()
        self._check_early(epoch)

    def _check_early(self, epoch: int) -> None:
        early = self._early_loss
        if early is not None and early[0] == epoch:
            self._early_loss = None
            with self._lock:
                self._losses.append((epoch, Lost(None, early[1])))
                self._start_thread()

    def _try_connect(self) -> tuple[Connection, int]:
        try:
            return self._connect()
        except UnimqError as error:
            self.last_error = error
            raise

    def _reopen(self, intent: Intent) -> None:
        """One try to give a link back to its intent; the next one is the ticker's, so that no link waits for another."""
        with self._lock:
            kept = self._intents.get(intent)
        if kept is None or self._state is not State.UP:
            return  # closed, or a reconnect opens it
        try:
            with kept.guard:
                if intent.link is None:
                    self._open_now(intent)
            kept.failures = 0
        except Closed:
            return
        except UnimqError as error:
            self.last_error = error
            if error.retryable or intent.patient:
                kept.failures += 1
                self._ticker.after(self._pause_s(kept.failures, error), partial(self._again, intent))
            else:
                _log.error("%s will not come back: %s", intent.what, error)
                self.forget(intent)
                intent.end(error)
        self.changed.turn()

    def _again(self, intent: Intent) -> None:
        with self._lock:
            if self._state is State.UP and intent in self._intents and intent.link is None:
                self._todo.append(intent)
                self._start_thread()

    def _pause_s(self, failures: int, error: UnimqError | None) -> float:
        if isinstance(error, AuthenticationFailed):
            return AUTH_RETRY_S
        import tenacity

        pauses = tenacity.wait_random_exponential(multiplier=PAUSE_FIRST_S * 2, max=PAUSE_MAX_S)
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = failures
        return PAUSE_FIRST_S + float(pauses(state))

    def _close_quietly(self, connection: Connection) -> None:
        try:
            connection.close(OLD_CONNECTION_CLOSE_S)
        except Exception as error:  # a dead connection may fail to close in any way; it is dead
            _log.debug("closing a dead connection: %r", error)

    # --------------------------------------------------------------------------------------------------- drive
    def driver_for(self) -> Callable[[], None] | None:
        """What asks for the connection to be driven; None where the connection drives itself."""
        return self._want_drive if isinstance(self._connection, Driven) else None

    def _want_drive(self) -> None:
        self._drive_wanted.set()
        if self._driver is None:
            with self._driver_lock:  # its own: this is called under a batcher's lock
                if self._driver is None and not self._drive_stop.is_set():
                    self._driver = threading.Thread(target=self._drive_loop, name="unimq-drive", daemon=True)
                    self._driver.start()

    def _drive_loop(self) -> None:
        """Drive while anything may complete, and `DRIVE_IDLE_S` beyond; then wait to be asked."""
        until = time.monotonic() + DRIVE_IDLE_S
        while not self._drive_stop.is_set():
            connection = self._connection
            if self._drive_wanted.is_set():
                self._drive_wanted.clear()
                until = time.monotonic() + DRIVE_IDLE_S
            if not isinstance(connection, Driven) or (time.monotonic() > until and not self._busy()):
                self._drive_wanted.wait(DRIVE_IDLE_S)
                continue
            connection.drive(DRIVE_TURN_S)

    def _busy(self) -> bool:
        with self._lock:
            return any(getattr(intent, "busy", False) for intent in self._intents)

    # --------------------------------------------------------------------------------------------------- close
    def stop(self) -> Connection | None:
        """First half of close: no more reconnecting. Returns the connection, which the caller closes last."""
        with self._lock:
            connection = self._connection if self._state is not State.CLOSED else None
            self._move("closed")
            thread = self._thread
            self._stop.set()
        self.changed.turn()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._options.connect_timeout_s + OLD_CONNECTION_CLOSE_S)
        return connection

    def stop_driving(self) -> None:
        self._drive_stop.set()
        self._drive_wanted.set()
        if self._driver is not None and self._driver is not threading.current_thread():
            self._driver.join(1.0)
