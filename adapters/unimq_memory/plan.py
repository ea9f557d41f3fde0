"""Where the messages of an address go (§5.4). Pure.

Rules
- Release is the engine's own. A retry is a copy with any delay into the group's own queue; nothing is read besides it.
- A dead letter is a copy into `<queue>.dlq`, where the engine's own dead (expired, too many deliveries) go too.
- A private subscription ends with its receiver: what would have to wait for it is refused.
"""

from __future__ import annotations

from unimq.address import Source, Subscription, Target, Topic
from unimq.driver import NATIVE, Facts, Place, Plan
from unimq.errors import Unsupported
from unimq.retry import Retry
from unimq.topology import Declaration

from . import names
from .capabilities import CAPABILITIES


def make_plan(source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
    if isinstance(source, Topic):
        return _unheld(source, f"{source} is not received from: there is nothing to retry")
    if names.is_private(source):
        assert isinstance(source, Subscription)
        return _unheld(
            source.topic,
            f"{source} has no name: its queue ends with its receiver, so no copy can wait for it; retry immediately, "
            "or give it a name",
            "a subscription without a name ends with its receiver: no delayed retry, no dead letters.",
        )
    here, dead = names.source_place(source), names.dead_place(source)
    losses = [CAPABILITIES.losses["retry_delay"], CAPABILITIES.losses["dead_letter"]]
    if source.ordered:
        losses.append(CAPABILITIES.losses["order_per_key"])
    return Plan(
        release=NATIVE,
        retry=lambda delay_s: here,
        dead_write=dead,
        dead_read=(dead,),
        replay=here,
        topology=(Declaration(source, places=(dead.ref,)),),
        losses=tuple(losses),
    )


def _unheld(topic: Topic, why: str, *losses: str) -> Plan:
    def never(delay_s: float) -> Place:
        raise Unsupported(why)

    return Plan(release=NATIVE, retry=never, dead_write=None, topology=(Declaration(topic),), losses=losses)
