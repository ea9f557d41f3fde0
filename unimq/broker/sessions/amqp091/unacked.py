"""What was delivered and is not settled: one record per delivery tag of a channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from unimq.broker.engine import Entry
from unimq.broker.engine.amqpqueue import AmqpQueue

if TYPE_CHECKING:
    from .consumer import Consumer


class Unacked(msgspec.Struct, eq=False):
    tag: int
    queue: AmqpQueue
    entry: Entry
    consumer: Consumer | None  # None: basic.get


def by_queue(unacked: Iterable[Unacked]) -> list[tuple[AmqpQueue, list[Entry]]]:
    """Queues in the order in which they first appear; the order of entries stays."""
    found: dict[AmqpQueue, list[Entry]] = {}
    for each in unacked:
        found.setdefault(each.queue, []).append(each.entry)
    return list(found.items())
