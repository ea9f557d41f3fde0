"""Making and comparing queues, exchanges and bindings (§5.1, §5.3 Filters). Blocking; never on the I/O thread.

Rules
- What is there is used as it is, whatever its kind. Only what was asked for by an option is compared.
- AMQP shows no arguments. They are found by a declare that does not fit: the broker's 406 names one of them at a time, which
  is then taken over and tried again. A declare of what exists creates nothing.
- Dead-letter queues come before what dead-letters into them: at-least-once waits for ever for a missing one.
- A subscription's filter is its own exchange, `<t>.<s>.a` or `.b`, whose `alternate-exchange` the broker compares for us.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from unimq.address import Queue, Source, Subscription, Topic
from unimq.driver import Place
from unimq.errors import NotFound, TopologyMismatch, Unsupported
from unimq.topology import Declaration, TopologyReport

from . import errors, names

if TYPE_CHECKING:
    from .publisher import Route
    from .questions import Channels

DELIVERY_LIMIT: Final = 20
PROBES_MAX: Final = 16  # arguments of an existing queue that are taken over before we give up
_log = logging.getLogger("unimq.rabbitmq")


# ----------------------------------------------------------------------------------------------------- arguments
def dead_arguments() -> dict[str, Any]:
    return {"x-queue-type": "quorum"}


def returning_arguments(exchange: str, routing_key: str | None) -> dict[str, Any]:
    """A quorum queue that dead-letters to `exchange`, and loses nothing on the way."""
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return arguments


def source_arguments(queue: str, source: Source, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What unimq makes of a queue that is not there yet."""
    dead = f"{queue}.dlq"
    if "x-max-priority" in asked or asked.get("x-queue-type") not in (None, "quorum"):
        # quorum queues refuse priorities; classic ones have no at-least-once
        arguments: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        if asked.get("x-queue-type") == "stream":
            arguments = {}
    else:
        arguments = {**returning_arguments("", dead), "x-delivery-limit": DELIVERY_LIMIT}
    return {**arguments, **asked}


def asked_arguments(declaration: Declaration) -> dict[str, Any]:
    """The options of a `declare` as queue arguments; `Unsupported` for what RabbitMQ lacks."""
    for name, value in (
        ("partitions", declaration.partitions),
        ("dedup_window_s", declaration.dedup_window_s),
        ("lock_s", declaration.lock_s),
    ):
        if value is not None:
            raise Unsupported(f"declare({name}=…): RabbitMQ has no such thing", adapter=errors.ADAPTER)
    asked: dict[str, Any] = {}
    if declaration.ttl_s is not None:
        asked["x-message-ttl"] = round(declaration.ttl_s * 1000)
    if declaration.max_length is not None:
        asked["x-max-length"] = declaration.max_length
        asked["x-overflow"] = "reject-publish"  # the default drops the oldest, in silence
    if declaration.max_priority is not None:
        asked["x-max-priority"] = declaration.max_priority
    address = declaration.address
    if isinstance(address, Queue | Subscription) and address.ordered:
        asked["x-single-active-consumer"] = True
    asked.update(declaration.native)
    return asked


# ---------------------------------------------------------------------------------------------------------- looking
def queue_depth(channels: Channels, queue: str) -> tuple[int, int] | None:
    """(messages, consumers), None when it is not there."""
    try:
        frame = channels.run(
            f"looking at {queue}", lambda ch, done: ch.queue_declare(queue, passive=True, callback=done)
        )
    except Exception as error:  # told apart right here: only "not found" is an answer
        if errors.is_missing(error):
            return None
        if _code(error) == 405:
            return (0, 1)  # it is there, in exclusive use
        raise
    return frame.method.message_count, frame.method.consumer_count


def exchange_exists(channels: Channels, exchange: str) -> bool:
    try:
        channels.run(
            f"looking at {exchange}",
            lambda ch, done: ch.exchange_declare(exchange, passive=True, callback=done),
        )
    except Exception as error:  # as above
        if errors.is_missing(error):
            return False
        raise
    return True


def _code(error: BaseException) -> int:
    return int(getattr(error, "reply_code", 0) or 0)


def not_there(route: Route, reason: BaseException) -> BaseException:
    """Why a sender's channel was closed while it opened."""
    if not errors.is_missing(reason):
        return reason
    return NotFound(
        f"{route.text} is not there: RabbitMQ has no {'queue' if route.key is not None else 'exchange'} "
        f"{route.key if route.key is not None else route.exchange!r}; mq.declare(...) makes it",
        adapter=errors.ADAPTER,
        cause=reason,
    )


