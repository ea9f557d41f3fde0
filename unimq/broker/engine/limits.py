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

# Sessions with a state or a holder, and the size of one state.
MAX_SESSIONS_PER_QUEUE: Final = 100_000
MAX_SESSION_STATE_BYTES: Final = 256 * 1024

# Subjects whose subscribers a topic remembers; then the memory starts afresh.
ROUTE_CACHE_SUBJECTS: Final = 10_000

# How long a dead letter that its place refused waits for the next try.
DEAD_RETRY_S: Final = 1.0

# Dead records that a heap or lane may carry before it is swept; above it, as many as live ones.
SWEEP_MIN_RECORDS: Final = 64


class EngineLimit(Exception):
    """A limit on names, topics or subscriptions is reached. Messages are refused by `Refusal` instead."""
