"""Field tables: bytes ↔ Python values, without loss in either direction.

Rules
- Every wire type has a Python type of its own, so what was decoded encodes to the same bytes. Numbers are subclasses of int
  and float: they behave as such, and remember their width. A plain int is written as RabbitMQ's `I`, or `l` when too large.
- A long string that is not UTF-8 is decoded to bytes, and bytes are written as a long string.
- `spliced` changes some fields of an encoded table and keeps the sender's bytes of all others.
- The types are RabbitMQ's (its errata to the specification): t b B s u I i l f d D S x A T F V.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from .errors import WireError
from .limits import SHORTSTR_MAX_BYTES, TABLE_DEPTH_MAX

Table = dict[str, Any]


class Int8(int):
    pass


class UInt8(int):
    pass


class Int16(int):
    pass


class UInt16(int):
    pass


class UInt32(int):
    pass


class Int64(int):
    pass


class Timestamp(int):
    """Seconds since the epoch."""


class Float32(float):
    pass


class ByteArray(bytes):
    """Type x; plain bytes are a long string."""


class DecimalField(NamedTuple):
    scale: int
    value: int


# type octet → how it is packed, and its Python type
_NUMBERS: Final[dict[int, tuple[struct.Struct, type]]] = {
    ord("b"): (struct.Struct(">b"), Int8),
    ord("B"): (struct.Struct(">B"), UInt8),
    ord("s"): (struct.Struct(">h"), Int16),
    ord("u"): (struct.Struct(">H"), UInt16),
    ord("I"): (struct.Struct(">i"), int),
    ord("i"): (struct.Struct(">I"), UInt32),
    ord("l"): (struct.Struct(">q"), Int64),
    ord("T"): (struct.Struct(">Q"), Timestamp),
    ord("f"): (struct.Struct(">f"), Float32),
    ord("d"): (struct.Struct(">d"), float),
}
_TYPE_OF: Final = {kind: (octet, packer) for octet, (packer, kind) in _NUMBERS.items()}

# Python type → RabbitMQ's name of the wire type, as its error texts have it
TYPE_NAMES: Final[dict[type, str]] = {
    str: "longstr",
    bytes: "longstr",
    ByteArray: "binary",
    bool: "bool",
    int: "signedint",
    Int8: "byte",
    UInt8: "unsignedbyte",
    Int16: "short",
    UInt16: "unsignedshort",
    UInt32: "unsignedint",
    Int64: "long",
    Timestamp: "timestamp",
    Float32: "float",
    float: "double",
    DecimalField: "decimal",
    dict: "table",
    list: "array",
    type(None): "void",
}

_LENGTH: Final = struct.Struct(">I")
_DECIMAL: Final = struct.Struct(">BI")
_INT32_MIN: Final = -(1 << 31)
_INT32_MAX: Final = (1 << 31) - 1


def type_name(value: object) -> str:
    return TYPE_NAMES[type(value)]


# ------------------------------------------------------------------------------------------------------- decoding
def decode_table(data: bytes, pos: int, end: int, depth: int = 0) -> tuple[Table, int]:
    """The table whose length stands at `pos`; answers with the position behind it. The last of two equal keys holds."""
    pos, stop = _span(data, pos, end)
    table: Table = {}
    while pos < stop:
        key, pos = _key(data, pos, stop)
        table[key], pos = _value(data, pos, stop, depth)
    return table, stop


def _span(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """What a 4-byte length at `pos` covers."""
    if pos + 4 > end:
        raise _malformed("a length is cut off")
    (length,) = _LENGTH.unpack_from(data, pos)
    pos += 4
    if pos + length > end:
        raise _malformed(f"a length of {length} reaches beyond its frame")
    return pos, pos + length


def _key(data: bytes, pos: int, end: int) -> tuple[str, int]:
    after = pos + 1 + data[pos]
    if after > end:
        raise _malformed("a field name is cut off")
    return data[pos + 1 : after].decode("utf-8", "surrogateescape"), after


def _value(data: bytes, pos: int, end: int, depth: int) -> tuple[Any, int]:
    if pos >= end:
        raise _malformed("a field has no value")
    kind = data[pos]
    pos += 1
    if kind == 0x53:  # S
        pos, stop = _span(data, pos, end)
        raw = data[pos:stop]
        try:
            return raw.decode(), stop
        except UnicodeDecodeError:
            return raw, stop
    number = _NUMBERS.get(kind)
    if number is not None:
        packer, python = number
        if pos + packer.size > end:
            raise _malformed("a number is cut off")
        (value,) = packer.unpack_from(data, pos)
        return (value if python is int or python is float else python(value)), pos + packer.size
    other = _OTHERS.get(kind)
    if other is None:
        raise _malformed(f"unknown field type {kind}")
    if depth >= TABLE_DEPTH_MAX:
        raise _malformed(f"fields are nested more than {TABLE_DEPTH_MAX} deep")
    return other(data, pos, end, depth + 1)


# sizes of values that need no look inside
_SIZES: Final = {octet: packer.size for octet, (packer, _) in _NUMBERS.items()} | {
    ord("t"): 1,
    ord("D"): 5,
    ord("V"): 0,
}


def check_table(data: bytes, pos: int, end: int, depth: int = 0, keyed: bool = True) -> int:
    """The position behind the table (or, without keys, the array) at `pos`. Raises as decoding would; builds nothing."""
    if pos + 4 > end:
        raise _malformed("a length is cut off")
    stop = pos + 4 + int.from_bytes(data[pos : pos + 4], "big")
    pos += 4
    if stop > end:
        raise _malformed("a length reaches beyond its frame")
    try:
        while pos < stop:
            if keyed:
                pos += 1 + data[pos]
            kind = data[pos]
            pos += 1
            if kind == 0x53 or kind == 0x78:  # S x
                pos += 4 + int.from_bytes(data[pos : pos + 4], "big")
            elif kind in _SIZES:
                pos += _SIZES[kind]
            elif kind == 0x46 or kind == 0x41:  # F A
                if depth >= TABLE_DEPTH_MAX:
                    raise _malformed(f"fields are nested more than {TABLE_DEPTH_MAX} deep")
                pos = check_table(data, pos, stop, depth + 1, kind == 0x46)
            else:
                raise _malformed(f"unknown field type {kind}")
    except IndexError:
        raise _malformed("cut off") from None
    if pos != stop:
        raise _malformed("a field reaches beyond its table")
    return stop


def _bool(data: bytes, pos: int, end: int, _depth: int) -> tuple[bool, int]:
    if pos >= end:
        raise _malformed("a bool is cut off")
    return data[pos] != 0, pos + 1


def _decimal(data: bytes, pos: int, end: int, _depth: int) -> tuple[DecimalField, int]:
    if pos + 5 > end:
        raise _malformed("a decimal is cut off")
    return DecimalField(*_DECIMAL.unpack_from(data, pos)), pos + 5


def _bytearray(data: bytes, pos: int, end: int, _depth: int) -> tuple[ByteArray, int]:
    pos, stop = _span(data, pos, end)
    return ByteArray(data[pos:stop]), stop


def _array(data: bytes, pos: int, end: int, depth: int) -> tuple[list[Any], int]:
    pos, stop = _span(data, pos, end)
    items = []
    while pos < stop:
        item, pos = _value(data, pos, stop, depth)
        items.append(item)
    return items, stop


def _void(_data: bytes, pos: int, _end: int, _depth: int) -> tuple[None, int]:
    return None, pos


_OTHERS: Final[dict[int, Callable[[bytes, int, int, int], tuple[Any, int]]]] = {
    ord("t"): _bool,
    ord("D"): _decimal,
    ord("x"): _bytearray,
    ord("A"): _array,
    ord("F"): decode_table,
    ord("V"): _void,
}


def _malformed(what: str) -> WireError:
    return WireError(502, f"malformed field table: {what}")


# ------------------------------------------------------------------------------------------------------- encoding
def encode_table(table: Mapping[str, Any]) -> bytes:
    return _counted(b"".join(encode_field(key, value) for key, value in table.items()))


def encode_field(key: str, value: Any) -> bytes:
    name = key.encode("utf-8", "surrogateescape")
    if len(name) > SHORTSTR_MAX_BYTES:
        raise ValueError(f"a field name has at most {SHORTSTR_MAX_BYTES} bytes, not {len(name)}")
    return bytes((len(name),)) + name + encode_value(value)


def encode_value(value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        return b"S" + _counted(value.encode())
    if kind is int:
        if _INT32_MIN <= value <= _INT32_MAX:
            return b"I" + int(value).to_bytes(4, "big", signed=True)
        return b"l" + int(value).to_bytes(8, "big", signed=True)
    if kind in _TYPE_OF:
        octet, packer = _TYPE_OF[kind]
        packed: bytes = packer.pack(value)
        return bytes((octet,)) + packed
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    if value is None:
        return b"V"
    if kind is bytes:
        return b"S" + _counted(value)
    if kind is ByteArray:
        return b"x" + _counted(value)
    if kind is DecimalField:
        return b"D" + _DECIMAL.pack(*value)
    if isinstance(value, Mapping):
        return b"F" + encode_table(value)
    if isinstance(value, (list, tuple)):
        return b"A" + _counted(b"".join(map(encode_value, value)))
    raise TypeError(f"no field type for {kind.__name__}")


def _counted(raw: bytes) -> bytes:
    return bytes(_LENGTH.pack(len(raw))) + raw


# ------------------------------------------------------------------------------------------------------- splicing
def fields_of(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Each field of an encoded table: its name, and its bytes as they are."""
    pos, stop = _span(raw, 0, len(raw))
    while pos < stop:
        start = pos
        key, pos = _key(raw, pos, stop)
        _, pos = _value(raw, pos, stop, 0)
        yield key, raw[start:pos]


def spliced(raw: bytes, changes: Mapping[str, Any], drop: tuple[str, ...] = ()) -> bytes:
    """`raw` with `changes` in it, behind what stays, and without `drop`. What stays keeps its bytes and its order."""
    kept = [field for key, field in fields_of(raw) if key not in changes and key not in drop]
    kept += [encode_field(key, value) for key, value in changes.items()]
    return _counted(b"".join(kept))