# ---------------------------------------------------------------------------------------------------------- the work
class Work:
    """The declarations of one call, and what became of them."""

    def __init__(self, channels: Channels, *, verify_only: bool) -> None:
        self._channels = channels
        self._verify = verify_only
        self._created: list[str] = []
        self._existing: list[str] = []
        self._missing: list[str] = []
        self._differences: dict[str, dict[str, tuple[object, object]]] = {}
        self.kinds: dict[str, str] = {}  # queue → quorum, classic or stream
        self.lasting: set[str] = set()  # queues that do not delete themselves with their last consumer
        self.limited: dict[str, str] = {}
        self.places: dict[str, set[str]] = {}

    def report(self) -> TopologyReport:
        facts = {"queue_kinds": self.kinds, "places": frozenset([*self._created, *self._existing])}
        return TopologyReport(self._created, self._existing, self._missing, self._differences, facts)

    def declare(self, declaration: Declaration) -> None:
        address = declaration.address
        asked = asked_arguments(declaration)
        if isinstance(address, Queue):
            self._source(address, names.queue_of(address), asked)
        elif isinstance(address, Topic):
            self._topic(address, asked)
        elif isinstance(address, Subscription):
            self._subscription(address, asked, declaration.replace_filters)
        for place in declaration.places:
            self._place(names.ref_of(place) if isinstance(place, Place) else place)

    # ------------------------------------------------------------------------------------------------- the steps
    def _source(self, source: Source, queue: str, asked: Mapping[str, Any]) -> bool:
        """The queue of a Queue or a Subscription; True when it was there before."""
        if "x-max-length" in asked:
            self.limited[queue] = f"max-length {asked['x-max-length']}"
        if queue_depth(self._channels, queue) is not None:
            self._existing.append(queue)
            self._compare(queue, asked)
            return True
        if self._verify:
            self._missing.append(queue)
            return False
        if asked.get("x-queue-type") != "stream":
            self._queue(f"{queue}.dlq", dead_arguments())
        arguments = source_arguments(queue, source, asked)
        self._make_queue(queue, arguments)
        self.kinds[queue] = str(arguments.get("x-queue-type", "classic"))
        self.lasting.add(queue)
        return False

    def _queue(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """A queue of ours; one that is there is used as it is."""
        if queue_depth(self._channels, queue) is not None:
            self._existing.append(queue)
        elif self._verify:
            self._missing.append(queue)
        else:
            self._make_queue(queue, arguments)

    def _make_queue(self, queue: str, arguments: Mapping[str, Any]) -> None:
        self._channels.run(
            f"declaring {queue}",
            lambda ch, done: ch.queue_declare(queue, durable=True, arguments=dict(arguments), callback=done),
        )
        self._created.append(queue)

    def _place(self, ref: names.Ref) -> None:
        if ref.kind == "dead":
            self._queue(ref.queue, dead_arguments())
        elif ref.kind == "retry":
            self.places.setdefault(ref.back_to, set()).add(ref.queue)
            self._queue(ref.queue, {**returning_arguments("", ref.back_to), "x-message-ttl": ref.delay_ms})
        elif ref.kind == "delay":
            self._queue(ref.queue, {**returning_arguments(ref.back_to, None), "x-message-ttl": ref.delay_ms})
            self._exchange(ref.exchange, "fanout", {})
            if not self._verify:
                self._bind_queue(ref.queue, ref.exchange, "", {})

    def _topic(self, topic: Topic, asked: Mapping[str, Any]) -> None:
        if asked:
            raise Unsupported(
                f"{', '.join(sorted(asked))}: an exchange holds no messages; declare its subscriptions with it",
                adapter=errors.ADAPTER,
            )
        self._exchange(names.exchange_of(topic), "topic", {})

    def _exchange(self, exchange: str, kind: str, arguments: Mapping[str, Any]) -> bool:
        if exchange_exists(self._channels, exchange):
            self._existing.append(exchange)
            return True
        if self._verify:
            self._missing.append(exchange)
        else:
            self._make_exchange(exchange, kind, arguments)
            self._created.append(exchange)
        return False

    def _make_exchange(self, exchange: str, kind: str, arguments: Mapping[str, Any]) -> None:
        self._channels.run(
            f"declaring {exchange}",
            lambda ch, done: ch.exchange_declare(
                exchange, kind, durable=True, arguments=dict(arguments), callback=done
            ),
        )

    def _bind_queue(self, queue: str, exchange: str, key: str, arguments: Mapping[str, Any]) -> None:
        self._channels.run(
            f"binding {queue}",
            lambda ch, done: ch.queue_bind(queue, exchange, key, arguments=dict(arguments), callback=done),
        )

    # ------------------------------------------------------------------------------------------------- the filters
    def _subscription(self, subscription: Subscription, asked: Mapping[str, Any], replace: bool) -> None:
        exchange = names.exchange_of(subscription.topic)
        self._exchange(exchange, "topic", {})
        if subscription.name is None and subscription.broker_name is None:
            return  # made with its receiver
        queue = names.queue_of(subscription)
        there = self._source(subscription, queue, asked)
        if subscription.broker_name is not None and there:
            return  # somebody else's: used as it is
        self._filter(subscription, exchange, queue, replace)

    def _filter(self, subscription: Subscription, exchange: str, queue: str, replace: bool) -> None:
        pair = [names.filter_exchange(subscription, letter) for letter in ("a", "b")]
        there = [name for name in pair if exchange_exists(self._channels, name)]
        fitting = [name for name in there if self._fits(subscription, name)]
        others = [name for name in there if name not in fitting]
        if not there and self._verify:
            self._missing.append(pair[0])
            return
        if others and (self._verify or not replace):
            self._differs(subscription, others[0])
            return
        self._existing.extend(fitting[:1])
        if self._verify:
            return
        mine = (
            fitting[0]
            if fitting
            else next(name for name in pair if name not in there)
            if len(there) < 2
            else pair[0]
        )
        if not fitting:
            if len(there) == 2:  # two replacements were interrupted: start again from nothing
                self._delete_exchange(pair[0])
                others.remove(pair[0])
            kind, arguments = self._wanted(subscription)
            self._make_exchange(mine, kind, arguments)
            self._created.append(mine)
        self._bind(subscription, exchange, mine, queue)
        for name in [*others, *fitting[1:]]:
            self._delete_exchange(name)

    def _wanted(self, subscription: Subscription) -> tuple[str, dict[str, Any]]:
        kind = "headers" if subscription.where else "fanout"
        return kind, {"alternate-exchange": names.filter_mark(subscription)}

    def _fits(self, subscription: Subscription, name: str) -> bool:
        kind, arguments = self._wanted(subscription)
        try:
            self._make_exchange(name, kind, arguments)  # it exists: this compares
        except Exception as error:  # told apart right here
            if _code(error) == 406:
                return False
            raise
        return True

    def _differs(self, subscription: Subscription, name: str) -> None:
        self._differences[name] = {"filter": ("another one", _filter_text(subscription))}
        if not self._verify:
            raise TopologyMismatch(
                f"{subscription} exists with another filter than {_filter_text(subscription)}: "
                "open it with that one, or change it with mq.declare(subscription, replace_filters=True)",
                differences={name: ("another filter", _filter_text(subscription))},
                adapter=errors.ADAPTER,
            )

    def _bind(self, subscription: Subscription, exchange: str, mine: str, queue: str) -> None:
        """The last step is the one that lets messages in."""
        arguments = names.match_arguments(dict(subscription.where)) if subscription.where else {}
        self._bind_queue(queue, mine, "", arguments)
        for pattern in subscription.subjects or ("#",):
            self._bind_exchange(mine, exchange, pattern)

    def _bind_exchange(self, mine: str, exchange: str, pattern: str) -> None:
        self._channels.run(
            f"binding {mine}", lambda ch, done: ch.exchange_bind(mine, exchange, pattern, callback=done)
        )

    def _delete_exchange(self, name: str) -> None:
        self._channels.run(f"deleting {name}", lambda ch, done: ch.exchange_delete(name, callback=done))

    # --------------------------------------------------------------------------------------------- the comparison
    def _compare(self, queue: str, asked: Mapping[str, Any]) -> None:
        """What an existing queue has of what was asked for; its kind on the way."""
        taken: dict[str, Any] = {**source_arguments(queue, Queue("x"), {}), **asked}
        durable, differences = True, {}
        for _ in range(PROBES_MAX):
            there = self._probe(queue, taken, durable)
            if there is None:
                self.lasting.add(queue)
                break
            name, value = there
            if name == "durable":
                durable = bool(value)
            elif name in ("exclusive", "auto_delete"):
                return  # cannot be told without owning it
            else:
                self.lasting.add(queue)  # the broker compares `durable` and `auto_delete` first
                if name in asked:
                    differences[name] = (value, asked[name])
                taken[name] = value
                if value is None:
                    del taken[name]
        else:
            _log.warning("the arguments of the queue %s could not be found in %d tries", queue, PROBES_MAX)
        self.kinds[queue] = str(taken.get("x-queue-type", "classic"))
        if not differences:
            return
        self._differences[queue] = differences
        if not self._verify:
            said = "; ".join(
                f"{name} is {there!r}, asked for {mine!r}" for name, (there, mine) in differences.items()
            )
            raise TopologyMismatch(
                f"the queue {queue!r} exists and differs: {said}",
                differences={f"{queue}: {name}": pair for name, pair in differences.items()},
                adapter=errors.ADAPTER,
            )

    def _probe(self, queue: str, arguments: Mapping[str, Any], durable: bool) -> tuple[str, object] | None:
        """(argument, its value there) that does not fit; None when all do, or when it may not be asked."""
        try:
            self._channels.run(
                f"comparing {queue}",
                lambda ch, done: ch.queue_declare(
                    queue, durable=durable, arguments=dict(arguments), callback=done
                ),
            )
        except Exception as error:  # told apart right here: a refused declare is the answer
            found = errors.inequivalent(error)
            if found is not None:
                return found[2], found[3]
            if _code(error) in (403, 405, 406):
                return ("exclusive", None)
            raise
        return None


def _filter_text(subscription: Subscription) -> str:
    parts = []
    if subscription.subjects:
        parts.append(f"subjects={list(subscription.subjects)}")
    if subscription.where:
        parts.append(f"where={dict(subscription.where)}")
    return ", ".join(parts) or "no filter"
