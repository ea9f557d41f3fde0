"""Declaring and comparing places. Called under the broker's lock.

Rules
- A queue is made with its dead-letter place `<queue>.dlq`, where the engine's own dead go too.
- What exists is used as it is; compared are only the options that were asked for. A difference raises `TopologyMismatch`,
  with `verify_only` it is reported.
- A subscription has one filter; another one is a difference unless `replace_filters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from unimq.address import Address, Queue, Subscription, Topic
from unimq.broker.engine import Engine, Filter, Mismatch, QueueCore, QueueOptions
from unimq.driver import Place
from unimq.errors import TopologyMismatch, Unsupported
from unimq.message import PRIORITY_MAX
from unimq.topology import Declaration, TopologyReport

from . import names
from .errors import ADAPTER, not_found

if TYPE_CHECKING:
    from .broker import MemoryBroker

DELIVERY_LIMIT: Final = 20  # the backstop of §5.4: a message handed out and back this often is dead
QUEUE_OPTIONS: Final = ("ttl_s", "max_length", "max_priority", "dedup_window_s")
LACKING: Final = ("lock_s", "partitions")


class _Report:
    def __init__(self, engine: Engine, verify_only: bool) -> None:
        self.engine = engine
        self.verify_only = verify_only
        self.created: list[str] = []
        self.existing: list[str] = []
        self.missing: list[str] = []
        self.differences: dict[str, dict[str, tuple[object, object]]] = {}

    def found(self, name: str, differences: dict[str, tuple[object, object]] | None = None) -> None:
        self.existing.append(name)
        if differences:
            self.differences.setdefault(name, {}).update(differences)

    def lacks(self, name: str) -> bool:
        """It is not there: True when it is to be made."""
        (self.missing if self.verify_only else self.created).append(name)
        return not self.verify_only

    def done(self) -> TopologyReport:
        unique = dict.fromkeys
        report = TopologyReport(
            tuple(unique(self.created)),
            tuple(unique(name for name in self.existing if name not in self.created)),
            tuple(unique(self.missing)),
            self.differences,
        )
        if not self.verify_only:
            report.raise_for_differences()
        return report


def declare(engine: Engine, declarations: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
    report = _Report(engine, verify_only)
    for declaration in declarations:
        options = _options(declaration)
        address = declaration.address
        if isinstance(address, Topic):
            _topic(report, address)
        elif isinstance(address, Subscription):
            _topic(report, address.topic)
            if not names.is_private(address):
                _queue(report, names.queue_of(address), options)
                _subscription(report, address, replace=declaration.replace_filters)
        elif isinstance(address, Queue):
            _queue(report, names.queue_of(address), options)
        else:
            raise Unsupported(
                f"declare takes a Queue, Topic or Subscription, not {address!r}", adapter=ADAPTER
            )
        for ref in declaration.places:
            _place(report, ref)
    return report.done()


def _options(declaration: Declaration) -> dict[str, Any]:
    """The queue options that were asked for."""
    where = declaration.address
    for name in LACKING:
        if getattr(declaration, name) is not None:
            raise Unsupported(f"declare({where}, {name}=…): the memory broker has no {name}", adapter=ADAPTER)
    if declaration.native:
        name = next(iter(declaration.native))
        raise Unsupported(
            f"declare({where}): native option {name!r}: the memory broker takes none", adapter=ADAPTER
        )
    asked = {
        name: getattr(declaration, name) for name in QUEUE_OPTIONS if getattr(declaration, name) is not None
    }
    if asked and (isinstance(where, Topic) or names.is_private(where)):
        raise Unsupported(
            f"declare({where}, {next(iter(asked))}=…): it holds no messages of its own", adapter=ADAPTER
        )
    if asked.get("max_priority", 0) > PRIORITY_MAX:
        raise Unsupported(f"declare({where}): max_priority is at most {PRIORITY_MAX}", adapter=ADAPTER)
    try:
        QueueOptions(**asked)
    except ValueError as error:
        raise Unsupported(f"declare({where}): {error}", adapter=ADAPTER) from error
    return asked


def _topic(report: _Report, topic: Topic) -> None:
    name = names.topic_of(topic)
    if report.engine.topic(name) is not None:
        report.found(name)
    elif report.lacks(name):
        report.engine.declare_topic(name)


def _queue(report: _Report, name: str, asked: dict[str, Any]) -> None:
    engine = report.engine
    dead = names.dead_of(name)
    there = engine.queue(name)
    if there is not None:
        known = there.options
        report.found(
            name,
            {
                option: (getattr(known, option), value)
                for option, value in asked.items()
                if getattr(known, option) != value
            },
        )
    elif report.lacks(name):
        _dead(report, dead)
        engine.declare_queue(name, _made_with(dead, asked))


def _made_with(dead: str | None, asked: dict[str, Any]) -> QueueOptions:
    options: dict[str, Any] = {"max_priority": PRIORITY_MAX, **asked}
    return QueueOptions(
        overflow="reject",
        max_delivery_count=None if dead is None else DELIVERY_LIMIT,
        dead_letter=dead,
        **options,
    )


def _dead(report: _Report, name: str) -> None:
    """A dead-letter place: no limit of its own, and nothing dies there a second time."""
    if report.engine.queue(name) is not None:
        report.found(name)
    elif report.lacks(name):
        report.engine.declare_queue(name, QueueOptions(overflow="reject"))


def _place(report: _Report, ref: object) -> None:
    ref = ref.ref if isinstance(ref, Place) else ref
    if isinstance(ref, names.QueueRef):
        if ref.dead_of is not None:
            _dead(report, ref.name)
        else:
            _queue(report, ref.name, {})
    elif isinstance(ref, Address):
        _queue(report, names.queue_of_place(Place(ref, str(ref))), {})
    else:
        raise ValueError(f"{ref!r} is not a place of the memory broker")


# ---------------------------------------------------------------------------------------------------- subscriptions
def filter_of(subscription: Subscription) -> Filter:
    return Filter(tuple(subscription.subjects), dict(subscription.where))


def _bound_as(subscription: Subscription) -> str:
    return subscription.name or names.queue_of(subscription)


def _subscription(report: _Report, subscription: Subscription, *, replace: bool) -> None:
    engine = report.engine
    name = names.queue_of(subscription)
    topic, queue = engine.topic(names.topic_of(subscription.topic)), engine.queue(name)
    if topic is None or queue is None:
        return  # said to be missing already
    there = topic.subscription(_bound_as(subscription))
    wanted = filter_of(subscription)
    if there is not None and not replace:
        report.found(name, there.filter.differences(wanted))
    elif report.verify_only:
        if there is None:
            report.missing.append(name)
        else:
            report.found(name, there.filter.differences(wanted))
    else:
        outcome = engine.subscribe(topic, _bound_as(subscription), queue, wanted, replace=replace)
        if isinstance(outcome, Mismatch):
            report.found(name, outcome.differences)


def check_filter(engine: Engine, subscription: Subscription) -> None:
    """Raises `TopologyMismatch` when an existing subscription has another filter."""
    topic = engine.topic(names.topic_of(subscription.topic))
    there = None if topic is None else topic.subscription(_bound_as(subscription))
    if there is None:
        if subscription.broker_name is None:
            raise not_found(subscription)
        return
    differences = there.filter.differences(filter_of(subscription))
    if differences:
        text = "; ".join(
            f"{name} is {had!r}, asked for {asked!r}" for name, (had, asked) in differences.items()
        )
        raise TopologyMismatch(
            f"{subscription}: {text}: mq.declare(..., replace_filters=True) changes it",
            differences={f"{subscription}: {name}": pair for name, pair in differences.items()},
            adapter=ADAPTER,
        )


def make_private(broker: MemoryBroker, subscription: Subscription) -> QueueCore:
    """The queue of a subscription without a name. It ends with its link."""
    engine = broker.engine
    topic = engine.topic(names.topic_of(subscription.topic))
    if topic is None:
        raise not_found(subscription.topic)
    name = f"{names.PRIVATE_PREFIX}{broker.private_number()}"
    queue = engine.declare_queue(name, _made_with(None, {}))
    assert isinstance(queue, QueueCore)
    engine.subscribe(topic, name, queue, filter_of(subscription))
    return queue


def drop_private(broker: MemoryBroker, queue: QueueCore) -> None:
    for topic in broker.engine.topics:
        broker.engine.unsubscribe(topic, queue.name)
    broker.engine.delete_queue(queue.name)
