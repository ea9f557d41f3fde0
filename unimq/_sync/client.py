# Generated from unimq/_async/client.py by tools/unasync.py; do not edit.
"""The client: one connection's worth of senders, receivers and questions.

Rules
- `connect` raises at once what cannot work: a URL, an option, a login, a capability that was required.
- One window of sends per address and client; at most `CACHED_SENDERS` of them stay open.
- Everything that waits is in `_wait`; everything that decides is in the shared modules beside this package.
- A client made before a fork, or used from another event loop, raises `Closed`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import os
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from .. import url
from .._batcher import Batcher
from .._intake import DEFAULT, Intake, ReceiverWish, _Default
from .._links import SenderIntent, TopologyMode, place_maker
from .._outgoing import Line, Middleware, check_target
from .._questions import Questions
from .._supervisor import State, Supervisor
from .._ticker import Ticker
from ..address import Address, Queue, Source, Subscription, Target, Topic
from ..capabilities import ABSENT, EMULATED, FLAGS, Capabilities
from ..codec import Codec, Codecs
from ..delivery import Delivery
from ..driver import (
    Connection,
    ConnectOptions,
    Credential,
    Op,
    Place,
    ReceiverOptions,
    SenderOptions,
    SupportsGetToken,
)
from ..errors import Closed, InvalidMessage, UnimqError, Unsupported
from ..message import Message, Receipt, SendReport
from ..registry import find
from ..retry import Retry
from ..stats import Health, Stats
from ..topology import Declaration, TopologyReport
from . import _wait as wait
from .dead_letters import DeadLetters
from .receiver import Receiver
from .sender import Sender

if TYPE_CHECKING:
    import ssl

CACHED_SENDERS: Final = 64
WINDOW: Final = 1_000
CLOSE_S: Final = 10.0
HEALTH_AFTER_S: Final = 30.0
URL_VARIABLE: Final = "UNIMQ_URL"
CORE_OPTIONS: Final = frozenset({"max_message_bytes"})
_numbers = itertools.count(1)


class Client(wait.Connecting):
    """See `unimq.connect`. Use it in `with`, or `close` it."""

    def __init__(
        self,
        where: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        credential: Credential | SupportsGetToken | None = None,
        connect_timeout_s: float = 10.0,
        native: Mapping[str, Any] | None = None,
        require: Iterable[str] = (),
        allow_emulation: bool = True,
        codecs: Iterable[Codec] = (),
        topology: TopologyMode = "create",
        middleware: Sequence[Middleware] = (),
        health_after_s: float = HEALTH_AFTER_S,
        seed: int | None = None,
    ) -> None:
        where = where or os.environ.get(URL_VARIABLE)
        if not where:
            raise url.UrlError(f"no URL: give one, or set {URL_VARIABLE}")
        if topology not in ("create", "verify", "assume"):
            raise ValueError(f'topology is "create", "verify" or "assume", not {topology!r}')
        unknown = sorted(set(require) - set(FLAGS))
        if unknown:
            raise ValueError(
                f"require: no such capability: {', '.join(unknown)}; there are: {', '.join(FLAGS)}"
            )
        adapter = find(url.scheme_of(where))
        endpoint = url.parse(where)
        url.check_options(endpoint, adapter.url_options | CORE_OPTIONS)
        self.name = f"{adapter.name}-{next(_numbers)}"
        self._endpoint = endpoint
        self._ticker = Ticker()
        self._supervisor = Supervisor(
            adapter,
            endpoint,
            ConnectOptions(
                connect_timeout_s=connect_timeout_s, tls=tls, credential=credential, native=dict(native or {})
            ),
            self._ticker,
        )
        self._open_timeout_s = max(connect_timeout_s, 1.0) + 20.0
        self._require = tuple(require)
        self._health_after_s = health_after_s
        self._allow_emulation = allow_emulation
        self._questions = Questions(self._supervisor, topology, self._open_timeout_s)
        self._codecs = Codecs(codecs)
        self._topology: TopologyMode = topology
        self._middleware = tuple(middleware)
        self._seed = random.Random(seed)
        self._capabilities: Capabilities | None = None
        self._lines: OrderedDict[Target, Sender] = OrderedDict()
        self._senders: weakref.WeakSet[Sender] = weakref.WeakSet()
        self._receivers: dict[Receiver, None] = {}
        self._home: object = None
        self._closed: Closed | None = None
        _clients.add(self)

    # ------------------------------------------------------------------------------------------------ connecting
    def _connect(self) -> Self:
        self._home = wait.home()
        try:
            wait.call(self._supervisor.connect)
            self._look_at(self._supervisor.wait_up(0))
        except BaseException:
            self._closed = Closed("this client never connected")
            connection = self._supervisor.stop()
            if connection is not None:
                wait.call(connection.close, 1.0)
            self._ticker.close()
            raise
        return self

    def _look_at(self, connection: Connection) -> None:
        """Hold the connection against what was required."""
        found = connection.capabilities
        if not self._allow_emulation:
            emulated = [name for name in FLAGS if getattr(found, name) is EMULATED]
            found = found.narrowed(**dict.fromkeys(emulated, ABSENT))
        limit = self._endpoint.options.get("max_message_bytes")
        if limit is not None:
            if not limit.isdigit():
                raise url.UrlError(f"max_message_bytes is a number of bytes, not {limit!r}")
            found = found.narrowed(max_message_bytes=int(limit))
        for name in self._require:
            found.require(name, f"require={name!r}", adapter=self._supervisor.adapter.name)
        self._capabilities = found

    @property
    def capabilities(self) -> Capabilities:
        """What this broker turned out to have; with `allow_emulation=False`, without what is emulated."""
        if self._capabilities is None:
            raise Closed("this client never connected")
        return self._capabilities

    def _check(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self._capabilities is None:
            raise Closed("this client is not connected yet: open it with `with`", code="not-connected")
        wait.check_home(self._home)

    def _classify(self, error: BaseException, op: Op) -> UnimqError:
        return self._supervisor.classify(error, op, False)

    def _down_error(self) -> UnimqError:
        return self._supervisor.down_error()

    # --------------------------------------------------------------------------------------------------- sending
    def send(self, address: Queue | Topic, message: Message | Any, *, timeout_s: float = 30.0) -> Receipt:
        """Returns when the broker has confirmed it. See `Sender.send`."""
        return self._cached(address).send(message, timeout_s=timeout_s)

    def send_many(
        self, address: Queue | Topic, messages: Iterable[Message | Any], *, timeout_s: float = 30.0
    ) -> SendReport:
        """Pipelines a batch; the report has each item's outcome."""
        return self._cached(address).send_many(messages, timeout_s=timeout_s)

    def sender(
        self,
        address: Queue | Topic,
        *,
        linger_s: float | None = None,
        batch_bytes: int | None = None,
        compression: str | None = None,
        window: int = WINDOW,
        message_ids: bool = True,
        unroutable: str | None = None,
        native: Mapping[str, Any] | None = None,
    ) -> Sender:
        """A sender with a window and options of its own. No I/O: it opens in `with` or at first use."""
        self._check()
        if window < 1:
            raise ValueError("window is 1 or more")
        if unroutable not in (None, "error"):
            raise ValueError('unroutable is None or "error"')
        if unroutable == "error":
            self.capabilities.require(
                "unroutable", 'unroutable="error"', adapter=self._supervisor.adapter.name
            )
        options = SenderOptions(
            message_ids=message_ids,
            unroutable=unroutable,
            compression=compression,
            linger_s=linger_s,
            batch_bytes=batch_bytes,
            native=dict(native or {}),
        )
        sender = Sender(self, self._line(check_target(address), address, options, window))
        self._senders.add(sender)
        return sender

    def _cached(self, address: Any) -> Sender:
        try:
            sender = self._lines.get(address)
        except TypeError:
            sender = None  # not hashable: not an address; said below
        if sender is not None and self._closed is None and not sender._line.batcher.is_over:
            if self._home is not None:
                wait.check_home(self._home)
            self._lines.move_to_end(address)
            return sender
        self._check()
        target = check_target(address)
        sender = Sender(self, self._line(target, target, SenderOptions(), WINDOW))
        self._lines[target] = sender
        if len(self._lines) > CACHED_SENDERS:
            self._evict()
        return sender

    def _evict(self) -> None:
        """Close the oldest sender that has nothing on its way; the ticker's thread does it."""
        for target, sender in self._lines.items():
            if sender._line.batcher.outstanding == 0 and not sender._delayed:
                del self._lines[target]
                self._ticker.after(0.0, lambda line=sender._line: self._close_line(line, 1.0))  # type: ignore[misc]
                return

    def _line(
        self,
        address: Target,
        to: Target | Place,
        options: SenderOptions,
        window: int,
        delay_s: float | None = None,
    ) -> Line:
        capabilities = self.capabilities
        adapter = self._supervisor.adapter.name
        batcher = Batcher(
            classify=self._supervisor.classify,
            ticker=self._ticker,
            what=str(to),
            window=window,
            max_batch=capabilities.max_batch,
            linger_s=options.linger_s,
            drive=self._supervisor.driver_for(),
        )
        prepare = place_maker(address, to, self._topology) if isinstance(to, Place) else None
        return Line(
            address,
            batcher,
            SenderIntent(to, options, batcher, prepare),
            capabilities=capabilities,
            codecs=self._codecs,
            message_ids=options.message_ids,
            middleware=self._middleware,
            adapter=adapter,
            delay_s=delay_s,
        )

    def _delay_line(self, line: Line, delay_s: float, known: dict[object, Line]) -> Line:
        """The line to the place of a delay, made at first use."""
        plan = self._questions.plan(line.target, None)
        if plan.delay is None:
            raise Unsupported(f"a delayed send to {line.target}", adapter=self._supervisor.adapter.name)
        place = plan.delay(delay_s)
        found = known.get(place.ref)
        if found is None:
            found = known[place.ref] = self._line(line.target, place, SenderOptions(), WINDOW, place.delay_s)
        return found

    def _open_line(self, line: Line, timeout_s: float) -> None:
        self._supervisor.open(line.intent, timeout_s)
        line.opened = True

    def _close_line(self, line: Line, timeout_s: float) -> None:
        self._supervisor.forget(line.intent)
        line.batcher.end(Closed(f"the sender to {line.target} is closed"))
        link = line.intent.link
        line.batcher.detach()
        if link is not None:
            link.close(timeout_s)
        line.batcher.abandon()

    def cancel(self, receipt: Receipt) -> bool:
        """Take back a scheduled send. False when it is no longer waiting."""
        self._check()
        return wait.call(self._questions.cancel, receipt, self.capabilities)

    # ------------------------------------------------------------------------------------------------- receiving
    def receiver(
        self,
        source: Queue | Subscription,
        *,
        prefetch: int = 100,
        mode: str = "manual",
        retry: Retry | None = Retry(),  # a frozen value
        dead_letter: Address | _Default | None = DEFAULT,
        session: str | None = None,
        until: str | None = None,
        transactional: bool = False,
        lock_renewal_max_s: float = 300.0,
        on_settlement_lost: Callable[[list[Delivery]], None] | None = None,
        native: Mapping[str, Any] | None = None,
    ) -> Receiver:
        """Deliveries of a Queue or Subscription. No I/O: it opens in `with` or at first use. `mode="on_receive"` is at
        most once. `until="end"` ends iteration at the end seen when it opened. Raises `Unsupported` for what the broker
        lacks."""
        self._check()
        source = _check_source(source)
        capabilities, adapter = self.capabilities, self._supervisor.adapter.name
        if prefetch < 1:
            raise ValueError("prefetch is 1 or more")
        if mode not in ("manual", "on_receive"):
            raise ValueError(f'mode is "manual" or "on_receive", not {mode!r}')
        if until not in (None, "end"):
            raise ValueError('until is None or "end"')
        if session is not None:
            capabilities.require("sessions", "session=", adapter=adapter)
        if transactional:
            capabilities.require("transactions", "transactional=True", adapter=adapter)
        if until is not None:
            capabilities.require("stats_depth", 'until="end"', adapter=adapter)
        if source.ordered:
            capabilities.require("order_per_key", f"{source}, ordered=True", adapter=adapter)
            retry = _ordered_policy(retry, source)
        if isinstance(source, Subscription):
            if source.subjects or source.where:
                capabilities.require("filters", "subjects= and where=", adapter=adapter)
            if source.start == "earliest":
                capabilities.require("log", 'start="earliest"', adapter=adapter)
        wish = ReceiverWish(
            source=source,
            prefetch=prefetch,
            mode="consume" if mode == "manual" else mode,
            policy=retry,
            dead_letter=dead_letter,
            on_lost=on_settlement_lost,
            until_end=until == "end",
            options=ReceiverOptions(
                mode="consume" if mode == "manual" else mode,
                prefetch=prefetch,
                session=session,
                lock_renewal_max_s=lock_renewal_max_s,
                start=source.start if isinstance(source, Subscription) else "latest",
                native=dict(native or {}),
            ),
        )
        intake = Intake(
            wish,
            supervisor=self._supervisor,
            ticker=self._ticker,
            codecs=self._codecs,
            topology=self._topology,
            now=lambda: dt.datetime.now(dt.UTC),
            seed=self._seed,
        )
        receiver = Receiver(self, intake)
        self._receivers[receiver] = None
        return receiver

    # -------------------------------------------------------------------------------------------------- topology
    def declare(
        self,
        place: Address,
        *,
        verify_only: bool = False,
        replace_filters: bool = False,
        partitions: int | None = None,
        ttl_s: float | None = None,
        max_length: int | None = None,
        max_priority: int | None = None,
        dedup_window_s: float | None = None,
        lock_s: float | None = None,
        native: Mapping[str, Any] | None = None,
    ) -> TopologyReport:
        """Make a place, or say how it differs. An option that the broker lacks is `Unsupported`. With
        `topology="verify"` nothing is made and a difference is a `TopologyMismatch`; with "assume" nothing is asked."""
        self._check()
        if not isinstance(place, Queue | Topic | Subscription):
            raise InvalidMessage(f"declare takes a Queue, Topic or Subscription, not {place!r}")
        if isinstance(place, Subscription) and (place.subjects or place.where):
            self.capabilities.require(
                "filters", "subjects= and where=", adapter=self._supervisor.adapter.name
            )
        declaration = Declaration(
            place,
            replace_filters=replace_filters,
            partitions=partitions,
            ttl_s=ttl_s,
            max_length=max_length,
            max_priority=max_priority,
            dedup_window_s=dedup_window_s,
            lock_s=lock_s,
            native=dict(native or {}),
        )
        if self._topology == "assume" and not verify_only:
            return TopologyReport()
        return wait.call(self._questions.declare, declaration, verify_only)

    # ------------------------------------------------------------------------------------------------- questions
    def dead_letters(self, source: Queue | Subscription) -> DeadLetters:
        """The dead letters of a source. No I/O."""
        self._check()
        self.capabilities.require("dead_letter", "dead_letters", adapter=self._supervisor.adapter.name)
        return DeadLetters(self, _check_source(source))

    def browse(self, source: Queue | Subscription, limit: int = 100) -> list[Delivery]:
        """Up to `limit` waiting messages, oldest first, without taking them."""
        self._check()
        self.capabilities.require("browse", "browse", adapter=self._supervisor.adapter.name)
        return wait.call(self._questions.browse, _check_source(source), limit)

    def purge(self, source: Queue | Subscription) -> int | None:
        """Remove what waits; how many, or None where the broker does not tell."""
        self._check()
        self.capabilities.require("purge", "purge", adapter=self._supervisor.adapter.name)
        return wait.call(self._questions.purge, _check_source(source))

    def stats(self, source: Queue | Subscription | Topic) -> Stats:
        """Numbers about a place; None where unknown."""
        self._check()
        capabilities = self.capabilities
        if not capabilities.stats_depth and not capabilities.stats_lag:
            raise Unsupported(
                f"stats needs stats_depth or stats_lag, which {capabilities.found or 'this broker'} does not have",
                adapter=self._supervisor.adapter.name,
            )
        return wait.call(self._questions.stats, source)

    def delete(self, place: Address) -> None:
        """Delete a place and what hangs on it."""
        self._check()
        wait.call(self._questions.delete, place)

    def seek(self, subscription: Subscription, to: Any = "latest") -> None:
        """Move a subscription: "latest", "earliest", an aware datetime, or positions."""
        self._check()
        self.capabilities.require("seek", "seek", adapter=self._supervisor.adapter.name)
        wait.call(self._questions.seek, subscription, to)

    def health(self) -> Health:
        """Progress, not a TCP connection. Plain, in both worlds."""
        problems: list[str] = []
        down = self._supervisor.down_since
        if self._closed is not None:
            problems.append(str(self._closed))
        elif down is not None and time.monotonic() - down >= self._health_after_s:
            problems.append(str(self._supervisor.down_error()))
        if self._supervisor.blocked is not None:
            problems.append(f"blocked: {self._supervisor.blocked}")
        for receiver in list(self._receivers):
            problems += receiver._intake.problems()
        outstanding = sum(sender._line.batcher.outstanding for sender in self._all_senders())
        details = {
            "connection": self._supervisor.state.value,
            "outstanding_sends": outstanding,
            "receivers": len(self._receivers),
            "down_for_s": None if down is None else time.monotonic() - down,
        }
        return Health(not problems, tuple(problems), details)

    # --------------------------------------------------------------------------------------------------- closing
    def _all_senders(self) -> list[Sender]:
        return [*self._lines.values(), *self._senders]

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Flush sends, settle, hand back, disconnect; every waiting call ends. Idempotent. Raises `SettlementLost`."""
        if self._closed is not None:
            return
        self._closed = Closed("this client is closed")
        deadline = time.monotonic() + timeout_s
        problems: list[Exception] = []
        up = self._supervisor.state is State.UP
        for sender in self._all_senders():
            try:
                sender.close(max(deadline - time.monotonic(), 0.1) if up else 0.0)
            except UnimqError as error:
                problems.append(error)
        for receiver in list(self._receivers):
            try:
                receiver.close(max(deadline - time.monotonic(), 0.5))
            except UnimqError as error:
                problems.append(error)
        connection = wait.call(self._supervisor.stop)
        if connection is not None:
            wait.call(connection.close, max(deadline - time.monotonic(), 0.5))
        self._supervisor.stop_driving()
        wait.call(self._ticker.close)
        for problem in problems:
            if not isinstance(problem, Closed):
                raise problem

    def _forked(self) -> None:
        """In the child of a fork: nothing of this may be used, and nothing of it is closed (the parent's sockets)."""
        if self._closed is None:
            self._closed = Closed("this client was made before a fork: make one in the child", code="forked")
        for sender in self._all_senders():
            sender._line.batcher.after_fork(self._closed)
        for receiver in self._receivers:
            receiver._intake.over = self._closed
        self._lines.clear()

    def __enter__(self) -> Client:
        if self._capabilities is None:
            self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except UnimqError as problem:
            if error is None:
                raise
            error.add_note(f"while closing: {problem}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint} {self._supervisor.state.value}>"


def _check_source(source: Any) -> Source:
    if isinstance(source, Queue | Subscription):
        return source
    if isinstance(source, str):
        raise InvalidMessage(
            f"a source is wanted, not the str {source!r}: Queue({source!r}), or Address.parse('queue:…')"
        )
    raise InvalidMessage(f"a source is a Queue or a Subscription, not {source!r}")


def _ordered_policy(retry: Retry | None, source: Source) -> Retry | None:
    """On an ordered source the default policy is immediate only; delays that were asked for are refused."""
    if retry is None:
        return None
    if retry == Retry():
        return dataclasses.replace(retry, delayed_s=())
    if retry.delayed_s:
        raise Unsupported(
            f"delayed retries on the ordered {source} would change the order: Retry(delayed_s=[])"
        )
    return retry


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
