"""Where the messages of a source go. Pure.

Rules
- Release is a copy to the end of the own queue, then an ACK; never a NACK: Classic dead-letters it, Artemis deletes it.
- A retry is a scheduled copy back to the group's own queue: the place takes any delay (`Copy.delay_s`), so nothing
  waits elsewhere and `also_read` is empty. Without a scheduler a delay above 0 is `Unsupported`.
- The dead go to `<queue>.dlq`; what the broker itself dead-lettered is read from its own places too.
"""

from __future__ import annotations

from unimq.address import Source, Target
from unimq.driver import IN_HAND, Facts, Place, Plan
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq.topology import Declaration

from . import names

ADAPTER = "activemq"

_LOSSES = (
    "release, retry and dead letter are a copy, then an ACK: a crash between leaves both",
    "a released message goes to the end of its queue",
)


def place(ref: names.Ref, flavour: str) -> Place:
    return Place(ref, names.native(ref, flavour).queue)


def plan(source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
    flavour = facts.flavour or names.CLASSIC
    ref = names.ref_of(source)
    dead = names.dead_ref(ref, flavour)
    if dead is None:  # a topic, or a private subscription: it has no queue a copy could go back to

        def nowhere(delay_s: float) -> Place:
            raise Unsupported(f"{source} has no queue of its own to put a retry into", adapter=ADAPTER)

        return Plan(release=IN_HAND, retry=nowhere, dead_write=None, topology=(Declaration(source),))

    own = place(ref, flavour)

    def retry(delay_s: float) -> Place:
        if delay_s > 0 and facts.scheduler is False:
            raise Unsupported(
                f"a retry after {delay_s:g} s needs the broker's scheduler (schedulerSupport), which is off",
                adapter=ADAPTER,
            )
        return own

    dead_write = place(dead, flavour)
    return Plan(
        release=own,
        retry=retry,
        dead_write=dead_write,
        dead_read=(dead_write, *(place(other, flavour) for other in names.brokers_dead(ref, flavour))),
        replay=own,
        topology=(Declaration(source, places=(dead,)),),
        losses=_LOSSES,
    )
