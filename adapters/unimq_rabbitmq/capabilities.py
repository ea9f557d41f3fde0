"""What RabbitMQ can do (§5.3), and what its emulations lose."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from unimq.capabilities import EMULATED, NATIVE, Capabilities
from unimq.ladder import LADDER_S

# What the broker ships with (`max_message_size`); it tells no client what was configured.
MAX_MESSAGE_BYTES: Final = 128 * 1024 * 1024
MAX_MESSAGE_BYTES_4: Final = 16 * 1024 * 1024
MAX_BATCH: Final = 256

CAPABILITIES: Final = Capabilities(
    confirmed_send=NATIVE,
    unroutable=NATIVE,
    settlement_confirmed=EMULATED,
    ack=NATIVE,
    release=NATIVE,
    retry_delay=EMULATED,
    dead_letter=EMULATED,
    crash_limit=NATIVE,
    send_delay=EMULATED,
    ttl=NATIVE,
    priority=NATIVE,
    order_per_key=NATIVE,
    filters=NATIVE,
    filters_verified=NATIVE,
    browse=EMULATED,
    request_reply=NATIVE,
    typed_headers=NATIVE,
    stats_depth=NATIVE,
    purge=NATIVE,
    max_message_bytes=MAX_MESSAGE_BYTES,
    max_batch=MAX_BATCH,
    max_delay_s=LADDER_S[-1],
    losses=MappingProxyType(
        {
            "settlement_confirmed": "an ack has no answer: a basic.qos round trip after it is the confirmation.",
            "retry_delay": "a delay takes the next longer delay queue: it rounds up.",
            "send_delay": "a delay takes the next longer delay queue: it rounds up, and cannot be cancelled.",
            "dead_letter": "a copy with the reason, then an ack: a crash between leaves a duplicate.",
            "browse": "messages are held while they are looked at, and a quorum queue counts it as a delivery.",
            "priority": "quorum queues take the field and do not order by it.",
            "crash_limit": "a classic queue does not count deliveries: there the count travels in a copy.",
            "order_per_key": "a single active consumer: the throughput of one process.",
        }
    ),
)


def found(product: str, version: tuple[int, ...]) -> Capabilities:
    """What this broker turned out to have."""
    limit = MAX_MESSAGE_BYTES_4 if product == "RabbitMQ" and version >= (4,) else MAX_MESSAGE_BYTES
    text = f"{product} {'.'.join(map(str, version))}".strip()
    return CAPABILITIES.narrowed(found=text, max_message_bytes=limit)
