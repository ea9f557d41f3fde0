"""Where RabbitMQ 3 and 4 part.

Rules
- A dialect is a value handed to the virtual host; nothing asks for a version number anywhere else.
- 3 is 3.10.8, which the differential programs run against. 4 holds what RabbitMQ's release notes of 4.0 say; it is not
  compared with a real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Dialect:
    name: str
    # A quorum queue without x-delivery-limit: how many times a message may come back before it is dead-lettered.
    default_delivery_limit: int | None = None
    # x-death in a message from a client counts as history.
    believes_x_death: bool = True
    # Queues that are neither durable nor exclusive.
    transient_queues: bool = True
    # basic.qos with global=true; the session asks.
    global_prefetch: bool = True


DIALECT_3: Final = Dialect("3")
DIALECT_4: Final = Dialect(
    "4", default_delivery_limit=20, believes_x_death=False, transient_queues=False, global_prefetch=False
)
DIALECTS: Final = {dialect.name: dialect for dialect in (DIALECT_3, DIALECT_4)}
