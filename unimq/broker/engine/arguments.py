"""Queue arguments: checked as RabbitMQ checks them, compared as it compares them, and turned into options of the engine.

Rules
- Which arguments a queue type knows is a list, in RabbitMQ's order: the first difference in that order is the one reported.
- An argument of another type of queue is refused by name; one that no type knows is ignored and never compared.
- A check answers with Erlang's word for what is wrong, or None. Sources: rabbit_amqqueue (declare_args), capabilities() of
  rabbit_classic_queue and rabbit_quorum_queue, 3.10.8.
- Streams are refused, as by a broker that does not have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from unimq.wire.amqp091.table import type_name

from .dialect import Dialect
from .errors import AmqpError, failed, inequivalent
from .limits import AT_LEAST_ONCE_RETRY_S, EXPIRY_MAX_MS, MAX_PRIORITY
from .options import QueueOptions

Arguments: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Any, Arguments], str | None]
QueueKind: TypeAlias = Literal["classic", "quorum"]

_INTEGERS: Final = frozenset(
    ("byte", "short", "signedint", "long", "unsignedbyte", "unsignedshort", "unsignedint")
)
# Types that are one when two declarations are compared (rabbit_misc:type_class).
_CLASSES: Final = {**dict.fromkeys((*_INTEGERS, "decimal"), "int"), "float": "float", "double": "float"}


def _word(text: str) -> str:
    """A text among Erlang's terms."""
    return f'"{text}"'


def _integer(value: Any, _: Arguments) -> str | None:
    kind = type_name(value)
    return None if kind in _INTEGERS else _word(f"expected integer, got {kind}")


def _not_negative(value: Any, arguments: Arguments) -> str | None:
    wrong = _integer(value, arguments)
    return wrong or (f"{{value_negative,{int(value)}}}" if value < 0 else None)


def _expiry(value: Any, arguments: Arguments) -> str | None:
    wrong = _not_negative(value, arguments)
    return wrong or (f"{{value_too_large,{int(value)}}}" if value > EXPIRY_MAX_MS else None)


def _expires(value: Any, arguments: Arguments) -> str | None:
    wrong = _integer(value, arguments)
    return wrong or (f"{{value_zero,{int(value)}}}" if value == 0 else _expiry(value, arguments))


def _above_zero(value: Any, arguments: Arguments) -> str | None:
    wrong = _not_negative(value, arguments)
    return wrong or (f"{{value_zero,{int(value)}}}" if value == 0 else None)


def _max_priority(value: Any, arguments: Arguments) -> str | None:
    wrong = _not_negative(value, arguments)
    return wrong or (f"{{max_value_exceeded,{int(value)}}}" if value > MAX_PRIORITY else None)


def _unacceptable(value: Any) -> str:
    return f"{{unacceptable_type,{type_name(value)}}}"


def _text(value: Any, _: Arguments) -> str | None:
    return None if type_name(value) == "longstr" else _unacceptable(value)


def _bool(value: Any, _: Arguments) -> str | None:
    return None if isinstance(value, bool) else _unacceptable(value)


def _dead_letter_key(value: Any, arguments: Arguments) -> str | None:
    wrong = _text(value, arguments)
    return wrong or (None if "x-dead-letter-exchange" in arguments else "routing_key_but_no_dlx_defined")


def _one_of(words: tuple[str, ...], otherwise: str) -> Check:
    def check(value: Any, arguments: Arguments) -> str | None:
        wrong = _text(value, arguments)
        return wrong or (None if value in words else otherwise.format(value))

    return check


def _queue_version(value: Any, arguments: Arguments) -> str | None:
    wrong = _not_negative(value, arguments)
    return wrong or (None if value in (1, 2) else _word(f"unsupported queue version '{int(value)}'"))


_QUEUE_TYPE: Final = _one_of(("classic", "quorum"), _word("unsupported queue type '{}'"))

