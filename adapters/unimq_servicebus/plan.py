"""Where the messages of one source go. Pure, no connection. (brokers.md §5.1, §5.3, §5.4)

Rules
- Release and dead letter are the broker's own. A delayed retry is a scheduled copy: of a queue back to the queue, of a
  subscription to its private retry queue, so that the topic's other subscriptions do not see it.
- Dead letters lie where the delivery lay: a subscription has two heads, its own and its retry queue's.
- A scheduled message takes any delay, so there is one retry place and no ladder.
"""

from __future__ import annotations

from typing import Final

from unimq.address import Queue, Source, Subscription, Target
from unimq.driver import NATIVE, Facts, Place, Plan
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq.topology import Declaration

from . import names

COPY_LOSS: Final = (
    "a delayed retry is a scheduled copy: a crash before its source is completed gives a duplicate"
)
HEADERS_LOSS: Final = "a dead letter keeps our headers in the last line of its description: a long history or error is cut there"


def plan(source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
    if isinstance(source, Queue):
        return _queue(source)
    if isinstance(source, Subscription):
        return _subscription(source, facts)
    return Plan(release=NATIVE, retry=_no_retry, dead_write=None, topology=(Declaration(source),))


def _no_retry(delay_s: float) -> Place:
    raise Unsupported("a topic is sent to; retries belong to its subscriptions", adapter="servicebus")


def _queue(source: Queue) -> Plan:
    entity = names.queue_entity(source)
    home = names.place(entity)
    return Plan(
        release=NATIVE,
        retry=lambda delay_s: home,
        dead_write=NATIVE,
        dead_read=(names.place(names.dead_of(entity)),),
        replay=home,
        topology=(Declaration(source),),
        losses=(COPY_LOSS, HEADERS_LOSS),
    )


def _subscription(source: Subscription, facts: Facts) -> Plan:
    entity = names.subscription_entity(source)
    sessions = source.ordered or bool(facts.extra.get("requires_session"))
    retry = names.retry_entity(source, sessions=sessions)
    home = names.place(retry)
    return Plan(
        release=NATIVE,
        retry=lambda delay_s: home,
        dead_write=NATIVE,
        dead_read=(names.place(names.dead_of(entity)), names.place(names.dead_of(retry))),
        replay=home,
        also_read=(home,),
        topology=(Declaration(source, places=(home,)),),
        losses=(COPY_LOSS, HEADERS_LOSS),
    )
