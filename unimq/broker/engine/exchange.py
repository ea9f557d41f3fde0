"""Exchanges and bindings: from a routing key and headers to queues.

Rules
- A binding is what it says: source, destination, key and arguments. Binding the same again changes nothing; unbinding what
  is not there is no error.
- A message goes once to each queue, however many ways lead there, and through each exchange once.
- An exchange that finds nowhere to go asks its alternate exchange, at every step of the way.
- Topic: an empty routing key is zero words (facts: `#` matches it, `*` does not).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from unimq.wire.amqp091.table import type_name

from .errors import AmqpError, failed
from .matcher import compiled

KINDS: Final = ("direct", "fanout", "topic", "headers")

# RabbitMQ makes these in every virtual host; amq.rabbitmq.trace is internal.
BUILT_IN: Final = (
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.topic", "topic"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
)
TRACE: Final = "amq.rabbitmq.trace"

TO_QUEUE: Final = "queue"
TO_EXCHANGE: Final = "exchange"

Destination: TypeAlias = tuple[str, str]  # (TO_QUEUE or TO_EXCHANGE, name)


class Binding(msgspec.Struct, frozen=True, eq=False):
    source: str
    destination: Destination
    key: str
    arguments: Mapping[str, Any]

    @property
    def identity(self) -> tuple[Any, ...]:
        """Arguments are a list of fields on the wire: their order does not tell two bindings apart in RabbitMQ
        (it sorts them), their types do."""
        return self.destination, self.key, _frozen(self.arguments)


class Exchange:
    __slots__ = (
        "alternate",
        "arguments",
        "auto_delete",
        "bindings",
        "durable",
        "internal",
        "kind",
        "name",
        "_by_key",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments: Mapping[str, Any] = arguments or {}
        alternate = self.arguments.get("alternate-exchange")
        self.alternate: str | None = alternate if isinstance(alternate, str) else None
        self.bindings: dict[tuple[Any, ...], Binding] = {}
        self._by_key: dict[str, dict[tuple[Any, ...], Binding]] = {}

    def add(self, binding: Binding) -> bool:
        """False: it is there already."""
        identity = binding.identity
        if identity in self.bindings:
            return False
        self.bindings[identity] = binding
        self._by_key.setdefault(binding.key, {})[identity] = binding
        return True

    def remove(self, binding: Binding) -> Binding | None:
        """Answers with the one that was there: its arguments may have stood in another order."""
        identity = binding.identity
        there = self.bindings.pop(identity, None)
        if there is None:
            return None
        same_key = self._by_key[binding.key]
        del same_key[identity]
        if not same_key:
            del self._by_key[binding.key]
        return there

    def remove_destination(self, destination: Destination) -> bool:
        """All that leads there. Answers whether there was any."""
        gone = [binding for binding in self.bindings.values() if binding.destination == destination]
        for binding in gone:
            self.remove(binding)
        return bool(gone)

    def check_binding(self, arguments: Mapping[str, Any]) -> None:
        """Only the headers exchange looks at arguments (rabbit_exchange_type_headers:validate_binding)."""
        if self.kind != "headers" or "x-match" not in arguments:
            return
        match = arguments["x-match"]
        if not isinstance(match, str):
            raise failed(f"Invalid x-match field type {type_name(match)} (value {match!r}); expected longstr")
        if match not in X_MATCH:
            raise failed(
                f'Invalid x-match field value <<"{match}">>; expected all, any, all-with-x, or any-with-x'
            )

    def destinations(self, keys: Iterable[str], headers: Mapping[str, Any]) -> Iterator[Destination]:
        return ROUTERS[self.kind](self, keys, headers)

    def with_key(self, key: str) -> Iterator[Destination]:
        for binding in self._by_key.get(key, {}).values():
            yield binding.destination

    @property
    def keys(self) -> Iterable[str]:
        return self._by_key


def _direct(exchange: Exchange, keys: Iterable[str], _headers: Mapping[str, Any]) -> Iterator[Destination]:
    for key in keys:
        yield from exchange.with_key(key)


def _fanout(exchange: Exchange, _keys: Iterable[str], _headers: Mapping[str, Any]) -> Iterator[Destination]:
    for binding in exchange.bindings.values():
        yield binding.destination


def _topic(exchange: Exchange, keys: Iterable[str], _headers: Mapping[str, Any]) -> Iterator[Destination]:
    for key in keys:
        for pattern in exchange.keys:
            if compiled(pattern).matches(key):
                yield from exchange.with_key(pattern)


def _headers(exchange: Exchange, _keys: Iterable[str], headers: Mapping[str, Any]) -> Iterator[Destination]:
    for binding in exchange.bindings.values():
        if headers_match(binding.arguments, headers):
            yield binding.destination


Router: TypeAlias = Callable[[Exchange, Iterable[str], Mapping[str, Any]], Iterator[Destination]]
ROUTERS: Final[Mapping[str, Router]] = {
    "direct": _direct,
    "fanout": _fanout,
    "topic": _topic,
    "headers": _headers,
}

# x-match → (any instead of all, headers that begin with x- count too)
X_MATCH: Final[Mapping[str, tuple[bool, bool]]] = {
    "all": (False, False),
    "any": (True, False),
    "all-with-x": (False, True),
    "any-with-x": (True, True),
}


def headers_match(wanted: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """rabbit_exchange_type_headers:headers_match: values are compared, not their types; void means: is there at all."""
    any_of, with_x = X_MATCH.get(wanted.get("x-match", "all"), X_MATCH["all"])
    for name, value in wanted.items():
        if name == "x-match" or (name.startswith("x-") and not with_x):
            continue
        there = name in headers and (value is None or _equal(value, headers[name]))
        if there == any_of:
            return any_of
    return not any_of


def _equal(a: Any, b: Any) -> bool:
    """1 and 1.0 are equal to Erlang, true and 1 are not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def unknown_kind(kind: str) -> AmqpError:
    return AmqpError(503, f"unknown exchange type '{kind}'")


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((name, _frozen(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return type(value).__name__, value
