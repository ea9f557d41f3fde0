"""What the memory broker can do (§5.3), and what its emulations lose."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from unimq.capabilities import EMULATED, NATIVE, Capabilities

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
MAX_BATCH: Final = 500

CAPABILITIES: Final = Capabilities(
    confirmed_send=NATIVE,
    unroutable=NATIVE,
    settlement_confirmed=NATIVE,
    ack=NATIVE,
    release=NATIVE,
    retry_delay=EMULATED,
    dead_letter=EMULATED,
    crash_limit=NATIVE,
    send_delay=NATIVE,
    ttl=NATIVE,
    priority=NATIVE,
    order_per_key=NATIVE,
    dedup=NATIVE,
    filters=NATIVE,
    filters_verified=NATIVE,
    browse=NATIVE,
    typed_headers=NATIVE,
    stats_depth=NATIVE,
    purge=NATIVE,
    max_message_bytes=MAX_MESSAGE_BYTES,
    max_batch=MAX_BATCH,
    losses=MappingProxyType(
        {
            "retry_delay": "a delayed copy into the same queue, then an ack: the copy stands behind what came meanwhile.",
            "dead_letter": "a copy with the reason, then an ack: a link lost between leaves a duplicate.",
            "order_per_key": "one receiver at a time: the throughput of one, the others wait until it is gone.",
        }
    ),
    found="memory",
)
