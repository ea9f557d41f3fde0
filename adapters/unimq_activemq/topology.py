"""declare: both brokers create by themselves, at first use, so nothing is done; options they could not be told are refused.

The report names no place: over STOMP nobody can ask what exists. Subscriptions are the exception: a group gets only what
is sent after its queue exists, so declaring one subscribes to it and leaves again.
"""

from __future__ import annotations

from collections.abc import Sequence

from unimq.address import Subscription
from unimq.errors import Unsupported
from unimq.topology import Declaration

from .errors import ADAPTER

_OPTIONS = ("partitions", "ttl_s", "max_length", "max_priority", "lock_s")


def check(topology: Sequence[Declaration], *, dedup: bool) -> None:
    """`Unsupported`, by name, for what STOMP cannot ask of the broker. Artemis looks for duplicates everywhere, so a
    window is there already (how far it reaches: `losses["dedup"]`)."""
    for declaration in topology:
        asked = [name for name in _OPTIONS if getattr(declaration, name) is not None]
        if declaration.dedup_window_s is not None and not dedup:
            asked.append("dedup_window_s")
        asked += [f"native {name}" for name in declaration.native]
        if declaration.replace_filters:
            asked.append("replace_filters")
        if asked:
            raise Unsupported(
                f"declare({declaration.address}): {', '.join(asked)} cannot be set over STOMP; "
                "set it in the broker's configuration",
                adapter=ADAPTER,
            )
        check_source(declaration.address)


def check_source(address: object) -> None:
    if not isinstance(address, Subscription):
        return
    if address.subjects or address.where:
        raise Unsupported(f"{address}: filters are not carried by this adapter yet", adapter=ADAPTER)
    if address.start == "earliest":
        raise Unsupported(f'{address}: start="earliest" needs a log, which ActiveMQ is not', adapter=ADAPTER)


def groups(topology: Sequence[Declaration]) -> list[Subscription]:
    """The subscriptions whose queue has to exist before anything is sent."""
    return [
        declaration.address
        for declaration in topology
        if isinstance(declaration.address, Subscription) and declaration.address.name is not None
    ]
