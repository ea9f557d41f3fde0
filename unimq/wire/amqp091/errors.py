"""The codes of AMQP 0-9-1 and the one error of this codec.

Rules
- A code below says by itself whether the connection ends (hard) or only the channel (soft); `scope` repeats it.
- The text is what goes into connection.close or channel.close, with the code's name before it as RabbitMQ writes it.
"""

from __future__ import annotations

from typing import Final, Literal

Scope = Literal["channel", "connection"]

# AMQP 0-9-1 specification, section 1.3; names as RabbitMQ writes them.
CODES: Final[dict[int, tuple[str, Scope]]] = {
    311: ("CONTENT_TOO_LARGE", "channel"),
    312: ("NO_ROUTE", "channel"),
    313: ("NO_CONSUMERS", "channel"),
    320: ("CONNECTION_FORCED", "connection"),
    402: ("INVALID_PATH", "connection"),
    403: ("ACCESS_REFUSED", "channel"),
    404: ("NOT_FOUND", "channel"),
    405: ("RESOURCE_LOCKED", "channel"),
    406: ("PRECONDITION_FAILED", "channel"),
    501: ("FRAME_ERROR", "connection"),
    502: ("SYNTAX_ERROR", "connection"),
    503: ("COMMAND_INVALID", "connection"),
    504: ("CHANNEL_ERROR", "connection"),
    505: ("UNEXPECTED_FRAME", "connection"),
    506: ("RESOURCE_ERROR", "connection"),
    530: ("NOT_ALLOWED", "connection"),
    540: ("NOT_IMPLEMENTED", "connection"),
    541: ("INTERNAL_ERROR", "connection"),
}


REPLY_TEXT_MAX_BYTES: Final = 255
_PRINTABLE: Final = frozenset(range(32, 127))


def reply_text(code: int, text: str) -> str:
    """The code's name before it, cut to what a short string holds, as RabbitMQ cuts it."""
    name = CODES[code][0]
    raw = (f"{name} - {text}" if text else name).encode("utf-8", "surrogateescape")
    if len(raw) > REPLY_TEXT_MAX_BYTES:
        raw = raw[: REPLY_TEXT_MAX_BYTES - 3] + b"..."
    return raw.decode("utf-8", "surrogateescape")


def octets(raw: bytes) -> str:
    """As Erlang prints a binary."""
    if raw and _PRINTABLE.issuperset(raw):
        return f'<<"{raw.decode("ascii")}">>'
    return f"<<{','.join(map(str, raw))}>>"


class WireError(Exception):
    """Input that the protocol forbids."""

    def __init__(
        self, code: int, text: str, *, channel: int = 0, class_id: int = 0, method_id: int = 0
    ) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.channel = channel
        self.class_id = class_id
        self.method_id = method_id

    @property
    def scope(self) -> Scope:
        return CODES[self.code][1]
