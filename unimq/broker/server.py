"""The server: listeners and connections on one loop in a thread of its own, sessions and engine behind them.

Rules
- All that touches the engine runs on that thread, so nothing in the broker takes a lock. Other threads ask by `call`.
- One read of a connection is one turn: its frames are carried out, then everything that has something to say is written,
  each connection with one write.
- A peer that does not read is not delivered to and not read from; the output held for it is bounded.
- With a data directory nobody is told anything before what has happened is in it: one commit a turn, ahead of the writes. A
  commit that fails ends the broker as if it had been killed.
- Time for the engine is real time plus what `clock.advance` added. Heartbeats and handshakes are always in real time.
- A listener is a line of `listeners.py`. It listens on loopback unless told otherwise: this is for tests and development.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from .engine import Engine
from .engine.limits import ENGINE_MAX_BYTES
from .faults import Faults
from .limits import (
    BACKLOG,
    CALL_MAX_S,
    CLOSE_MAX_S,
    START_MAX_S,
    START_WITH_DATA_MAX_S,
    TIMER_WAIT_MAX_S,
)
from .listeners import LISTENERS, Settings
from .peer import Peer

if TYPE_CHECKING:
    from types import TracebackType

    from .data import Store
    from .engine.vhost import VHost
    from .sessions.line import Session

T = TypeVar("T")
_log = logging.getLogger("unimq.broker")

LOOPBACK: Final = "127.0.0.1"


class BrokerClock:
    """Seconds since the epoch; never goes back, whatever happens to the system's clock."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._base_s = time.time() - time.monotonic()
        self._advanced_s = 0.0

    def continue_from(self, advanced_s: float) -> None:
        """So far it was moved by hand in an earlier life."""
        self._advanced_s = advanced_s
        self._base_s += advanced_s

    def now(self) -> float:
        return time.monotonic() + self._base_s

    def advance(self, seconds: float) -> None:
        """Move time, from any thread; what is due by then has happened when this returns."""
        if not seconds >= 0:
            raise ValueError(f"time only moves forward, not by {seconds!r} s")
        self._broker.call(lambda: self._advance(seconds))

    def _advance(self, seconds: float) -> None:
        self._base_s += seconds
        self._advanced_s += seconds
        if self._broker.store is not None:
            self._broker.store.clock_advanced(self._advanced_s)
        self._broker.tick()