# In the order in which RabbitMQ looks at them.
_CHECKS: Final[Mapping[str, Check]] = {
    "x-expires": _expires,
    "x-message-ttl": _expiry,
    "x-dead-letter-exchange": _text,
    "x-dead-letter-routing-key": _dead_letter_key,
    "x-dead-letter-strategy": _one_of(("at-most-once", "at-least-once"), "invalid_dlx_strategy"),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _max_priority,
    "x-overflow": _one_of(("drop-head", "reject-publish", "reject-publish-dlx"), "invalid_overflow"),
    "x-queue-mode": _one_of(("default", "lazy"), _word("unsupported queue mode '{}'")),
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _bool,
    "x-queue-type": _QUEUE_TYPE,
    "x-quorum-initial-group-size": _above_zero,
    "x-queue-leader-locator": _one_of(
        ("client-local", "balanced", "random", "least-leaders"), "invalid_queue_locator_arg"
    ),
}

_KNOWN: Final[Mapping[QueueKind, tuple[str, ...]]] = {
    "classic": (
        "x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-max-length",
        "x-max-length-bytes", "x-max-priority", "x-overflow", "x-queue-mode", "x-queue-version",
        "x-single-active-consumer", "x-queue-type", "x-queue-master-locator",
    ),
    "quorum": (
        "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-expires", "x-max-length",
        "x-max-length-bytes", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-overflow",
        "x-single-active-consumer", "x-queue-type", "x-quorum-initial-group-size", "x-delivery-limit",
        "x-message-ttl", "x-queue-leader-locator",
    ),
}  # fmt: skip
_STREAM_ONLY: Final = ("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size")
_ALL: Final = frozenset((*_KNOWN["classic"], *_KNOWN["quorum"], *_STREAM_ONLY))

# Arguments of basic.consume, and which type of queue knows them.
_CONSUME: Final[Mapping[str, Check]] = {"x-priority": _integer, "x-cancel-on-ha-failover": _bool}
_CONSUME_KNOWN: Final[Mapping[QueueKind, tuple[str, ...]]] = {
    "classic": ("x-cancel-on-ha-failover", "x-priority", "x-credit"),
    "quorum": ("x-priority", "x-credit"),
}
_CONSUME_ALL: Final = frozenset((*_CONSUME_KNOWN["classic"], "x-stream-offset"))


class QueueSpec(msgspec.Struct, frozen=True):
    """What the arguments ask for, beside the engine's own options."""

    kind: QueueKind
    expires_s: float | None
    dead_letter_exchange: str | None
    dead_letter_key: str | None
    at_least_once: bool
    single_active: bool
    delivery_limit: int | None


def check_declare(what: str, arguments: Arguments) -> QueueKind:
    """`what` names the queue in texts. Raises what RabbitMQ answers; answers with the queue's type."""
    exchange = arguments.get("x-dead-letter-exchange", "")
    # rabbit_channel asks for it, to see whether the user may write there
    if type_name(exchange) != "longstr":
        raise failed(f"invalid type '{type_name(exchange)}' for arg 'x-dead-letter-exchange' in {what}")
    _check(what, arguments, {"x-queue-type": _QUEUE_TYPE})
    kind: QueueKind = "quorum" if arguments.get("x-queue-type") == "quorum" else "classic"
    _check(what, arguments, {name: check for name, check in _CHECKS.items() if name in _KNOWN[kind]})
    _refuse_others(what, arguments, _ALL.difference(_KNOWN[kind]), kind)
    return kind


def check_consume(what: str, arguments: Arguments, kind: QueueKind) -> int:
    """Answers with the consumer's priority."""
    known = _CONSUME_KNOWN[kind]
    _check(what, arguments, {name: check for name, check in _CONSUME.items() if name in known})
    _refuse_others(what, arguments, _CONSUME_ALL.difference(known), kind)
    return int(arguments.get("x-priority", 0))


def check_same(what: str, kind: QueueKind, current: Arguments, asked: Arguments) -> None:
    """Raises on the first argument that differs; for a queue that is there already, nothing else is looked at."""
    for name in _KNOWN[kind]:
        check_same_argument(what, name, current, asked)


def check_same_argument(what: str, name: str, current: Arguments, asked: Arguments) -> None:
    there, wanted = current.get(name), asked.get(name)
    if name == "x-queue-type" and (there or "classic") == (wanted or "classic"):
        return
    if name in current and name in asked:
        if _class(there) == _class(wanted) and there == wanted:
            return
    elif name not in current and name not in asked:
        return
    raise inequivalent(name, what, there, wanted)


