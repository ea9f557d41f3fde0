"""Every limit of the server, by name and unit."""

from __future__ import annotations

from typing import Final

# What is read at once from one connection before the others have their turn.
READ_MAX_BYTES: Final = 256 * 1024
# What one connection may have waiting to be written: above it nothing more is delivered to it and nothing more is read
# from it, until the peer has read down to the lower mark.
OUTPUT_HIGH_BYTES: Final = 1024 * 1024
OUTPUT_LOW_BYTES: Final = 256 * 1024
# A peer that reads nothing while this much waits is cut: answers cannot be held back like deliveries.
OUTPUT_MAX_BYTES: Final = 256 * 1024 * 1024

CONNECTIONS_MAX: Final = 10_000
BACKLOG: Final = 1024

# Real time: how long a question of another thread to the broker's may take, and its end.
CALL_MAX_S: Final = 30.0
CLOSE_MAX_S: Final = 5.0
START_MAX_S: Final = 10.0
START_WITH_DATA_MAX_S: Final = 120.0  # what lies there is read first
# The longest sleep for what is due by the broker's clock.
TIMER_WAIT_MAX_S: Final = 3600.0
