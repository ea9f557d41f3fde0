"""The methods, compiled from the table in `spec.py`.

Rules
- A method is known by its name in the specification, "queue.declare-ok"; its arguments are a tuple in the table's order,
  without the reserved ones.
- Text on the wire that is not UTF-8 survives as surrogates, in both directions.
- Malformed arguments are a 501 with the method's ids, trailing bytes included, as RabbitMQ has it.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from .errors import WireError, octets
from .limits import SHORTSTR_MAX_BYTES
from .spec import CLASSES, METHODS
from .table import decode_table, encode_table

# fixed-size fields
_FIXED: Final = {
    "octet": struct.Struct(">B"),
    "short": struct.Struct(">H"),
    "long": struct.Struct(">I"),
    "longlong": struct.Struct(">Q"),
}
_IDS: Final = struct.Struct(">HH")
_LENGTH: Final = struct.Struct(">I")
_ZERO: Final[dict[str, Any]] = {"bit": False, "shortstr": "", "longstr": b"", "table": {}}


class Method(msgspec.Struct, frozen=True):
    name: str
    class_id: int
    method_id: int
    fields: tuple[tuple[str, bool], ...]  # type, reserved?
    content: bool
    prefix: bytes  # its ids on the wire

    def decode(self, data: bytes, pos: int, end: int) -> tuple[Any, ...]:
        """`pos` is behind the ids."""
        start = pos
        values: list[Any] = []
        bit = 8  # of the octet that holds a run of bits; 8: the next one begins a run
        bits = 0
        try:
            for kind, reserved in self.fields:
                value: Any
                if kind == "bit":
                    if bit == 8:
                        bits, pos, bit = data[pos], pos + 1, 0
                    value = bits >> bit & 1 != 0
                    bit += 1
                    if not reserved:
                        values.append(value)
                    continue
                bit = 8
                value, pos = decode_field(kind, data, pos, end)
                if not reserved:
                    values.append(value)
        except (WireError, IndexError, struct.error):
            raise self._malformed(data, start, end) from None
        if pos != end:
            raise self._malformed(data, start, end)
        return tuple(values)

    def encode(self, args: tuple[Any, ...]) -> bytes:
        """The payload of its frame."""
        parts = [self.prefix]
        given = iter(args)
        bits = shift = 0
        for kind, reserved in self.fields:
            value = _ZERO.get(kind, 0) if reserved else next(given)
            if kind == "bit":
                if shift == 8:
                    parts.append(bytes((bits,)))
                    bits = shift = 0
                bits |= bool(value) << shift
                shift += 1
                continue
            if shift:
                parts.append(bytes((bits,)))
                bits = shift = 0
            parts.append(encode_field(kind, value))
        if shift:
            parts.append(bytes((bits,)))
        return b"".join(parts)

    def _malformed(self, data: bytes, start: int, end: int) -> WireError:
        text = f"cannot decode {octets(data[start:end])}"
        return WireError(501, text, class_id=self.class_id, method_id=self.method_id)


def decode_field(kind: str, data: bytes, pos: int, end: int) -> tuple[Any, int]:
    if kind == "shortstr":
        after = pos + 1 + data[pos]
        if after > end:
            raise WireError(501, "a short string is cut off")
        return data[pos + 1 : after].decode("utf-8", "surrogateescape"), after
    if kind == "longstr":
        start = pos + 4
        after = start + _LENGTH.unpack_from(data, pos)[0]
        if after > end:
            raise WireError(501, "a long string is cut off")
        return data[start:after], after
    if kind == "table":
        return decode_table(data, pos, end)
    packer = _FIXED[kind]
    if pos + packer.size > end:
        raise WireError(501, "a number is cut off")
    return packer.unpack_from(data, pos)[0], pos + packer.size


def encode_field(kind: str, value: Any) -> bytes:
    if kind == "shortstr":
        raw: bytes = value.encode("utf-8", "surrogateescape")
        if len(raw) > SHORTSTR_MAX_BYTES:
            raise ValueError(f"a short string has at most {SHORTSTR_MAX_BYTES} bytes, not {len(raw)}")
        return bytes((len(raw),)) + raw
    if kind == "longstr":
        return _LENGTH.pack(len(value)) + bytes(value)
    if kind == "table":
        return encode_table(value)
    packed: bytes = _FIXED[kind].pack(value)
    return packed


def _compiled() -> dict[str, Method]:
    methods = {}
    for line in METHODS.strip().splitlines():
        name, number, *words = line.split()
        class_id, method_id = CLASSES[name.partition(".")[0]], int(number)
        content = words[-1:] == ["+content"]
        fields = tuple(
            (word.lstrip("_"), word.startswith("_")) for word in (words[:-1] if content else words)
        )
        methods[name] = Method(name, class_id, method_id, fields, content, _IDS.pack(class_id, method_id))
    return methods


BY_NAME: Final = _compiled()
BY_PREFIX: Final = {method.prefix: method for method in BY_NAME.values()}
