"""Numbers, emptying and deleting. Blocking calls on the caller's thread; each opens and closes what it uses.

Rules
- None is unknown, never 0: the broker does not tell how many messages are locked apart from those that wait.
- Emptying is receiving and deleting until nothing comes: what is sent meanwhile may go too (capability `purge` emulated).
"""

from __future__ import annotations

from typing import Any, Final

from unimq.errors import Unsupported
from unimq.stats import Stats

from .names import Entity

PURGE_BATCH_MAX: Final = 200
PURGE_WAIT_S: Final = 1.0


def stats(admin: Any, entity: Entity) -> Stats:
    if entity.kind == "topic":
        return Stats(delayed=admin.get_topic_runtime_properties(entity.name).scheduled_message_count)
    if entity.kind == "queue":
        found = admin.get_queue_runtime_properties(entity.name)
    else:
        found = admin.get_subscription_runtime_properties(entity.name, entity.subscription)
    if entity.dead:
        return Stats(depth=found.dead_letter_message_count)
    return Stats(
        depth=found.active_message_count,
        delayed=getattr(found, "scheduled_message_count", None),  # a subscription has none: its topic does
        dead=found.dead_letter_message_count,
    )


def purge(receiver: Any) -> int:
    """`receiver`: a library receiver that receives and deletes, not opened."""
    count = 0
    with receiver:
        while messages := receiver.receive_messages(
            max_message_count=PURGE_BATCH_MAX, max_wait_time=PURGE_WAIT_S
        ):
            count += len(messages)
    return count


def delete(admin: Any, entity: Entity) -> None:
    if entity.dead:
        raise Unsupported(
            "dead letters cannot be deleted apart from their place: purge them", adapter="servicebus"
        )
    if entity.kind == "queue":
        admin.delete_queue(entity.name)
    elif entity.kind == "topic":
        admin.delete_topic(entity.name)
    else:
        admin.delete_subscription(entity.name, entity.subscription)
