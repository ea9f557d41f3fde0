"""Where the messages of a Kafka source go. Pure.

Rules
- Delayed retries are copies in `<t>.<g>.retry.<ms>`, read by the group's own receivers; the dead lie in `<t>.<g>.dlq`.
- A release stays with its receiver: Kafka has no way to give one message back. The driver hands it out again as a new
  delivery (NATIVE: to the core it is the driver's doing), so that verbs on the old one are refused. Where order counts it is
  IN_HAND, which the core refuses there.
- A private subscription (no name) has no group, so no places: what would need one is Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable

from unimq import ladder
from unimq.address import Queue, Source, Subscription, Target, Topic
from unimq.driver import IN_HAND, NATIVE, Facts, Place, Plan
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq.topology import Declaration

from . import names
from .capabilities import LOSSES

GROUP_FACT = "group"  # `Facts.extra[GROUP_FACT]`: `?group=` of the URL


def make_plan(source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
    if isinstance(source, Topic):
        return Plan(release=NATIVE, retry=_no_retry(source), dead_write=None, topology=(Declaration(source),))
    if not isinstance(source, Queue | Subscription):
        raise Unsupported(f"{source!r} is not an address that Kafka has")
    release = IN_HAND if source.ordered else NATIVE
    group: str | None = facts.extra.get(GROUP_FACT)
    dead = names.dead_place(source, group)
    if dead is None:
        return Plan(
            release=release, retry=_no_retry(source), dead_write=None, topology=(Declaration(source),)
        )
    own_s = () if policy is None or source.ordered else tuple(policy.delayed_s)
    retries = [names.retry_place(source, delay_s, group) for delay_s in sorted(set(own_s))]

    def retry(delay_s: float) -> Place:
        return names.retry_place(source, ladder.rung(delay_s, own_s), group)

    return Plan(
        release=release,
        retry=_no_policy if policy is None else retry,
        dead_write=None if policy is None else dead,
        dead_read=(dead,),
        # a topic has other groups: a replayed message must come back to this one alone
        replay=Place(source, str(source)) if isinstance(source, Queue) and group is None else retry(0.0),
        also_read=retries,
        topology=(Declaration(source, places=(*retries, *(() if policy is None else (dead,)))),),
        losses=tuple(
            f"{name}: {LOSSES[name]}" for name in ("release", "retry_delay", "dead_letter", "crash_limit")
        ),
    )


def _no_policy(delay_s: float) -> Place:
    raise Unsupported("a delayed retry needs a policy: this receiver was opened with retry=None")


def _no_retry(source: Source | Target) -> Callable[[float], Place]:
    def retry(delay_s: float) -> Place:
        raise Unsupported(
            f"{source} has no group, so there is no place where a delayed copy could wait for it"
        )

    return retry
