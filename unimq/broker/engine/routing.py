"""The exchanges of a virtual host and the way through them.

Rules
- Built-in exchanges cannot be deleted; the default exchange cannot be touched at all, and is not in `exchanges`.
- An exchange that deletes itself does so when its last binding as a source goes, never because it had none yet.
- What is asked for is checked in RabbitMQ's order, so that of two wrongs the same one is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from unimq.wire.amqp091.properties import Properties
from unimq.wire.amqp091.table import type_name

from .arguments import check_same_argument
from .errors import failed, inequivalent, missing, refused, resource
from .exchange import (
    BUILT_IN,
    KINDS,
    TO_EXCHANGE,
    TO_QUEUE,
    TRACE,
    Binding,
    Destination,
    Exchange,
    unknown_kind,
)
from .journal import Journal
from .limits import MAX_BINDINGS, MAX_EXCHANGES

DEFAULT: Final = ""
_NO_HEADERS: Final[Mapping[str, Any]] = {}


class Exchanges:
    def __init__(self, name: str) -> None:
        self.name = name
        self.journal: Journal | None = None
        self.exchanges: dict[str, Exchange] = {made: Exchange(made, kind) for made, kind in BUILT_IN}
        self.exchanges[TRACE] = Exchange(TRACE, "topic", internal=True)
        self._binding_count = 0
        # destination → exchanges that have bindings to it
        self._sources: dict[Destination, dict[str, None]] = {}

    # ----------------------------------------------------------------------------------------------- exchanges

    def exchange(self, name: str) -> Exchange:
        found = self.exchanges.get(name)
        if found is None:
            raise missing(resource("exchange", name, self.name))
        return found

    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] = _NO_HEADERS,
    ) -> None:
        if kind not in KINDS:
            raise unknown_kind(kind)
        name = _stripped(name)
        _not_default(name)
        what = resource("exchange", name, self.name)
        there = self.exchanges.get(name)
        if there is None:
            if name.startswith("amq."):
                raise refused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
            alternate = arguments.get("alternate-exchange")
            if alternate is not None and not isinstance(alternate, str):
                raise failed(f"invalid type '{type_name(alternate)}' for arg 'alternate-exchange' in {what}")
            if len(self.exchanges) >= MAX_EXCHANGES:
                raise failed(
                    f"cannot declare {what}: there are {MAX_EXCHANGES} exchanges, the most there can be"
                )
            made = self.exchanges[name] = Exchange(
                name, kind, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
            )
            if self.journal is not None and durable:
                self.journal.exchange_declared(self.name, made)
            return
        for option, current, asked in (
            ("type", there.kind, kind),
            ("durable", there.durable, durable),
            ("auto_delete", there.auto_delete, auto_delete),
            ("internal", there.internal, internal),
        ):
            if current != asked:
                raise inequivalent(option, what, current, asked)
        check_same_argument(what, "alternate-exchange", there.arguments, arguments)

    def check_exchange(self, name: str) -> None:
        """The passive declare: that it is there, and nothing else."""
        _not_default(name)
        self.exchange(_stripped(name))

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        name = _stripped(name)
        _not_default(name)
        what = resource("exchange", name, self.name)
        if name.startswith("amq."):
            raise refused(f"deletion of system {what} not allowed")
        found = self.exchanges.get(name)
        if found is None:
            return
        if if_unused and found.bindings:
            raise failed(f"{what} in use")
        self._remove(found)

    def _remove(self, exchange: Exchange) -> None:
        del self.exchanges[exchange.name]
        if self.journal is not None and exchange.durable:
            self.journal.exchange_deleted(self.name, exchange)
        for binding in tuple(exchange.bindings.values()):
            self._forget(exchange, binding)
        self._forget_destination((TO_EXCHANGE, exchange.name))

    # ------------------------------------------------------------------------------------------------ bindings

    def bind_exchange(
        self, destination: str, source: str, routing_key: str, arguments: Mapping[str, Any] = _NO_HEADERS
    ) -> None:
        name = _stripped(destination)
        self.bind(source, (TO_EXCHANGE, name), routing_key, arguments, lambda: name in self.exchanges)

    def unbind_exchange(
        self, destination: str, source: str, routing_key: str, arguments: Mapping[str, Any] = _NO_HEADERS
    ) -> None:
        name = _stripped(destination)
        self.unbind(source, (TO_EXCHANGE, name), routing_key, arguments, lambda: name in self.exchanges)

    def bind(
        self,
        source: str,
        destination: Destination,
        key: str,
        arguments: Mapping[str, Any],
        present: Callable[[], bool],
        check_owner: Callable[[], None] = lambda: None,
    ) -> None:
        """`present` says whether the destination is there, `check_owner` raises where it is not the caller's."""
        exchange = self._ends(source, destination)
        if exchange is None:
            raise missing(resource("exchange", _stripped(source), self.name))
        if not present():
            raise missing(resource(destination[0], destination[1], self.name))
        exchange.check_binding(arguments)
        check_owner()
        if self._binding_count >= MAX_BINDINGS:
            raise failed(f"there are {MAX_BINDINGS} bindings, the most there can be")
        made = Binding(exchange.name, destination, key, arguments)
        if exchange.add(made):
            self._binding_count += 1
            self._sources.setdefault(destination, {})[exchange.name] = None
            if self.journal is not None and exchange.durable and self.is_durable(destination):
                self.journal.bound(self.name, made)

    def unbind(
        self,
        source: str,
        destination: Destination,
        key: str,
        arguments: Mapping[str, Any],
        present: Callable[[], bool],
        check_owner: Callable[[], None] = lambda: None,
    ) -> None:
        """Neither end nor the binding need be there (idempotent since RabbitMQ 3.2); only who takes one away must own it."""
        exchange = self._ends(source, destination)
        if exchange is None or not present():
            return
        binding = Binding(exchange.name, destination, key, arguments)
        if binding.identity in exchange.bindings:
            check_owner()
        there = self._forget(exchange, binding)
        if there is not None:
            if self.journal is not None:
                self.journal.unbound(self.name, there)
            self._delete_if_done(exchange)

    def _ends(self, source: str, destination: Destination) -> Exchange | None:
        for kind, name in (destination, (TO_EXCHANGE, _stripped(source))):
            if kind == TO_EXCHANGE:
                _not_default(name)
        return self.exchanges.get(_stripped(source))

    def forget_queue(self, name: str) -> None:
        """The queue is gone: nothing leads to it any more."""
        self._forget_destination((TO_QUEUE, name))

    def is_durable(self, destination: Destination) -> bool:
        """Whether it outlives the broker; it is there."""
        return self.exchanges[destination[1]].durable

    def _forget(self, exchange: Exchange, binding: Binding) -> Binding | None:
        there = exchange.remove(binding)
        if there is None:
            return None
        self._binding_count -= 1
        if not any(b.destination == binding.destination for b in exchange.bindings.values()):
            sources = self._sources.get(binding.destination, {})
            sources.pop(exchange.name, None)
            if not sources:
                self._sources.pop(binding.destination, None)
        return there

    def _forget_destination(self, destination: Destination) -> None:
        for source in self._sources.pop(destination, {}):
            exchange = self.exchanges.get(source)
            if exchange is not None:
                before = len(exchange.bindings)
                exchange.remove_destination(destination)
                self._binding_count -= before - len(exchange.bindings)
                self._delete_if_done(exchange)

    def _delete_if_done(self, exchange: Exchange) -> None:
        if exchange.auto_delete and not exchange.bindings and exchange.name in self.exchanges:
            self._remove(exchange)

    # ------------------------------------------------------------------------------------------------- routing

    def route(self, exchange: str, keys: Iterable[str], properties: Properties) -> list[str]:
        """The names of the queues, sorted, each once (rabbit_exchange:route)."""
        keys = tuple(keys)
        headers: Mapping[str, Any] | None = None
        first = self.exchanges[exchange]
        work = [first]
        seen = {exchange}
        queues: set[str] = set()
        while work:
            at = work.pop()
            if headers is None and at.kind == "headers":
                headers = properties.headers
            found = list(at.destinations(keys, headers or _NO_HEADERS))
            if not found and at.alternate is not None:
                found = [(TO_EXCHANGE, at.alternate)]
            for kind, name in found:
                if kind == TO_QUEUE:
                    queues.add(name)
                elif name not in seen:
                    seen.add(name)
                    if name in self.exchanges:
                        work.append(self.exchanges[name])
        return sorted(queues) if len(queues) > 1 else list(queues)


def _not_default(name: str) -> None:
    if name == DEFAULT:
        raise refused("operation not permitted on the default exchange")


def _stripped(name: str) -> str:
    return name.replace("\n", "").replace("\r", "")
