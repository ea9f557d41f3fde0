"""Every limit of the data directory, by name and unit."""

from __future__ import annotations

from typing import Final

# A number in the file says queue and place: so many bits of it count the messages of one queue, the others the queues.
SEQ_BITS: Final = 40
QUEUE_NUMBER_MAX: Final = (1 << (63 - SEQ_BITS)) - 1

# Rows that have left since free pages were last looked at, how much of the file may be free, and how many pages are given
# back to the file system in one go.
LOOK_AFTER_ROWS: Final = 4096
FREE_MAX_BYTES: Final = 16 * 1024 * 1024
GIVE_BACK_PAGES: Final = 1024

# What the write-ahead log keeps of its size once it was written into the file.
LOG_KEPT_BYTES: Final = 8 * 1024 * 1024
