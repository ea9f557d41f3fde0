"""What Service Bus can do through this adapter as it is today: brokers.md §5.3, less what is not built yet.

Rules
- `filters`, `filters_verified` and `request_reply` are in the contract's column and are ABSENT until they are built.
- `max_message_bytes` is not known before a link is open (it goes by tier); the broker's refusal is `MessageTooLarge`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from unimq.capabilities import ABSENT, EMULATED, NATIVE, Capabilities

MAX_BATCH: Final = 256  # items in one `submit`; a wire batch is cut by bytes and by key besides

CAPABILITIES: Final = Capabilities(
    confirmed_send=NATIVE,
    unroutable=NATIVE,  # an unknown entity; a topic without subscriptions takes everything
    settlement_confirmed=NATIVE,
    ack=NATIVE,
    release=NATIVE,
    retry_delay=EMULATED,
    dead_letter=NATIVE,
    crash_limit=NATIVE,
    send_delay=NATIVE,
    ttl=NATIVE,
    priority=ABSENT,
    order_per_key=NATIVE,
    sessions=NATIVE,
    defer=NATIVE,
    lock_renewal=NATIVE,
    transactions=ABSENT,
    dedup=NATIVE,
    filters=ABSENT,
    filters_verified=ABSENT,
    browse=NATIVE,
    seek=ABSENT,
    request_reply=ABSENT,
    typed_headers=NATIVE,
    stats_depth=NATIVE,
    stats_lag=ABSENT,
    purge=EMULATED,
    log=ABSENT,
    max_batch=MAX_BATCH,
    losses=MappingProxyType(
        {
            "retry_delay": "a scheduled copy, then the source is completed: a crash between the two gives a duplicate",
            "purge": "received and deleted one batch after another: what is sent meanwhile may go too",
            "dedup": "only where the queue or topic was declared with a window",
        }
    ),
    found="Azure Service Bus",
)
