"""Where the messages of an address go (§5.4). Pure.

Rules
- Release is the broker's own requeue. A retry is a copy into a delay queue that dead-letters back to the source; a delay
  takes one of the policy's places or a rung of the ladder. A dead letter is a copy into `<queue>.dlq`.
- Delay queues return by themselves, so nothing is read besides the source: a policy may change while messages wait.
- `topology` names what must exist: the source, its dead-letter place and the policy's delay places.
"""

from __future__ import annotations

from unimq.address import Queue, Source, Subscription, Target, Topic
from unimq.driver import NATIVE, Facts, Place, Plan
from unimq.errors import Unsupported
from unimq.ladder import rung
from unimq.retry import Retry
from unimq.topology import Declaration

from . import names
from .capabilities import CAPABILITIES


def plan(source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
    if isinstance(source, Topic):
        return _topic(source)
    if isinstance(source, Subscription) and source.name is None and source.broker_name is None:
        return _private(source)
    return _group(source, policy, facts)


def _topic(topic: Topic) -> Plan:
    def never(delay_s: float) -> Place:
        raise Unsupported(f"{topic} is not received from: there is nothing to retry")

    return Plan(
        release=NATIVE,
        retry=never,
        dead_write=None,
        delay=lambda delay_s: names.delay_place(topic, rung(delay_s)),
        reply=names.REPLY_PLACE,
        topology=(Declaration(topic),),
        losses=(CAPABILITIES.losses["send_delay"],),
    )


def _private(subscription: Subscription) -> Plan:
    """A private subscription ends with its receiver: nothing of it can wait anywhere."""

    def never(delay_s: float) -> Place:
        raise Unsupported(
            f"{subscription} has no name: its queue ends with its receiver, so no copy can wait for it; "
            "retry immediately, or give it a name"
        )

    return Plan(
        release=NATIVE,
        retry=never,
        dead_write=None,
        reply=names.REPLY_PLACE,
        topology=(Declaration(subscription.topic),),
        losses=("a subscription without a name ends with its receiver: no delayed retry, no dead letters.",),
    )


def _group(source: Source, policy: Retry | None, facts: Facts) -> Plan:
    here = names.source_place(source)
    dead = names.dead_place(source)
    own = () if policy is None else tuple(policy.delayed_s)

    def retry(delay_s: float) -> Place:
        return here if delay_s <= 0 else names.retry_place(source, rung(delay_s, own))

    places = [] if policy is None else [dead.ref, *(names.retry_place(source, step).ref for step in own)]
    losses = [CAPABILITIES.losses[name] for name in ("settlement_confirmed", "retry_delay", "dead_letter")]
    if source.ordered:
        losses.append(CAPABILITIES.losses["order_per_key"])
    if facts.extra.get("queue_kinds", {}).get(here.text) == "classic":
        losses.append(CAPABILITIES.losses["crash_limit"])
    return Plan(
        release=NATIVE,
        retry=retry,
        dead_write=dead,
        dead_read=(dead,),
        replay=here,
        delay=(lambda delay_s: names.delay_place(source, rung(delay_s, own)))
        if isinstance(source, Queue)
        else None,
        reply=names.REPLY_PLACE,
        topology=(Declaration(source, places=tuple(places)),),
        losses=tuple(losses),
    )
