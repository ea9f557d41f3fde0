"""What is written down of what a broker says, so that two runs can be compared.

Rules
- Names have the run's prefix on the wire and lose it here, at any depth.
- The time in x-death cannot be the same; that it is there can.
- Tables keep their order, which is seen on the wire too.
"""

from __future__ import annotations

from typing import Any

from .making import EXCHANGES, QUEUES


class Writing:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def name(self, name: str) -> str:
        return self._prefix + name if name in QUEUES or name in EXCHANGES else name

    def named(self, value: Any) -> Any:
        """With the prefix wherever a name stands."""
        if isinstance(value, str):
            return self.name(value)
        if isinstance(value, list):
            return [self.named(each) for each in value]
        if isinstance(value, dict):
            return {name: self.named(each) for name, each in value.items()}
        return value

    def plain(self, value: Any) -> Any:
        """Without it."""
        if isinstance(value, str):
            return value.replace(self._prefix, "")
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if isinstance(value, dict):
            return {
                self.plain(key): "TIME" if key == "time" and not isinstance(each, str) else self.plain(each)
                for key, each in value.items()
            }
        return f"{type(value).__name__} {value!r}" if value is not None else None

    def message(self, exchange: str, key: str, properties: Any, body: bytes) -> Any:
        fields = {
            name: self.plain(value) if name != "headers" else self._headers(value)
            for name, value in sorted(vars(properties).items())
            if value is not None
        }
        return [self.plain(exchange), self.plain(key), body.decode(), fields]

    def returned(self, message: Any) -> Any:
        method = message.method
        return self.message(method.exchange, method.routing_key, message.properties, message.body)

    def _headers(self, headers: dict[str, Any]) -> Any:
        return [[name, self._ordered(value)] for name, value in headers.items()]

    def _ordered(self, value: Any) -> Any:
        plain = self.plain(value)
        if isinstance(value, list) and (orders := [list(each) for each in value if isinstance(each, dict)]):
            return [plain, orders]
        return plain
