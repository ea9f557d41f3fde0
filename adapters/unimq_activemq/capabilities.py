"""What ActiveMQ over STOMP can do, as far as this slice carries it.

Absent here although the broker could: transactions, filters, request_reply, stats_depth, purge.
Priority is absent on Classic: as it is shipped it ignores it (seen), and over STOMP nobody can ask.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from unimq.capabilities import ABSENT, EMULATED, NATIVE, Capabilities

from .names import ARTEMIS

# Classic's STOMP transport refuses a body beyond this as shipped; Artemis has no such limit of its own.
MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
MAX_BATCH: Final = 256

MOST: Final = Capabilities(
    confirmed_send=NATIVE,
    settlement_confirmed=NATIVE,
    ack=NATIVE,
    release=EMULATED,
    retry_delay=EMULATED,
    dead_letter=EMULATED,
    crash_limit=EMULATED,
    send_delay=NATIVE,
    ttl=NATIVE,
    priority=NATIVE,
    order_per_key=NATIVE,
    dedup=NATIVE,
    browse=NATIVE,
    typed_headers=EMULATED,
    max_message_bytes=MAX_MESSAGE_BYTES,
    max_batch=MAX_BATCH,
    losses=MappingProxyType(
        {
            "release": "a copy at the end of the queue, then an ACK: order is lost, a crash between leaves both",
            "retry_delay": "a scheduled copy, then an ACK: a crash between leaves both; Classic rounds up to 0.5 s or so",
            "dead_letter": "a copy to the dead-letter queue, then an ACK: a crash between leaves both",
            "crash_limit": "STOMP says that a message comes again, not how often: the count travels in a copy",
            "browse": "Artemis: held while they are looked at, then given back in their old order",
            "dedup": "Artemis: by the last 20,000 ids of an address as shipped, not by time",
            "typed_headers": "STOMP carries strings; the types travel in unimq_types, foreign readers see strings",
        }
    ),
)


def found(flavour: str, version: str, max_message_bytes: int | None) -> Capabilities:
    """What this broker has."""
    caps = MOST.narrowed(
        found=f"ActiveMQ {flavour.capitalize()} {version}".strip(),
        max_message_bytes=max_message_bytes or MAX_MESSAGE_BYTES,
    )
    if flavour == ARTEMIS:
        return caps.narrowed(browse=EMULATED)  # its STOMP has no browser
    # priorities are carried, but a queue keeps to them only with `prioritizedMessages`, which is off as shipped
    return caps.narrowed(dedup=ABSENT, priority=ABSENT)


def without_scheduler(caps: Capabilities) -> Capabilities:
    return caps.narrowed(send_delay=ABSENT, retry_delay=ABSENT)


CLOSE_S: Final = 5.0  # for leaving a subscription that was opened only to exist
