"""The properties of a content: kept as the sender's bytes, decoded when somebody asks.

Rules
- `raw` is what stands in the content header behind the body's size: the flags and the values. It is sent on as it is.
- Decoding is lazy and remembered; headers are only checked until somebody asks for them. Malformed bytes are a 541, as in
  RabbitMQ, where whoever reads them crashes.
- `changed` makes new properties; a field that is not named keeps its bytes, and so do the headers that are not named.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from .errors import WireError
from .methods import decode_field, encode_field
from .spec import PROPERTIES
from .table import Table, check_table, decode_table, encode_table, spliced

_FLAGS: Final = struct.Struct(">H")
_KINDS: Final = dict(PROPERTIES)
_BITS: Final = tuple((name, kind, 1 << (15 - n)) for n, (name, kind) in enumerate(PROPERTIES))
_NAMES: Final = frozenset(name for name, _ in PROPERTIES)
_UNKNOWN_FLAGS: Final = 0b11  # the lowest: more flags follow; the next: no property has it

NO_PROPERTIES: Final = b"\x00\x00"
HEADERS_FLAG: Final = 1 << 13
DELIVERY_MODE_FLAG: Final = 1 << 12
PRIORITY_FLAG: Final = 1 << 11
EXPIRATION_FLAG: Final = 1 << 8

# flags → what is set; at most as many as there are combinations of fourteen
_PLANS: Final[dict[int, tuple[tuple[str, str], ...]]] = {}


def _plan(flags: int) -> tuple[tuple[str, str], ...]:
    if flags & _UNKNOWN_FLAGS:
        raise WireError(541, "")
    made = _PLANS[flags] = tuple((name, kind) for name, kind, bit in _BITS if flags & bit)
    return made


class Properties:
    __slots__ = ("_headers", "_spans", "_values", "raw")

    def __init__(self, raw: bytes = NO_PROPERTIES) -> None:
        self.raw = raw
        self._values: dict[str, Any] | None = None
        self._spans: dict[str, bytes] = {}
        self._headers: Table | None = None

    @property
    def flags(self) -> int:
        return int.from_bytes(self.raw[:2], "big")

    @property
    def fixed(self) -> Mapping[str, Any]:
        """What is set, by name, without the headers. Raises WireError when the bytes are malformed, headers included."""
        return self._decode() if self._values is None else self._values

    @property
    def values(self) -> Mapping[str, Any]:
        """What is set, by name, headers included."""
        fixed = self.fixed
        return {**fixed, "headers": self.headers} if self.raw[0] & 0x20 else fixed

    def get(self, name: str) -> Any:
        """A property that is not the headers."""
        return self.fixed.get(name)

    @property
    def headers(self) -> Table:
        """Decoded when first asked for. Do not change it."""
        if self._headers is None:
            raw = self._spans.get("headers") if self.fixed is not None else None
            self._headers = {} if raw is None else decode_table(raw, 0, len(raw))[0]
        return self._headers

    def _decode(self) -> dict[str, Any]:
        raw, end = self.raw, len(self.raw)
        if end < 2:
            raise WireError(541, "")
        flags = raw[0] << 8 | raw[1]
        plan = _PLANS.get(flags)
        if plan is None:
            plan = _plan(flags)
        values: dict[str, Any] = {}
        pos = 2
        try:
            for name, kind in plan:
                start = pos
                if kind == "shortstr":
                    pos += 1 + raw[pos]
                    if pos > end:
                        raise WireError(541, "")
                    values[name] = raw[start + 1 : pos].decode("utf-8", "surrogateescape")
                elif kind == "octet":
                    values[name] = raw[pos]
                    pos += 1
                elif kind == "table":
                    pos = check_table(raw, pos, end)
                    self._spans[name] = raw[start:pos]
                else:
                    values[name], pos = decode_field(kind, raw, pos, end)
        except (WireError, IndexError, struct.error):
            raise WireError(541, "") from None
        if pos != end:
            raise WireError(541, "")
        self._values = values
        return values

    def changed(
        self,
        *,
        headers: Mapping[str, Any] | None = None,
        drop_headers: tuple[str, ...] = (),
        drop: tuple[str, ...] = (),
        **values: Any,
    ) -> Properties:
        """With these values and headers set, without those to drop."""
        strange = set(values) - _NAMES
        if strange:
            raise TypeError(f"no such property: {', '.join(sorted(strange))}")
        there_values = self.fixed
        spans = dict(self._spans)
        spans |= {name: encode_field(_KINDS[name], value) for name, value in there_values.items()}
        for name in drop:
            spans.pop(name, None)
        if headers or drop_headers:
            there = spans.get("headers")
            spans["headers"] = (
                encode_table(headers or {}) if there is None else spliced(there, headers or {}, drop_headers)
            )
        for name, kind, _ in _BITS:
            if name in values:
                spans[name] = encode_field(kind, values[name])
        return Properties(_joined(spans))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Properties) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Properties({self.raw!r})"


def make_properties(**values: Any) -> Properties:
    return Properties(_joined({n: encode_field(kind, values[n]) for n, kind in PROPERTIES if n in values}))


def _joined(spans: Mapping[str, bytes]) -> bytes:
    flags = 0
    parts = []
    for name, _, bit in _BITS:
        span = spans.get(name)
        if span is not None:
            flags |= bit
            parts.append(span)
    return _FLAGS.pack(flags) + b"".join(parts)
