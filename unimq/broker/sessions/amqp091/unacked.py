"""What was delivered and is not settled: one record per delivery tag of a channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from unimq.broker.engine import Entry
from unimq.broker.engine.amqpqueue import AmqpQueue

if TYPE_CHECKING:
    from .consumer import Consumer

_TAG_MAX: Final = 1 << 64


class Unacked(msgspec.Struct, eq=False):
    tag: int
    queue: AmqpQueue
    entry: Entry
    consumer: Consumer | None  # None: basic.get


def by_reader(unacked: Iterable[Unacked]) -> list[tuple[AmqpQueue, Consumer | None, list[Entry]]]:
    """What is settled in one go, and in which order: by the queue's name, what was got first, each by itself, then by
    consumer tag (rabbit_channel:foreach_per_queue)."""
    found: dict[tuple[str, int, str], tuple[AmqpQueue, Consumer | None, list[Entry]]] = {}
    for each in unacked:
        consumer = each.consumer
        key = (
            (each.queue.name, each.tag, "") if consumer is None else (each.queue.name, _TAG_MAX, consumer.tag)
        )
        found.setdefault(key, (each.queue, consumer, []))[2].append(each.entry)
    return list(found.values()) if len(found) == 1 else [found[key] for key in sorted(found)]


def by_queue(unacked: Iterable[Unacked]) -> list[tuple[AmqpQueue, list[Entry]]]:
    """What goes back when the channel ends: of each queue by consumer tag, what was got under the digits of its delivery
    tag (rabbit_fifo:handle_down; classic queues have an order of their own)."""
    found: dict[AmqpQueue, list[Entry]] = {}
    for each in sorted(
        unacked, key=lambda one: (str(one.tag) if one.consumer is None else one.consumer.tag, one.tag)
    ):
        found.setdefault(each.queue, []).append(each.entry)
    return list(found.items())