def spec_of(kind: QueueKind, arguments: Arguments, dialect: Dialect) -> QueueSpec:
    overflow = arguments.get("x-overflow", "drop-head")
    exchange = arguments.get("x-dead-letter-exchange")
    limit = arguments.get("x-delivery-limit") if kind == "quorum" else None
    if kind == "quorum" and limit is None:
        limit = dialect.default_delivery_limit
    return QueueSpec(
        kind=kind,
        expires_s=_seconds(arguments.get("x-expires")),
        dead_letter_exchange=_str(exchange),
        dead_letter_key=_str(arguments.get("x-dead-letter-routing-key")),
        # Only with reject-publish; otherwise RabbitMQ falls back to at-most-once and says so in its log
        # (rabbit_quorum_queue:dlh).
        at_least_once=kind == "quorum"
        and arguments.get("x-dead-letter-strategy") == "at-least-once"
        and overflow == "reject-publish",
        single_active=arguments.get("x-single-active-consumer") is True,
        delivery_limit=None if limit is None else int(limit),
    )


def options_of(spec: QueueSpec, arguments: Arguments, dead_letter: object) -> QueueOptions:
    overflow = arguments.get("x-overflow", "drop-head")
    ttl_s = _seconds(arguments.get("x-message-ttl"))
    max_length, max_bytes = arguments.get("x-max-length"), arguments.get("x-max-length-bytes")
    max_priority = arguments.get("x-max-priority")
    return QueueOptions(
        max_length=None if max_length is None else int(max_length),
        max_bytes=None if max_bytes is None else int(max_bytes),
        overflow=_OVERFLOW[spec.kind][overflow],
        bytes_counted="body",
        bound_on_return=spec.kind == "classic",
        ttl_s=ttl_s,
        expire_at="head",
        max_priority=None if max_priority is None else int(max_priority),
        # a limit of n means n returns, and the one after them is one too many (rabbit_fifo:return_one)
        max_delivery_count=None if spec.delivery_limit is None else spec.delivery_limit + 1,
        requeue_position="head" if spec.kind == "quorum" else "original",
        dead_letter=dead_letter if spec.dead_letter_exchange is not None else None,
        dead_letter_refused="hold" if spec.at_least_once else "drop",
        dead_retry_s=AT_LEAST_ONCE_RETRY_S,
    )


_OVERFLOW: Final[
    Mapping[QueueKind, Mapping[str, Literal["drop-head", "reject", "dead-letter", "reject-late"]]]
] = {
    "classic": {"drop-head": "drop-head", "reject-publish": "reject", "reject-publish-dlx": "dead-letter"},
    # A quorum queue does not know the third and drops heads (rabbit_quorum_queue:overflow); it refuses once it holds
    # more than its limit, not before (rabbit_fifo:evaluate_limit).
    "quorum": {"drop-head": "drop-head", "reject-publish": "reject-late", "reject-publish-dlx": "drop-head"},
}


def check_properties(
    what: str, kind: QueueKind, *, durable: bool, exclusive: bool, auto_delete: bool
) -> None:
    """What a quorum queue cannot be (rabbit_queue_type_util), in the order of its checks."""
    if kind != "quorum":
        return
    for wrong, name in (
        (auto_delete, "auto-delete"),
        (exclusive, "exclusive-owner"),
        (not durable, "non-durable"),
    ):
        if wrong:
            raise failed(f"invalid property '{name}' for {what}")


def server_named_refused(kind: QueueKind) -> AmqpError:
    return failed(f"Cannot declare a server-named queue for type rabbit_{kind}_queue")


def _check(what: str, arguments: Arguments, checks: Mapping[str, Check]) -> None:
    for name, check in checks.items():
        if name in arguments:
            wrong = check(arguments[name], arguments)
            if wrong is not None:
                raise failed(f"invalid arg '{name}' for {what}: {wrong}")


def _refuse_others(what: str, arguments: Arguments, others: frozenset[str], kind: QueueKind) -> None:
    for name in arguments:
        if name in others:
            raise failed(f"invalid arg '{name}' for {what} of queue type rabbit_{kind}_queue")


def _class(value: Any) -> str:
    name = type_name(value)
    return _CLASSES.get(name, name)


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else int(milliseconds) / 1000


def _str(value: Any) -> str | None:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
