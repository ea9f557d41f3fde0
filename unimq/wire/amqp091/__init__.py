"""AMQP 0-9-1 with RabbitMQ's extensions.

Rooms: `spec` the table of methods, `methods` compiled from it, `table` field tables, `properties` content headers kept as raw
bytes, `decoder` the incremental reader, `encode` whole frames with fast ones for deliver, ack and return, `errors`, `limits`.
"""

from .decoder import Decoder
from .encode import content_frames, deliver_frames, method_frame
from .errors import WireError
from .properties import Properties

__all__ = ["Decoder", "Properties", "WireError", "content_frames", "deliver_frames", "method_frame"]
