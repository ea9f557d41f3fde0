"""Every limit of an AMQP 0-9-1 session, by name and unit. Where RabbitMQ has one, it is RabbitMQ's."""

from __future__ import annotations

from typing import Final

CHANNEL_MAX: Final = 2047
HEARTBEAT_S: Final = 60  # what is proposed
HANDSHAKE_MAX_S: Final = 10.0
CLOSING_MAX_S: Final = 30.0  # for close-ok after our close
CONSUMERS_PER_CONNECTION_MAX: Final = 100_000
# Messages that one channel may have published in a transaction that is not committed; beyond it 506.
TX_PUBLISHES_MAX: Final = 100_000
TX_BYTES_MAX: Final = 256 * 1024 * 1024
# What one turn may put into the output before it is written; then the session waits for its next turn.
PENDING_MAX_BYTES: Final = 1024 * 1024
# Replies (direct reply-to) waiting for one peer in one turn; beyond it they are lost, as with a peer that does not read.
REPLIES_MAX_BYTES: Final = 64 * 1024 * 1024
# Deliveries to one consumer before the line is looked at again: is the peer still reading?
DELIVER_BATCH: Final = 64
# Messages out without an acknowledgement on one channel without a prefetch; beyond it nothing is delivered on it.
UNACKED_MAX: Final = 1_000_000

# Part of --max-bytes at which publishers are stopped, and at which they go on.
ALARM_AT: Final = 0.9
ALARM_OFF_AT: Final = 0.8
