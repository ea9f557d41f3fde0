"""Every limit of this codec, by name and unit."""

from __future__ import annotations

from typing import Final

FRAME_OVERHEAD_BYTES: Final = 8  # type, channel, length, end mark
FRAME_MIN_BYTES: Final = 4096  # what both sides must take before anything is agreed
FRAME_MAX_BYTES: Final = 131_072  # what RabbitMQ proposes

# RabbitMQ 3.10's max_message_size. A larger one is refused when its header arrives, before its body.
MESSAGE_MAX_BYTES: Final = 134_217_728
# Contents under way on all channels of one connection.
ASSEMBLING_MAX_BYTES: Final = 2 * MESSAGE_MAX_BYTES

# Tables within tables and arrays: deeper ones are malformed, so that no input exhausts the stack.
TABLE_DEPTH_MAX: Final = 64

SHORTSTR_MAX_BYTES: Final = 255

# Routings (exchange and key as they came) a decoder remembers as text; then the memory starts afresh.
ROUTING_CACHE_MAX: Final = 1024
# Longer ones are not remembered.
ROUTING_CACHED_MAX_BYTES: Final = 128
