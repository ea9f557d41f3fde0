"""Every limit of the engine, by name and unit."""

from __future__ import annotations

from typing import Final

# What one engine holds in all: bodies, headers and the records around them.
ENGINE_MAX_BYTES: Final = 512 * 1024 * 1024

# Charged per message beside body and headers, so that empty messages are bounded too.
MESSAGE_OVERHEAD_BYTES: Final = 512
HEADER_OVERHEAD_BYTES: Final = 64
DEDUP_ID_OVERHEAD_BYTES: Final = 160

MAX_PRIORITY: Final = 255
MAX_NAME_CHARS: Final = 1_024
MAX_QUEUES: Final = 100_000
MAX_TOPICS: Final = 100_000
MAX_SUBSCRIPTIONS_PER_TOPIC: Final = 10_000
MAX_PATTERNS_PER_FILTER: Final = 1_000

# Distinct (queue, reason) pairs that a message remembers of its deaths; the oldest are forgotten. As many without a
# rejection among them count as a cycle.
MAX_DEATHS: Final = 64

# Charged per AMQP message beside its properties: exchange, routing keys and the records that hold them.
PUBLICATION_OVERHEAD_BYTES: Final = 256

# Ten years: the longest time to live or expiry that RabbitMQ takes (rabbit_misc:check_expiry).
EXPIRY_MAX_MS: Final = 315_360_000_000

MAX_EXCHANGES: Final = 100_000
MAX_BINDINGS: Final = 1_000_000

# Entries handed to one consumer of several before the next has its turn; a single consumer gets this many in one go.
BATCH_ENTRIES: Final = 64

# Sessions with a state or a holder, and the size of one state.
MAX_SESSIONS_PER_QUEUE: Final = 100_000
MAX_SESSION_STATE_BYTES: Final = 256 * 1024

# Subjects whose subscribers a topic remembers; then the memory starts afresh.
ROUTE_CACHE_SUBJECTS: Final = 10_000

# How long a dead letter that its place refused waits for the next try.
DEAD_RETRY_S: Final = 1.0
# How often a message may die of the same thing in the same queue, unless it is rejected; then it is in a cycle.
CYCLE_ROUNDS_MAX: Final = 1_000
# The time to the next try of a quorum queue that dead-letters at least once (rabbit_fifo_dlx_worker's settle_timeout).
AT_LEAST_ONCE_RETRY_S: Final = 180.0

# Part of its bound down to which a queue with "reject-late" must sink before it takes messages again
# (rabbit_fifo:is_below).
SOFT_BOUND: Final = 0.8

# Dead records that a heap or lane may carry before it is swept; above it, as many as live ones.
SWEEP_MIN_RECORDS: Final = 64


class EngineLimit(Exception):
    """A limit on names, topics or subscriptions is reached. Messages are refused by `Refusal` instead."""
