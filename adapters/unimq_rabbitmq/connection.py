"""A unimq connection: two AMQP connections, one to publish and one to consume, so that a blocked publisher never starves a
consumer's acks.

Rules
- The first is opened by `connect`, so that a wrong password or host fails at once; it is used by whoever needs one first. The
  second is opened with the first link of the other kind, to the same host.
- One round over all hosts within `connect_timeout_s`; a refused login ends it at once.
- When either dies, all is dead: the other is cut, every link completes what it has, then one `Lost(None, …)`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import pika.exceptions

from unimq.address import Queue, Source, Subscription, Target, Topic
from unimq.driver import (
    Blocked,
    ConnectOptions,
    Facts,
    Lost,
    Op,
    Password,
    Place,
    ReceiverOptions,
    SenderOptions,
    Sink,
    Token,
    Unblocked,
)
from unimq.errors import (
    AuthenticationFailed,
    Closed,
    ConnectionFailed,
    PermissionDenied,
    UnimqError,
    Unsupported,
)
from unimq.stats import Stats
from unimq.topology import Declaration, TopologyReport
from unimq.url import Endpoint

from . import admin, errors, names, parameters, topology
from .adapter import RabbitMQAdapter
from .capabilities import found
from .loop import Loop
from .management import Management
from .publisher import Route
from .questions import Channels
from .receiver import RabbitReceiver, Step
from .replies import ReplyReceiver, Requests
from .sender import RabbitSender
from .tokens import Renewal

OPERATION_TIMEOUT_S: Final = 15.0  # opening a link, a declare, an admin call: an answer or ConnectionFailed
LINK_CLOSE_SHARE: Final = 0.5  # of the time of close is for the links, the rest for the goodbye
_log = logging.getLogger("unimq.rabbitmq")


def connect(endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> RabbitConnection:
    parameters.check(endpoint, options, RabbitMQAdapter.url_options)
    connection = RabbitConnection(endpoint, options, sink)
    connection.open()
    return connection


class RabbitConnection:
    """See the module."""

    def __init__(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> None:
        self._endpoint = endpoint
        self._options = options
        self._sink = sink
        self._lock = threading.Lock()
        self._loops: list[Loop] = []
        self._publishing: Loop | None = None
        self._consuming: Loop | None = None
        self._host: tuple[str, int] | None = None
        self._credential: Password | Token | None = None
        self._links: dict[RabbitSender | RabbitReceiver, None] = {}
        self._requests: Requests | None = None
        self._lost = False
        self._closed = False
        self._stop = threading.Event()
        self._renewal = Renewal(
            lambda: parameters.ask(options), self._take_credential, lambda: list(self._loops), self._stop
        )
        self._management = None
        if "management" in endpoint.options:
            self._management = Management(
                endpoint,
                parameters.virtual_host(endpoint.path),
                lambda: self._credential,
                lambda: parameters.context(endpoint, options),
            )
        self.limited_queues: dict[str, str] = {}  # queue → the limit of its length: there a nack means full
        self._lasting: set[str] = set()
        self.known_places: dict[str, set[str]] = {}  # source queue → its delay queues declared here
        self.capabilities = RabbitMQAdapter.capabilities
        self.facts = Facts(flavour="rabbitmq")

    def __repr__(self) -> str:
        return f"<RabbitConnection {self._endpoint}>"

    # -------------------------------------------------------------------------------------------------- opening
    def open(self) -> None:
        """Blocks: one round over the hosts."""
        deadline = time.monotonic() + self._options.connect_timeout_s
        self._credential = parameters.ask(self._options)
        context = parameters.tls(self._endpoint, self._options)
        last: BaseException | None = None
        hosts = parameters.hosts(self._endpoint)
        for index, host in enumerate(hosts):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                loop = self._open_loop(host, context, left / (len(hosts) - index), "1")
            except Exception as error:  # the next host may be well; the last reason is raised below
                last = error
                if isinstance(
                    errors.classify(error, op=Op.CONNECT, handed_over=False),
                    AuthenticationFailed | PermissionDenied,
                ):
                    raise
                continue
            self._host = host
            self._found(loop)
            self._renewal.start(self._credential)
            return
        raise last or ConnectionFailed(f"no connection within {self._options.connect_timeout_s:g} s")

    def _open_loop(self, host: tuple[str, int], context: Any, timeout_s: float, role: str) -> Loop:
        wanted = parameters.parameters(
            self._endpoint, self._options, host, self._credential, context, timeout_s, role
        )
        loop = Loop(
            name=f"unimq-rabbitmq-{role}",
            on_lost=self._on_lost,
            on_blocked=self._on_blocked,
            fast=bool(self._options.native.get("fast", True)),
        )
        try:
            loop.open(wanted, timeout_s)
        except BaseException:  # an interrupt too: nobody has this loop yet who could end its thread
            loop.close(0.0)
            raise
        with self._lock:
            self._loops.append(loop)
        return loop

    def _found(self, loop: Loop) -> None:
        properties: Mapping[str, Any] = loop.connection.server_properties or {}
        product, text = str(properties.get("product", "")), str(properties.get("version", ""))
        version = tuple(int(number) for number in re.findall(r"\d+", text)[:3])
        self.capabilities = found(product, version)
        limit = self._endpoint.options.get("max_message_bytes")
        if limit is not None:
            self.capabilities = self.capabilities.narrowed(max_message_bytes=int(limit))
        self.facts = Facts(flavour=product.lower() or "rabbitmq", version=version)

    def _loop(self, publishing: bool) -> Loop:
        """The connection for this role; the second one is opened here."""
        with self._lock:
            self._check()
            mine, other = (
                (self._publishing, self._consuming) if publishing else (self._consuming, self._publishing)
            )
            if mine is not None:
                return mine
            loop = self._loops[0] if other is None else None
            if loop is not None:
                self._assign(publishing, loop)
                return loop
        assert self._host is not None
        context = parameters.tls(self._endpoint, self._options)
        loop = self._open_loop(self._host, context, self._options.connect_timeout_s, "2")
        with self._lock:
            taken = self._publishing if publishing else self._consuming
            if taken is None and not self._closed and not self._lost:
                self._assign(publishing, loop)
                return loop
            self._loops.remove(loop)
        loop.close(1.0)  # another thread was first, or all is over
        if taken is None:
            self._check()
            raise Closed("the connection is closed", adapter=errors.ADAPTER)
        return taken

    def _assign(self, publishing: bool, loop: Loop) -> None:
        if publishing:
            self._publishing = loop
        else:
            self._consuming = loop

    def _check(self) -> None:
        if self._closed:
            raise Closed("the connection is closed", adapter=errors.ADAPTER)
        if self._lost:
            raise ConnectionFailed("the connection is lost", adapter=errors.ADAPTER)

    @property
    def requests(self) -> Requests:
        if self._requests is None:
            self._requests = Requests(self._loop(publishing=True))
        return self._requests

    # ---------------------------------------------------------------------------------------------------- events
    def _on_lost(self, loop: Loop, error: BaseException) -> None:
        with self._lock:
            if self._lost or self._closed:
                return
            self._lost = True
            others = [other for other in self._loops if other is not loop]
        self._stop.set()
        for other in others:
            other.cut(error)
        self._sink(Lost(None, error))

    def _on_blocked(self, loop: Loop, reason: str | None) -> None:
        self._sink(Unblocked() if reason is None else Blocked(reason))
        if reason is None:
            for link in list(self._links):
                if isinstance(link, RabbitSender):
                    link.unblocked()

    def forget(self, link: RabbitSender | RabbitReceiver) -> None:
        self._links.pop(link, None)

    # ----------------------------------------------------------------------------------------------------- links
    def sender(self, target: Target | Place, options: SenderOptions) -> RabbitSender:
        route = route_of(target, options)
        self._look_for_limit(route)
        loop = self._loop(publishing=True)
        link = RabbitSender(self, loop, route, options, self._sink)
        try:
            link.open(OPERATION_TIMEOUT_S)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 405:
                raise
            # in exclusive use by another connection: it is there, and takes messages (a requester's reply queue)
            link = RabbitSender(self, loop, route, options, self._sink, ask=False)
            link.open(OPERATION_TIMEOUT_S)
        self._links[link] = None
        return link

    def _look_for_limit(self, route: Route) -> None:
        """Of a queue that somebody else has made, or that a policy applies to."""
        if self._management is None or route.key is None or route.key in self.limited_queues:
            return
        limit = self._management.limit(route.key)
        if limit is not None:
            self.limited_queues[route.key] = limit

    def receiver(self, source: Source | Place, options: ReceiverOptions) -> RabbitReceiver:
        link = self._receiver(source, options)
        link.open(OPERATION_TIMEOUT_S)
        self._links[link] = None
        return link

    def _receiver(self, source: Source | Place, options: ReceiverOptions) -> RabbitReceiver:
        if options.also_read:
            raise Unsupported(
                "RabbitMQ's delay queues return by themselves: nothing else is read", adapter=errors.ADAPTER
            )
        if options.session is not None or options.mode == "deferred" or options.positions is not None:
            raise Unsupported(
                "RabbitMQ has no sessions, deferred messages or positions", adapter=errors.ADAPTER
            )
        if options.start == "earliest" or (isinstance(source, Subscription) and source.start == "earliest"):
            raise Unsupported(
                'start="earliest" needs a log, which RabbitMQ\'s topics are not', adapter=errors.ADAPTER
            )
        if isinstance(source, Place):
            ref = names.ref_of(source)
            if ref.kind == "reply":
                return ReplyReceiver(self, self._loop(publishing=True), ref.queue, options, self._sink)
            return RabbitReceiver(self, self._loop(publishing=False), ref.queue, options, self._sink)
        if isinstance(source, Subscription) and source.name is None and source.broker_name is None:
            return self._private(source, options)
        queue = names.dead_place(source).text if options.mode == "dead" else names.queue_of(source)
        loop = self._loop(publishing=False)
        lasting = queue in self._lasting
        return RabbitReceiver(self, loop, queue, options, self._sink, ordered=source.ordered, lasting=lasting)

    def _private(self, subscription: Subscription, options: ReceiverOptions) -> RabbitReceiver:
        """An exclusive queue that ends with the receiver, made on its own channel."""
        exchange = names.exchange_of(subscription.topic)
        mine = f"unimq.private.{uuid4().hex}" if subscription.where else exchange
        subjects = subscription.subjects or ("#",)

        def declare(channel: Any, done: Callable[[Any], None]) -> None:
            def declared(frame: Any) -> None:
                link.use_queue(frame.method.queue)
                done(frame)

            channel.queue_declare("", exclusive=True, auto_delete=True, callback=declared)

        def own_exchange(channel: Any, done: Callable[[Any], None]) -> None:
            channel.exchange_declare(mine, "headers", auto_delete=True, callback=done)

        def match(channel: Any, done: Callable[[Any], None]) -> None:
            channel.queue_bind(
                link.queue, mine, "", names.match_arguments(dict(subscription.where)), callback=done
            )

        def bind(pattern: str) -> Step:
            def step(channel: Any, done: Callable[[Any], None]) -> None:
                if subscription.where:
                    channel.exchange_bind(mine, exchange, pattern, callback=done)
                else:
                    channel.queue_bind(link.queue, exchange, pattern, callback=done)

            return step

        steps: list[Step] = [declare]
        if subscription.where:
            steps += [own_exchange, match]
        steps += [bind(pattern) for pattern in subjects]
        link = RabbitReceiver(self, self._loop(publishing=False), "", options, self._sink, steps=steps)
        return link

    # ------------------------------------------------------------------------------------------ topology and admin
    def _any_loop(self) -> Loop:
        with self._lock:
            self._check()
            return self._loops[0]

    def declare(self, declarations: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
        with Channels(self._any_loop(), OPERATION_TIMEOUT_S) as channels:
            work = topology.Work(channels, verify_only=verify_only)
            for declaration in declarations:
                work.declare(declaration)
        self.limited_queues |= work.limited
        for source, places in work.places.items():
            self.known_places.setdefault(source, set()).update(places)
        kinds = {**self.facts.extra.get("queue_kinds", {}), **work.kinds}
        self.facts = dataclasses.replace(self.facts, extra={"queue_kinds": kinds})
        self._lasting |= work.lasting
        return work.report()

    def stats(self, place: Source | Target | Place) -> Stats:
        with Channels(self._any_loop(), OPERATION_TIMEOUT_S) as channels:
            return admin.stats(channels, place, self.known_places, self._management)

    def purge(self, place: Source | Place) -> int | None:
        with Channels(self._any_loop(), OPERATION_TIMEOUT_S) as channels:
            return admin.purge(channels, place)

    def delete(self, place: Source | Target | Place) -> None:
        with Channels(self._any_loop(), OPERATION_TIMEOUT_S) as channels:
            admin.delete(channels, place, self.known_places)

    def _take_credential(self, fresh: Password | Token | None) -> None:
        self._credential = fresh

    # --------------------------------------------------------------------------------------------------- closing
    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
            loops = list(self._loops)
        self._stop.set()
        links = list(self._links)
        until = time.monotonic() + timeout_s * LINK_CLOSE_SHARE
        for link in sorted(links, key=lambda link: isinstance(link, RabbitSender)):
            link.close(max(until - time.monotonic(), 0.05))
        for loop in loops:
            loop.close(max(deadline - time.monotonic(), 0.05))
        self._links.clear()


def route_of(target: Target | Place, options: SenderOptions) -> Route:
    strict = options.unroutable == "error"
    if isinstance(target, Queue):
        queue = names.queue_of(target)
        direct = queue.startswith(names.DIRECT_REPLY)
        return Route("", queue, mandatory=not direct, waits=False, text=str(target))
    if isinstance(target, Topic):
        return Route(names.exchange_of(target), None, mandatory=strict, waits=False, text=str(target))
    if isinstance(target, Place):
        ref = names.ref_of(target)
        waits = ref.kind in ("retry", "delay")
        if ref.exchange:
            return Route(ref.exchange, None, mandatory=True, waits=waits, text=target.text)
        # the broker returns a mandatory direct reply as unroutable even when it has delivered it
        direct = ref.queue.startswith(names.DIRECT_REPLY)
        return Route("", ref.queue, mandatory=not direct, waits=waits, text=target.text)
    raise UnimqError(f"{target!r} is not a Queue, a Topic or a Place", code="not-an-address")
