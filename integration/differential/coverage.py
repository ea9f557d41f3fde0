"""What a set of programs has in it: each operation, and each thing that an operation can say, by programs that hold it.

Rules
- `LISTED` is the fixed list: what it names must be in enough programs, or the run proves less than it says.
- What is counted is what was asked for; that it also happens is seen in the traces, which are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from .making import Op
from .operations import OPERATIONS

_ARGUMENTS: Final = (
    "x-message-ttl", "x-expires", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-max-length",
    "x-max-length-bytes", "x-max-priority", "x-single-active-consumer", "x-delivery-limit", "x-dead-letter-strategy",
)  # fmt: skip
_OVERFLOWS: Final = ("drop-head", "reject-publish", "reject-publish-dlx")
_KINDS: Final = ("direct", "fanout", "topic", "headers")
_PROPERTIES: Final = ("expiration", "priority", "headers", "delivery_mode")

LISTED: Final = (
    *OPERATIONS,
    *(f"queue {name}" for name in (*_ARGUMENTS, "durable", "exclusive", "auto-delete", "quorum")),
    *(f"queue overflow {word}" for word in _OVERFLOWS),
    *(f"exchange {word}" for word in (*_KINDS, "alternate-exchange", "auto-delete")),
    *(f"publish {word}" for word in ("mandatory", "confirmed", *_PROPERTIES, "CC or BCC")),
    *(f"tx {word}" for word in ("commit", "rollback", "close", "settled")),
    *(f"consume {word}" for word in ("x-priority", "no-ack", "exclusive", "prefetch")),
    *(f"{verb} {word}" for verb, word in (("ack", "multiple"), ("nack", "multiple"), ("nack", "requeue"))),
    *("reject requeue", "qos of the channel", "delete if-unused", "delete if-empty"),
)


def said(op: Op) -> Iterator[str]:
    """All of `LISTED` that is in this operation."""
    name = op["op"]
    yield name
    if name == "declare_queue":
        yield from _declared(op)
    elif name == "declare_exchange":
        yield f"exchange {op['kind']}"
        if op["auto_delete"]:
            yield "exchange auto-delete"
        if "alternate-exchange" in op["arguments"]:
            yield "exchange alternate-exchange"
    elif name == "publish":
        yield from _published(op)
    elif name == "transaction":
        yield f"tx {op['end']}"
        if op["get"] is not None:
            yield "tx settled"
        for each in op["publishes"]:
            yield from _published(each)
    elif name == "consume":
        for word, there in (("x-priority", op["arguments"]), ("no-ack", op["no_ack"])):
            if there:
                yield f"consume {word}"
        for word in ("exclusive", "prefetch"):
            if op[word]:
                yield f"consume {word}"
    elif name in ("ack", "nack", "reject"):
        for word in ("multiple", "requeue"):
            if op.get(word):
                yield f"{name} {word}"
    elif name == "qos" and op["whole_channel"]:
        yield "qos of the channel"
    elif name == "delete_queue":
        for word in ("if_unused", "if_empty"):
            if op[word]:
                yield f"delete {word.replace('_', '-')}"


def _declared(op: Op) -> Iterator[str]:
    arguments = op["arguments"]
    for name in _ARGUMENTS:
        if name in arguments:
            yield f"queue {name}"
    if arguments.get("x-overflow") in _OVERFLOWS:
        yield f"queue overflow {arguments['x-overflow']}"
    if arguments.get("x-queue-type") == "quorum":
        yield "queue quorum"
    for name in ("durable", "exclusive", "auto_delete"):
        if op[name]:
            yield f"queue {name.replace('_', '-')}"


def _published(op: Op) -> Iterator[str]:
    if op["mandatory"]:
        yield "publish mandatory"
    if op["ch"].endswith("0"):
        yield "publish confirmed"
    for name in _PROPERTIES:
        if name in op["properties"]:
            yield f"publish {name}"
    if {"CC", "BCC"} & set(op["properties"].get("headers", ())):
        yield "publish CC or BCC"


def counted(programs: Iterable[list[Op]]) -> Counter[str]:
    """Name → in how many programs."""
    counts: Counter[str] = Counter(dict.fromkeys(LISTED, 0))
    for ops in programs:
        counts.update({word for op in ops for word in said(op)})
    return counts
