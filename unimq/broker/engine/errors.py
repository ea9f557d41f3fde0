"""What a virtual host refuses, in RabbitMQ's codes and words.

Rules
- `scope` follows from the code (AMQP 0-9-1 section 1.3): a channel error leaves the connection and its other channels alone.
- `text` is what RabbitMQ writes behind the code's name; `reply_text` is the whole, as it goes into a close.
- `class_id` and `method_id` are the method's that failed. The virtual host leaves 0: the session knows which it was.
- Texts are those of RabbitMQ 3.10.8 (its rabbit_misc, rabbit_amqqueue, rabbit_channel), word for word.
"""

from __future__ import annotations

from typing import Final

from unimq.wire.amqp091.errors import CODES, Scope
from unimq.wire.amqp091.table import type_name

ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406
COMMAND_INVALID: Final = 503
NOT_ALLOWED: Final = 530
NOT_IMPLEMENTED: Final = 540


class AmqpError(Exception):
    def __init__(
        self, code: int, text: str, scope: Scope | None = None, class_id: int = 0, method_id: int = 0
    ) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.scope: Scope = scope or CODES[code][1]
        self.class_id = class_id
        self.method_id = method_id

    @property
    def reply_text(self) -> str:
        return f"{CODES[self.code][0]} - {self.text}"


def resource(kind: str, name: str, vhost: str) -> str:
    """How RabbitMQ names a thing: queue 'q' in vhost '/'."""
    return f"{kind} '{name}' in vhost '{vhost}'"


def refused(text: str) -> AmqpError:
    return AmqpError(ACCESS_REFUSED, text)


def failed(text: str) -> AmqpError:
    return AmqpError(PRECONDITION_FAILED, text)


def missing(what: str) -> AmqpError:
    return AmqpError(NOT_FOUND, f"no {what}")


def locked(what: str) -> AmqpError:
    return AmqpError(
        RESOURCE_LOCKED,
        f"cannot obtain exclusive access to locked {what}. It could be originally declared on another connection or "
        "the exclusive property value does not match that of the original declaration.",
    )


def inequivalent(name: str, what: str, current: object, asked: object) -> AmqpError:
    """Both present: only the values are named. One missing: the other with its type."""
    if current is None or asked is None:
        words = _typed(asked), _typed(current)
    else:
        words = f"'{erlang(asked)}'", f"'{erlang(current)}'"
    return failed(f"inequivalent arg '{name}' for {what}: received {words[0]} but current is {words[1]}")


def erlang(value: object) -> str:
    """A value as Erlang prints it inside quotes that are already there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return repr(float(value))
    return str(int(value)) if isinstance(value, int) else str(value)


def _typed(value: object) -> str:
    return "none" if value is None else f"the value '{erlang(value)}' of type '{type_name(value)}'"
