"""Numbers, emptying and deleting. Blocking.

Rules
- `depth` is what waits for a consumer; what is handed out is not told over AMQP: with `?management=` its last sample, else
  None, never 0.
- `delayed` counts the delay queues declared here; with `?management=` all that there are.
- Deleting a source deletes its dead-letter and delay places too, and a subscription's exchanges.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from unimq.address import Source, Subscription, Target, Topic
from unimq.driver import Place
from unimq.errors import NotFound, Unsupported
from unimq.ladder import LADDER_S, milliseconds
from unimq.stats import Stats

from . import errors, names
from .topology import queue_depth

if TYPE_CHECKING:
    from .management import Management
    from .questions import Channels

Known = Mapping[str, Set[str]]


def _queue(place: Source | Target | Place) -> str:
    if isinstance(place, Place):
        return names.ref_of(place).queue
    if isinstance(place, Topic):
        raise Unsupported(f"{place} holds no messages: ask its subscriptions", adapter=errors.ADAPTER)
    return names.queue_of(place)


def _there(channels: Channels, queue: str) -> tuple[int, int]:
    found = queue_depth(channels, queue)
    if found is None:
        raise NotFound(f"RabbitMQ has no queue {queue!r}; mq.declare(...) makes it", adapter=errors.ADAPTER)
    return found


def stats(
    channels: Channels, place: Source | Target | Place, known: Known, management: Management | None
) -> Stats:
    queue = _queue(place)
    depth, consumers = _there(channels, queue)
    in_flight = None if management is None else management.in_flight(queue)
    if isinstance(place, Place):
        return Stats(depth=depth, consumers=consumers, in_flight=in_flight)
    dead = queue_depth(channels, f"{queue}.dlq")
    delays = set(known.get(queue, ()))
    if management is not None:
        delays |= management.delays(queue)
    waiting = [found[0] for name in sorted(delays) if (found := queue_depth(channels, name)) is not None]
    return Stats(
        depth=depth,
        consumers=consumers,
        in_flight=in_flight,
        dead=None if dead is None else dead[0],
        delayed=sum(waiting) if waiting or management is not None else None,
    )


def purge(channels: Channels, place: Source | Place) -> int:
    queue = _queue(place)
    _there(channels, queue)
    frame = channels.run(f"purging {queue}", lambda ch, done: ch.queue_purge(queue, callback=done))
    return int(frame.method.message_count)


def delete(channels: Channels, place: Source | Target | Place, known: Known) -> None:
    """What is not there counts as deleted."""
    queues: list[str] = []
    exchanges: list[str] = []
    steps = [milliseconds(step) for step in LADDER_S]
    if isinstance(place, Place):
        ref = names.ref_of(place)
        queues.append(ref.queue)
        if ref.exchange:
            exchanges.append(ref.exchange)
    elif isinstance(place, Topic):
        exchange = names.exchange_of(place)
        delays = [f"{exchange}.delay.{ms}" for ms in steps]
        exchanges += [exchange, *delays]
        queues += delays
    else:
        queue = names.queue_of(place)
        if isinstance(place, Subscription):
            exchanges += [names.filter_exchange(place, letter) for letter in ("a", "b")]
        delays = sorted({*(f"{queue}.retry.{ms}" for ms in steps), *known.get(queue, ())})
        queues += [*delays, queue, f"{queue}.dlq"]
    for name in exchanges:
        delete_exchange(channels, name)
    for name in queues:
        _delete_queue(channels, name)


def delete_exchange(channels: Channels, name: str) -> None:
    channels.run(f"deleting {name}", lambda ch, done: ch.exchange_delete(name, callback=done))


def _delete_queue(channels: Channels, name: str) -> None:
    channels.run(f"deleting {name}", lambda ch, done: ch.queue_delete(name, callback=done))
