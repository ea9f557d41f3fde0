"""A message as AMQP 0-9-1 published it: the `meta` of a `Stored`.

Rules
- The first routing key is that of basic.publish; the others come from the headers CC and BCC. BCC is taken out of the
  message before anybody sees it.
- The sender's bytes of the properties stay as they are until the broker itself has something to write.
- Headers that the broker writes leave the table sorted by name, as RabbitMQ's do (rabbit_misc:set_table_value).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from unimq.wire.amqp091.properties import (
    DELIVERY_MODE_FLAG,
    EXPIRATION_FLAG,
    HEADERS_FLAG,
    NO_PROPERTIES,
    PRIORITY_FLAG,
    Properties,
    make_properties,
)
from unimq.wire.amqp091.table import Int64, type_name

from .errors import AmqpError, failed
from .limits import EXPIRY_MAX_MS, PUBLICATION_OVERHEAD_BYTES
from .message import Stored, make_stored

USER_ID_FLAG: Final = 1 << 4
_LOOKED_AT: Final = HEADERS_FLAG | PRIORITY_FLAG | EXPIRATION_FLAG | USER_ID_FLAG | DELIVERY_MODE_FLAG
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_PERSISTENT: Final = 2


class Publication(msgspec.Struct, frozen=True, eq=False):
    exchange: str
    routing_keys: tuple[str, ...]
    properties: Properties
    # its x-death was written by this broker; what a client sends is believed only by dialect 3
    died_here: bool = False
    # what RabbitMQ refuses in it; said once the exchange is found, as RabbitMQ looks at that first
    wrong: AmqpError | None = None

    @property
    def routing_key(self) -> str:
        return self.routing_keys[0]

    def with_header(self, name: str, value: Any) -> Publication:
        """As it is handed out; what lies in the queue stays as it is."""
        return msgspec.structs.replace(self, properties=with_headers(self.properties, {name: value}))


def publication(exchange: str, routing_key: str, raw_properties: bytes = NO_PROPERTIES) -> Publication:
    return Publication(exchange, (routing_key,), Properties(raw_properties))


def prepared(sent: Publication, body: bytes, user: str | None = None) -> Stored:
    """Looked at as RabbitMQ looks at a basic.publish, and made ready to lie in queues. `VHost.prepare` raises what is
    wrong with it."""
    try:
        return _prepared(sent, body, user)
    except AmqpError as wrong:
        return stored_of(msgspec.structs.replace(sent, wrong=wrong), body)


def _prepared(sent: Publication, body: bytes, user: str | None) -> Stored:
    properties = sent.properties
    if not properties.flags & _LOOKED_AT:
        return stored_of(sent, body)
    values = properties.fixed  # the headers are checked there and decoded only where a key in them may count
    claimed = values.get("user_id")
    if claimed is not None and user is not None and claimed != user:
        raise failed(f"user_id property set to '{claimed}' but authenticated user was '{user}'")
    ttl_s = expiration_s(values.get("expiration"))
    mode = values.get("delivery_mode")
    if mode not in (None, 1, _PERSISTENT):
        raise failed(f"invalid message: {{delivery_mode_unknown,{mode}}}")
    if properties.flags & HEADERS_FLAG and b"CC" in properties.raw:
        headers = properties.headers
        if "CC" in headers or "BCC" in headers:
            sent = _with_routes(sent, headers)
    priority = values.get("priority") or 0
    return stored_of(sent, body, priority=priority, ttl_s=ttl_s, persistent=mode == _PERSISTENT)


def stored_of(
    sent: Publication,
    body: bytes | None,
    *,
    priority: int = 0,
    ttl_s: float | None = None,
    persistent: bool = False,
) -> Stored:
    return make_stored(
        body,
        meta=sent,
        meta_bytes=PUBLICATION_OVERHEAD_BYTES + len(sent.properties.raw),
        subject=sent.routing_keys[0],
        priority=priority,
        ttl_s=ttl_s,
        persistent=persistent,
    )


def publication_of(stored: Stored) -> Publication:
    """What an AMQP reader is given, also of a message that came by another protocol."""
    if isinstance(stored.meta, Publication):
        return stored.meta
    fields: dict[str, Any] = {"headers": dict(stored.headers)} if stored.headers else {}
    if stored.message_id is not None:
        fields["message_id"] = stored.message_id
    if stored.persistent:
        fields["delivery_mode"] = _PERSISTENT
    return Publication("", (stored.subject,), make_properties(**fields))


def with_headers(
    properties: Properties, changes: Mapping[str, Any], drop: tuple[str, ...] = (), gone: tuple[str, ...] = ()
) -> Properties:
    """`changes` set and the whole table sorted; without the headers `drop` and the properties `gone`."""
    there = {name: value for name, value in properties.headers.items() if name not in drop}
    if changes:
        # Sorted by the bytes of the name, as Erlang sorts.
        there = dict(
            sorted({**there, **changes}.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape"))
        )
    absent = tuple(name for name in properties.headers if name not in there)
    return properties.changed(headers=there, drop_headers=absent, drop=gone)


def expiration_s(text: str | None) -> float | None:
    """The property `expiration`, which is a text of milliseconds."""
    if text is None:
        return None
    number = _INTEGER.match(text)
    if number is None:
        raise failed(f"invalid expiration '{text}': no_integer")
    if number.end() < len(text):
        raise failed(f"invalid expiration '{text}': {{leftover_string,\"{text[number.end() :]}\"}}")
    expiry_ms = int(number.group())
    if expiry_ms < 0:
        raise failed(f"invalid expiration '{text}': {{value_negative,{expiry_ms}}}")
    if expiry_ms > EXPIRY_MAX_MS:
        raise failed(f"invalid expiration '{text}': {{value_too_large,{expiry_ms}}}")
    return expiry_ms / 1000


def header_routes(headers: Mapping[str, Any]) -> list[str]:
    """The routing keys in CC and BCC. Anything but a list is an error; in the list only texts count."""
    found: list[str] = []
    for name in ("CC", "BCC"):
        if name not in headers:
            continue
        keys = headers[name]
        if not isinstance(keys, list):
            raise _bad_routes(name, keys)
        found += [key for key in keys if isinstance(key, str)]
    return found


def delivery_count_header(count: int) -> Int64:
    return Int64(count)


def _with_routes(sent: Publication, headers: Mapping[str, Any]) -> Publication:
    routes = header_routes(headers)
    properties = sent.properties
    if "BCC" in headers:
        properties = properties.changed(drop_headers=("BCC",))
    return Publication(sent.exchange, (sent.routing_keys[0], *routes), properties)


def _bad_routes(name: str, value: Any) -> AmqpError:
    return failed(f'invalid message: {{unacceptable_type_in_header,"{name}",{type_name(value)}}}')
