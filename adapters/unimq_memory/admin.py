"""Questions and chores: stats, purge, delete, cancel. Called under the broker's lock.

Rules
- `depth` is what is ready; what waits for its time is `delayed`, what is handed out `in_flight`.
- Deleting a queue or subscription takes its dead-letter place along, a topic its subscriptions. Receivers are told.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from unimq.address import Address, Queue, Source, Subscription, Target, Topic
from unimq.broker.engine import QueueCore
from unimq.driver import Cancelled, Place
from unimq.errors import Unsupported
from unimq.stats import Stats

from . import names
from .errors import ADAPTER, not_found

if TYPE_CHECKING:
    from . import outbox
    from .broker import MemoryBroker


def queue_at(broker: MemoryBroker, place: Address | Place) -> QueueCore:
    name = _name(place)
    queue = broker.engine.queue(name)
    if queue is None:
        raise not_found(place if isinstance(place, Address) else f"queue {name!r}")
    return queue


def _name(place: Address | Place) -> str:
    if isinstance(place, Place):
        return names.queue_of_place(place)
    if isinstance(place, Queue | Subscription) and not names.is_private(place):
        return names.queue_of(place)
    raise Unsupported(f"{place} holds no messages that others could ask about", adapter=ADAPTER)


def stats(broker: MemoryBroker, place: Source | Target | Place) -> Stats:
    if isinstance(place, Topic):
        if broker.engine.topic(names.topic_of(place)) is None:
            raise not_found(place)
        return Stats()  # a topic holds nothing: its subscriptions have the numbers
    queue = queue_at(broker, place)
    depth = queue.depth()
    dead = (
        broker.engine.queue(queue.options.dead_letter) if isinstance(queue.options.dead_letter, str) else None
    )
    return Stats(
        depth=depth.ready,
        in_flight=depth.leased,
        delayed=depth.delayed,
        dead=None if dead is None else dead.depth().ready + depth.dead,
        consumers=len(broker.consumers.get(queue, ())),
    )


def purge(broker: MemoryBroker, place: Source | Place) -> int:
    return queue_at(broker, place).purge()


def delete(broker: MemoryBroker, place: Source | Target | Place, calls: list[outbox.Call]) -> None:
    engine = broker.engine
    if isinstance(place, Topic):
        topic = engine.topic(names.topic_of(place))
        if topic is None:
            raise not_found(place)
        for subscription in topic.subscriptions:
            _delete_queue(broker, subscription.queue, calls)
        engine.delete_topic(topic.name)
        return
    _delete_queue(broker, queue_at(broker, place), calls)


def _delete_queue(broker: MemoryBroker, queue: QueueCore, calls: list[outbox.Call]) -> None:
    error = not_found(f"queue {queue.name!r}")
    for link in list(broker.consumers.get(queue, ())):
        link.die(error, calls)
        calls.append(partial(link.sink, Cancelled(link, error)))
    broker.engine.delete_queue(queue.name)
    if queue.name + names.DEAD_SUFFIX == queue.options.dead_letter:
        dead = broker.engine.queue(queue.options.dead_letter)
        if dead is not None:
            _delete_queue(broker, dead, calls)


def cancel(broker: MemoryBroker, target: Target | Place, position: object) -> bool:
    """A receipt's position: a number in a queue; for a topic one for each subscription that took it."""
    if isinstance(position, int):
        return queue_at(broker, target).cancel_scheduled(position) is not None
    if not isinstance(position, tuple):
        return False
    cancelled = False
    for name, seq in position:
        queue = broker.engine.queue(name)
        if queue is not None and queue.cancel_scheduled(seq) is not None:
            cancelled = True
    return cancelled
