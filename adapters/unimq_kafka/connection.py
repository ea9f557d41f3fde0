"""One connection: a shared producer (one more per set of batching options), an admin client, and the receivers.

Rules
- librdkafka connects and reconnects by itself, so `Lost(None)` is said only when a producer is spent (a fatal error).
- The real cause of a failed connect comes by `error_cb` only: it is collected and raised in place of "timed out".
- `drive` serves the producers: one leader at a time, turns of ≤ 20 ms; `Done`s run after the leader's lock is free.
- Topics are never made by asking for them (`allow.auto.create.topics=false`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from unimq.address import Source, Subscription, Target, Topic
from unimq.capabilities import Capabilities
from unimq.driver import (
    ConnectOptions,
    Credential,
    Facts,
    Lost,
    Place,
    ReceiverOptions,
    SenderOptions,
    Sink,
    Token,
)
from unimq.errors import Closed, NotFound, ResourceExhausted, Unsupported
from unimq.stats import Stats
from unimq.topology import Declaration, TopologyReport
from unimq.url import Endpoint

from . import admin, names, settings, topology
from .capabilities import CAPABILITIES
from .completions import Completions
from .errors import ADAPTER_NAME, code_of
from .names import TopicRef
from .owner import Owner
from .plan import GROUP_FACT
from .pump import TURN_MAX_S, Pump
from .reading import Reading, plan_reading, topic_of
from .receiver import KafkaReceiverLink
from .sender import KafkaSenderLink

METADATA_TIMEOUT_S: Final = 10.0
CONNECT_LOOK_S: Final = 0.25  # how often a connect that waits looks at what error_cb has brought
PUMPS_MAX: Final = 8
CAUSES_MAX: Final = 16
TOKEN_LIFE_S: Final = 3600.0  # for tokens that do not say when they expire
_TELLING: Final = (
    "_AUTHENTICATION",
    "SASL_AUTHENTICATION_FAILED",
    "_SSL",
    "_RESOLVE",
    "_TRANSPORT",
    "_ALL_BROKERS_DOWN",
)
_UNKNOWN_TOPIC: Final = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")
_client_log = logging.getLogger("unimq.kafka.client")


class KafkaConnection:
    def __init__(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> None:
        self.capabilities: Capabilities = CAPABILITIES.narrowed(
            max_message_bytes=settings.max_message_bytes(endpoint)
        )
        group = endpoint.options.get("group")
        self.facts = Facts(flavour="kafka", extra={} if group is None else {GROUP_FACT: group})
        self._group_option = group
        self._endpoint = endpoint
        self._native = options.native
        self._sink = sink
        self._completions = Completions()
        self._causes: deque[Any] = deque(maxlen=CAUSES_MAX)
        self._leader = threading.Lock()
        self._stirred = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        self._base = self._settings(options)
        self._pumps: dict[tuple[Any, ...], Pump] = {}
        self._senders: list[KafkaSenderLink] = []
        self._receivers: list[tuple[KafkaReceiverLink, Owner]] = []
        self._admin: Any = None
        self._main = self._pump(SenderOptions())

    def _settings(self, options: ConnectOptions) -> dict[str, Any]:
        ask = settings.credential(options)
        secret = None if ask is None else ask()
        base = settings.common(self._endpoint, options, secret)
        if ask is not None and isinstance(secret, Token):
            base["oauth_cb"] = _tokens(ask, secret)
        return base

    @classmethod
    def open(cls, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> KafkaConnection:
        connection = cls(endpoint, options, sink)
        try:
            connection._greet(options.connect_timeout_s)
        except BaseException:
            connection.close(0.0)
            raise
        return connection

    def _greet(self, timeout_s: float) -> None:
        """A metadata round trip: until then librdkafka has said nothing about the broker."""
        producer = self._main.producer
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            try:
                producer.list_topics(timeout=max(min(left_s, CONNECT_LOOK_S), 0.01))
                return
            except KafkaException as error:
                producer.poll(0)
                said = {code_of(cause): cause for cause in self._causes}
                best = next((said[name] for name in _TELLING if name in said), None)
                if (
                    "_ALL_BROKERS_DOWN" in said
                    or left_s <= 0
                    or (best is not None and code_of(best) in _TELLING[:2])
                ):
                    raise (error if best is None else KafkaException(best)) from None

    # ------------------------------------------------------------------------------------------------- producers
    def _pump(self, options: SenderOptions) -> Pump:
        kind = (
            options.linger_s,
            options.compression,
            options.batch_bytes,
            tuple(sorted(options.native.items())),
        )
        with self._lock:
            pump = self._pumps.get(kind)
            if pump is None:
                if len(self._pumps) >= PUMPS_MAX:
                    raise ResourceExhausted(
                        f"at most {PUMPS_MAX} sets of sender options per client: each is a producer"
                    )
                config = settings.producer(self._base, self._native, options) | dict(options.native)
                config["error_cb"] = self._producer_error
                capacity = int(config["queue.buffering.max.messages"])
                producer = Producer(config, logger=_client_log)
                pump = self._pumps[kind] = Pump(
                    producer, self._completions, self._sink, capacity, self._stirred.set
                )
        return pump

    def _producer_error(self, error: Any) -> None:
        self._causes.append(error)
        if error.fatal() and not self._closed:
            self._completions.add(self._sink, Lost(None, KafkaException(error)))

    def drive(self, timeout_s: float) -> None:
        if self._leader.acquire(timeout=min(max(timeout_s, 0.0), TURN_MAX_S)):
            try:
                self._turn(timeout_s)
            finally:
                self._leader.release()
        self._completions.run()

    def _turn(self, timeout_s: float) -> None:
        turn_s = min(timeout_s, TURN_MAX_S)
        pumps = list(self._pumps.values())
        busy = [pump for pump in pumps if pump.flights]
        if not busy:
            self._stirred.wait(turn_s)
            self._stirred.clear()
            busy, turn_s = pumps, 0.0  # their errors come by polling only
        for pump in busy:
            pump.turn(turn_s / len(busy))

    def sender(self, target: Target | Place, options: SenderOptions) -> KafkaSenderLink:
        self._check_open()
        if options.unroutable == "error" and isinstance(target, Topic):
            raise Unsupported(
                'unroutable="error": a Kafka topic is a log and keeps what is sent, with or without a group'
            )
        topic = topic_of(target)
        if self._count(topic) is None:
            raise NotFound(
                f"the topic {topic} does not exist: mq.declare({target}) makes it", adapter=ADAPTER_NAME
            )
        link = KafkaSenderLink(topic, self._pump(options), self._completions, self.drive)
        with self._lock:
            self._senders = [one for one in self._senders if not one.closed]
            self._senders.append(link)
        return link

    # ------------------------------------------------------------------------------------------------- receivers
    def receiver(self, source: Source | Place, options: ReceiverOptions) -> KafkaReceiverLink:
        self._check_open()
        if options.session is not None or options.mode == "deferred":
            raise Unsupported("Kafka has neither sessions nor deferred messages")
        if options.positions is not None:
            raise Unsupported("opening at positions is not built yet for Kafka")
        reading = self._reading(source, options)
        link = KafkaReceiverLink(f"the receiver of {source}", options)
        owner = Owner(reading, link, self._sink)
        # asked for by librdkafka, unknown to the broker
        group = reading.group or f"unimq-private-{uuid.uuid4().hex}"
        config = settings.consumer(self._base, self._native, self._endpoint, group, options.prefetch_bytes)
        config |= dict(options.native)
        config["error_cb"] = self._causes.append
        config["on_commit"] = owner.on_commit
        owner.use(Consumer(config, logger=_client_log))
        with self._lock:
            self._receivers = [pair for pair in self._receivers if not pair[1].over]
            self._receivers.append((link, owner))
        link.start(owner)
        return link

    def _reading(self, source: Source | Place, options: ReceiverOptions) -> Reading:
        topic = topic_of(source)
        count = self._count(topic)
        if count is None:
            raise NotFound(
                f"the topic {topic} does not exist: mq.declare({source}) makes it", adapter=ADAPTER_NAME
            )
        config = settings.consumer(self._base, self._native, self._endpoint, "", 1) | dict(options.native)
        return plan_reading(
            source,
            options,
            topic=topic,
            partitions=range(count),
            group_option=self._group_option,
            admin_client=self._admin_client(),
            places_of=self._places_of,
            incremental=settings.is_incremental(config),
        )

    def _places_of(self, topic: str, source: Source, timeout_s: float) -> tuple[bool, list[Place]]:
        """Whether the topic is there, and the retry places of its group that exist."""
        found = self._main.producer.list_topics(timeout=timeout_s).topics
        return topic in found, names.retry_places_among(found, source, self._group_option)

    # -------------------------------------------------------------------------------------------------- topology
    def declare(self, topology_: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
        self._check_open()
        report = topology.declare(
            self._admin_client(), self._count, topology_, self._group_option, verify_only=verify_only
        )
        if report.created:
            with self._lock:
                owners = [owner for _, owner in self._receivers]
            for owner in owners:
                owner.refresh_soon()
        return report

    def _count(self, topic: str) -> int | None:
        """How many partitions the topic has; None where it does not exist or has no leaders yet."""
        found = self._main.producer.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics.get(topic)
        if found is None:
            return None
        if found.error is not None:
            if code_of(found.error) in _UNKNOWN_TOPIC:
                return None
            raise KafkaException(found.error)
        if any(partition.leader < 0 for partition in found.partitions.values()):
            return None
        return len(found.partitions) or None

    def _admin_client(self) -> Any:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient(self._base | {"error_cb": self._causes.append}, logger=_client_log)
            return self._admin

    # ----------------------------------------------------------------------------------------------------- admin
    def stats(self, place: Source | Target | Place) -> Stats:
        self._check_open()
        topic = topic_of(place)
        count = self._count(topic)
        if count is None:
            raise NotFound(
                f"the topic {topic} does not exist: mq.declare(...) makes it", adapter=ADAPTER_NAME
            )
        client = self._admin_client()
        if isinstance(place, Place):
            group = (
                place.ref.group
                if isinstance(place.ref, TopicRef)
                else names.group_of(place.ref, self._group_option)
            )
            return Stats(depth=admin.lag(client, topic, range(count), group))
        group = names.group_of(place, self._group_option)
        depth = admin.lag(client, topic, range(count), group)
        if group is None or isinstance(place, Topic):
            return Stats(depth=depth)
        delayed = sum(self._depth_of(one) for one in self._places_of(topic, place, METADATA_TIMEOUT_S)[1])
        dead = names.dead_place(place, self._group_option)
        return Stats(
            depth=depth,
            delayed=delayed,
            dead=0 if dead is None else self._depth_of(dead),
            lag=depth,
            consumers=admin.members(client, group),
        )

    def _depth_of(self, place: Place) -> int:
        count = self._count(place.ref.topic)
        return (
            0
            if count is None
            else admin.lag(self._admin_client(), place.ref.topic, range(count), place.ref.group)
        )

    def purge(self, place: Source | Place) -> int | None:
        self._check_open()
        topic = topic_of(place)
        ref = place.ref if isinstance(place, Place) else place
        group = ref.group if isinstance(ref, TopicRef) else names.group_of(ref, self._group_option)
        count = self._count(topic)
        if group is None or count is None:
            raise Unsupported(f"{place} has no group, so there is nothing to move to the end")
        client = self._admin_client()
        depth = admin.lag(client, topic, range(count), group)
        admin.move(client, group, topic, admin.ends(client, topic, range(count)))
        return depth

    def delete(self, place: Source | Target | Place) -> None:
        self._check_open()
        if isinstance(place, Subscription):
            group = names.group_of(place)
            if group is not None:
                admin.delete_group(self._admin_client(), group)
            return
        admin.delete_topic(self._admin_client(), topic_of(place))

    # ----------------------------------------------------------------------------------------------------- close
    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the connection is closed", adapter=ADAPTER_NAME)

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
            receivers, self._receivers = self._receivers, []
            senders, self._senders = self._senders, []
        for sender in senders:
            sender.end()
        for receiver, _ in receivers:
            receiver.begin_close(timeout_s)
        for receiver, _ in receivers:
            receiver.end_close(max(deadline - time.monotonic(), 0.0) + TURN_MAX_S)
        with self._leader:
            pumps, self._pumps = self._pumps, {}
            for pump in pumps.values():
                pump.close(deadline)
        self._completions.run()
        with self._lock:
            if self._admin is not None:
                self._admin.__exit__(None, None, None)  # it has no `close`
                self._admin = None


def _tokens(ask: Credential, first: Token) -> Any:
    """librdkafka's `oauth_cb`: the token we have, then fresh ones."""
    fresh = [first]

    def token_for(config: str) -> tuple[str, float]:
        token = fresh.pop() if fresh else ask()
        if not isinstance(token, Token):
            raise Unsupported(f"the credential gave a Token first and a {type(token).__name__} later")
        return token.value, token.expires_at if token.expires_at is not None else time.time() + TOKEN_LIFE_S

    return token_for
