"""Bugs to put into the reference broker: each must be found by the programs, or the programs prove little.

    python -m integration.differential --every-bug --seeds 1..200

Rules
- A bug is a patch of one place of the broker, undone afterwards. Nothing in the broker knows of it.
- Each is a mistake somebody could make, and one that a glance at a few messages would not show.
- `--every-bug` says which seed finds each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from unittest import mock


def requeue_to_the_back() -> Any:
    """A message that is given back stands behind the others, not where it stood."""
    from unimq.broker.engine.amqpqueue import AmqpQueue

    def requeue(self: AmqpQueue, entries: Any) -> None:
        self.core.release(entries, position="back")

    return mock.patch.object(AmqpQueue, "requeue", requeue)


def death_not_counted() -> Any:
    """A second death in the same queue for the same reason does not count up."""
    from unimq.broker.engine import xdeath

    return mock.patch.object(xdeath, "_counted_up", lambda death: dict(death))


def topic_hash_needs_a_word() -> Any:
    """`#` wants at least one word."""
    from unimq.broker.engine.matcher import Pattern

    matches = Pattern.matches

    def wrong(self: Pattern, subject: str) -> bool:
        return matches(self, subject) and not (self.text == "#" and not subject)

    return mock.patch.object(Pattern, "matches", wrong)


def one_copy_too_many() -> Any:
    """A queue that is bound through two ways gets a copy for each."""
    from unimq.broker.engine.routing import Exchanges

    def route(self: Any, exchange: str, keys: Any, properties: Any) -> list[str]:
        found: list[str] = []
        work, seen = [exchange], {exchange}
        while work:
            at = self.exchanges.get(work.pop())
            if at is None:
                continue
            there = list(at.destinations(tuple(keys), properties.headers))
            if not there and at.alternate is not None:
                there = [("exchange", at.alternate)]
            for kind, name in there:
                if kind == "queue":
                    found.append(name)
                elif name not in seen:
                    seen.add(name)
                    work.append(name)
        return sorted(found)

    return mock.patch.object(Exchanges, "route", route)


def redelivered_forgotten() -> Any:
    """What comes back when its reader has vanished is not marked as redelivered."""
    from unimq.broker.engine.amqpqueue import AmqpQueue

    abandon = AmqpQueue.abandon

    def wrong(self: AmqpQueue, entries: Any) -> None:
        abandon(self, entries)
        for entry in self.core.browse(100_000):
            entry.redelivered = False

    return mock.patch.object(AmqpQueue, "abandon", wrong)


def rejected_is_a_cycle() -> Any:
    """A rejected message may not come back to a queue where it has been."""
    from unimq.broker.engine import undertaker

    def wrong(headers: Mapping[str, Any], _reason: str, queue: str) -> bool:
        return any(death.get("queue") == queue for death in headers.get("x-death") or ())

    return mock.patch.object(undertaker, "cycles", wrong)


def rollback_keeps_the_publishes() -> Any:
    """A rollback forgets the acknowledgements only."""
    from unimq.broker.sessions.amqp091 import channel, transactions
    from unimq.broker.sessions.amqp091.publishing import send

    def wrong(ch: Any) -> None:
        for ready, mandatory in ch.tx.publishes:
            send(ch, ready, mandatory)
        transactions.rollback(ch)

    return mock.patch.dict(channel.METHODS, {"tx.rollback": wrong})


def prefetch_plus_one() -> Any:
    """A consumer is given one message more than its prefetch."""
    from unimq.broker.sessions.amqp091 import consuming
    from unimq.broker.sessions.amqp091.consumer import Consumer

    class Greedy(Consumer):
        def __init__(self, *args: Any, prefetch: int, **options: Any) -> None:
            super().__init__(*args, prefetch=prefetch and prefetch + 1, **options)

    return mock.patch.object(consuming, "Consumer", Greedy)


def last_to_come_is_active() -> Any:
    """When the single active consumer goes, who came last follows, not who came first."""
    from unimq.broker.engine.consumers import Consumers

    return mock.patch.object(Consumers, "_first", lambda self: next(reversed(self._priorities), None))


def alternate_gets_all() -> Any:
    """An alternate exchange gets what is routed, too, not only what is not."""
    from unimq.broker.engine.exchange import Exchange

    destinations = Exchange.destinations

    def wrong(self: Exchange, keys: Any, headers: Any) -> Iterator[Any]:
        yield from destinations(self, keys, headers)
        if self.alternate is not None:
            yield "exchange", self.alternate

    return mock.patch.object(Exchange, "destinations", wrong)


BUGS: Final[Mapping[str, Callable[[], Any]]] = {
    "requeue-to-the-back": requeue_to_the_back,
    "death-not-counted": death_not_counted,
    "topic-hash-needs-a-word": topic_hash_needs_a_word,
    "one-copy-too-many": one_copy_too_many,
    "redelivered-forgotten": redelivered_forgotten,
    "rejected-is-a-cycle": rejected_is_a_cycle,
    "rollback-keeps-the-publishes": rollback_keeps_the_publishes,
    "prefetch-plus-one": prefetch_plus_one,
    "last-to-come-is-active": last_to_come_is_active,
    "alternate-gets-all": alternate_gets_all,
}


@contextlib.contextmanager
def seeded(name: str) -> Iterator[None]:
    with BUGS[name]():
        yield
