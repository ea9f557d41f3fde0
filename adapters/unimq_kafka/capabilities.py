"""What Kafka has of §5.3, as far as this slice goes."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from unimq.capabilities import EMULATED, NATIVE, Capabilities
from unimq.ladder import LADDER_S

# librdkafka's own default for `message.max.bytes`: under the broker's shipped 1,048,588 by the room headers need.
DEFAULT_MAX_MESSAGE_BYTES: Final = 1_000_000
MAX_BATCH: Final = 500

LOSSES: Final = MappingProxyType(
    {
        "release": "the message stays with this receiver; another member gets it only when this one closes",
        "retry_delay": "the copy lies in another topic: it comes after what followed it, and a wish between two places "
        "takes the longer one",
        "dead_letter": "a copy with its reason, then the ack; a crash between leaves a duplicate",
        "crash_limit": "a worker reads how its predecessor ended from the metadata of the committed offset; after a bad end the "
        "next messages run one at a time, each of them written down first",
        "filters": "the client reads everything and acknowledges what does not match",
        "typed_headers": "types travel in the header unimq-types; foreign consumers see text",
        "purge": "moves the group to the end, which needs all its receivers closed; other groups still see the messages",
    }
)

CAPABILITIES: Final = Capabilities(
    confirmed_send=NATIVE,
    unroutable=NATIVE,
    settlement_confirmed=NATIVE,
    ack=NATIVE,
    release=EMULATED,
    retry_delay=EMULATED,
    dead_letter=EMULATED,
    crash_limit=EMULATED,
    order_per_key=NATIVE,
    filters=EMULATED,
    browse=NATIVE,
    typed_headers=EMULATED,
    stats_depth=NATIVE,
    stats_lag=NATIVE,
    purge=EMULATED,
    log=NATIVE,
    max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
    max_batch=MAX_BATCH,
    max_delay_s=LADDER_S[-1],
    losses=LOSSES,
    found="Kafka",
)