class Broker:
    """A running broker. `.urls` by listener, `.clock.advance(s)`, `.faults`, `.close()`; also a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = BrokerClock(self)
        self.engine = Engine(self.clock, seed=settings.seed, max_bytes=settings.max_bytes)
        self.faults = settings.faults
        self.urls: dict[str, str] = {}
        self.peers: set[Peer] = set()
        self.touched: dict[Peer, None] = {}  # have something to say
        self.after_tick: list[Callable[[], None]] = []  # by the sessions of a protocol, as is the next
        self.on_restart: list[Callable[[], None]] = []
        self.store: Store | None = None
        self.ended = False
        self.stopped = threading.Event()  # by itself: `failure` says why
        self.failure: OSError | None = None
        self.loop: asyncio.AbstractEventLoop
        self._servers: list[asyncio.Server] = []
        self._turn_soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="unimq-broker", daemon=True)

    # ---------------------------------------------------------------------------------------------- its life
    def start(self) -> Broker:
        """Returns when all listeners accept; raises what kept one from it."""
        self._thread.start()
        limit_s = START_MAX_S if self.settings.data is None else START_WITH_DATA_MAX_S
        if not self._started.wait(limit_s):
            raise TimeoutError(f"the broker did not start within {limit_s:g} s")
        if self._failed is not None:
            self._thread.join(CLOSE_MAX_S)
            raise self._failed
        return self

    def _run(self) -> None:
        self.loop = asyncio.new_event_loop()
        try:
            try:
                self.loop.run_until_complete(self._listen())
            except BaseException as error:  # said by `start`, to whoever waits there
                self._failed = error
                return
            finally:
                self._started.set()
            self.loop.run_forever()
        finally:
            self._drop_all()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()
            if self.store is not None:
                self.committed()
                self.store.close()
            self.stopped.set()

    async def _listen(self) -> None:
        settings = self.settings
        if settings.data is not None:
            from .data import Store

            self.store = Store(settings.data)
            self.clock.continue_from(self.store.advanced_s)
        context = _tls(settings)
        for name, port in settings.listen.items():
            listener = LISTENERS[name]
            make = listener.load()(self)

            def protocol(make: Callable[[Peer], Session] = make) -> Peer:
                return Peer(self, make)

            server = await self.loop.create_server(
                protocol, settings.host, port, ssl=context, backlog=BACKLOG
            )
            self._servers.append(server)
            bound = server.sockets[0].getsockname()[1]
            self.urls[name] = listener.url(settings, bound)

    def restore(self, vhosts: dict[str, VHost], make: Callable[[str], VHost]) -> None:
        """What lies in the data directory, into these; what is missing among them is made."""
        if self.store is not None:
            from .data import restore

            restore(self.store, vhosts, make)

    def _drop_all(self) -> None:
        self.ended = True
        for server in self._servers:
            server.close()
        for peer in list(self.peers):
            peer.cut()

    def restart(self) -> None:
        """As if the broker had been stopped and started: every line is cut, and what is not durable is gone."""
        self.call(self._restart)

    def _restart(self) -> None:
        for peer in list(self.peers):
            peer.cut()
            peer.forget()
        for forget in self.on_restart:
            forget()

    def close(self) -> None:
        """Idempotent, from any thread but the broker's own. Connections are cut."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(CLOSE_MAX_S)

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Broker {', '.join(self.urls.values())}>"

    # ------------------------------------------------------------------------------------------------- its turns
    def call(self, question: Callable[[], T]) -> T:
        """Ask `question` on the broker's thread, between two turns; its answer, or its exception."""
        done = threading.Event()
        answer: list[T] = []
        failure: list[BaseException] = []

        def ask() -> None:
            try:
                answer.append(question())
            except BaseException as error:  # raised where it was asked
                failure.append(error)
            self.end_turn()
            done.set()

        self.loop.call_soon_threadsafe(ask)
        if not done.wait(CALL_MAX_S):
            raise TimeoutError(f"the broker did not answer within {CALL_MAX_S:g} s")
        if failure:
            raise failure[0]
        return answer[0]

    def end_turn(self) -> None:
        """Write what there is to say, and be there for what is due next."""
        if self.store is not None and not self.committed():
            return
        touched = self.touched
        while touched:
            peer, _ = touched.popitem()
            peer.write_out()
        self._look_at_timer()

    def committed(self) -> bool:
        """What has happened outlives us; only then may anybody be told. False: the broker is ending."""
        if self.store is None:
            return True
        if self.failure is None:
            try:
                self.store.commit()
                return True
            except OSError as error:
                _log.critical("the broker ends: %s", error)
                self.failure = error
                self._drop_all()
                self.loop.stop()
        self.touched.clear()
        return False

    def end_turn_soon(self) -> None:
        """For what is said outside a turn; within one it costs nothing, the turn's end has written it by then."""
        if not self._turn_soon:
            self._turn_soon = True
            self.loop.call_soon(self._late_turn)

    def _late_turn(self) -> None:
        self._turn_soon = False
        self.end_turn()

    def _look_at_timer(self) -> None:
        due = self.engine.due()
        if due is None:
            return
        wait_s = min(max(due - self.clock.now(), 0.0), TIMER_WAIT_MAX_S)
        when = self.loop.time() + wait_s
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self.tick()
        self.end_turn()

    def tick(self) -> None:
        """What is due by the clock, and whoever waits for its outcome (room, say)."""
        self.engine.tick()
        for look in self.after_tick:
            look()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL  # who has none logs in by password
    return context


def run(
    *,
    host: str = LOOPBACK,
    users: Mapping[str, str] | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_client_ca: str | None = None,
    tls_ca: str | None = None,
    max_bytes: int = ENGINE_MAX_BYTES,
    amqp_dialect: str = "3",
    vhosts: tuple[str, ...] = ("/",),
    data: str | Path | None = None,
    seed: int = 0,
    faults: Faults | None = None,
    **listen: int | None,
) -> Broker:
    """A running broker. Listeners by name, each with its port: `run(amqp=0)` takes a free one. See `listeners.py`."""
    wanted = {name: port for name, port in listen.items() if port is not None}
    strange = sorted(set(wanted) - set(LISTENERS))
    if strange or not wanted:
        raise TypeError(
            f"run() takes listeners {', '.join(LISTENERS)}; not {', '.join(strange) or 'none at all'}"
        )
    settings = Settings(
        listen=wanted,
        host=host,
        users=users,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        tls_ca=tls_ca,
        max_bytes=max_bytes,
        amqp_dialect=amqp_dialect,
        vhosts=vhosts,
        data=None if data is None else Path(data),
        seed=seed,
        faults=faults or Faults(),
    )
    return Broker(settings).start()
