"""A message as bytes: everything of a `Stored` but its body.

Rules
- The sender's properties stay the bytes they are. Texts are kept as bytes too: an AMQP name need not be UTF-8.
- Times are the engine's, absolute: what is left to live goes on running while no broker does.
- What the engine's other users put into `headers` must be what a field table can hold; `meta` is a `Publication` or None.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from unimq.wire.amqp091.properties import Properties
from unimq.wire.amqp091.table import decode_table, encode_table

from ..engine.deadletter import Death
from ..engine.message import NO_HEADERS, Stored
from ..engine.publication import Publication

T = TypeVar("T")


class Sent(msgspec.Struct, array_like=True):
    exchange: bytes
    routing_keys: list[bytes]
    properties: bytes
    died_here: bool


class Died(msgspec.Struct, array_like=True):
    queue: bytes
    reason: bytes
    description: bytes
    died_at: float
    first_died_at: float
    count: int
    delivery_count: int
    sent: Sent | None


class Record(msgspec.Struct, array_like=True):
    sent: Sent | None
    size_bytes: int
    subject: bytes
    priority: int
    persistent: bool
    expires_at: float | None
    ttl_s: float | None
    headers: bytes | None
    message_id: bytes | None
    group: bytes | None
    session_id: bytes | None
    deaths: list[Died]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def encoded(stored: Stored) -> bytes:
    return _encode(
        Record(
            _sent(stored.meta),
            stored.size_bytes,
            raw(stored.subject),
            stored.priority,
            stored.persistent,
            stored.expires_at,
            stored.ttl_s,
            encode_table(stored.headers) if stored.headers else None,
            _maybe_raw(stored.message_id),
            _maybe_raw(stored.group),
            _maybe_raw(stored.session_id),
            [_died(death) for death in stored.deaths],
        )
    )


def decoded(record: bytes, body: bytes | None) -> Stored:
    """Raises `msgspec.DecodeError` for what `encoded` has not written."""
    found = _decode(record)
    return Stored(
        body,
        NO_HEADERS if found.headers is None else table(found.headers),
        _publication(found.sent),
        found.size_bytes,
        _maybe_text(found.message_id),
        text(found.subject),
        found.priority,
        found.expires_at,
        found.ttl_s,
        _maybe_text(found.group),
        _maybe_text(found.session_id),
        found.persistent,
        tuple(_death(died) for died in found.deaths),
    )


def raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def table(raw_table: bytes) -> dict[str, Any]:
    return decode_table(raw_table, 0, len(raw_table))[0]


def _maybe_raw(name: str | None) -> bytes | None:
    return None if name is None else raw(name)


def _maybe_text(name: bytes | None) -> str | None:
    return None if name is None else text(name)


def _sent(meta: object) -> Sent | None:
    if meta is None:
        return None
    if not isinstance(meta, Publication):
        raise TypeError(f"no record for a message of {type(meta).__name__}")
    return Sent(
        raw(meta.exchange), [raw(key) for key in meta.routing_keys], meta.properties.raw, meta.died_here
    )


def _publication(sent: Sent | None) -> Publication | None:
    if sent is None:
        return None
    keys = tuple(text(key) for key in sent.routing_keys)
    return Publication(text(sent.exchange), keys, Properties(sent.properties), sent.died_here)


def _died(death: Death) -> Died:
    return Died(
        raw(death.queue),
        raw(death.reason),
        raw(death.description),
        death.died_at,
        death.first_died_at,
        death.count,
        death.delivery_count,
        _sent(death.meta),
    )


def _death(died: Died) -> Death:
    return Death(
        text(died.queue),
        text(died.reason),
        text(died.description),
        died.died_at,
        died.first_died_at,
        died.count,
        died.delivery_count,
        _publication(died.sent),
    )
