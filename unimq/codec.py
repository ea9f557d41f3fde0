"""Bodies: objects to bytes by content type, and back by the type asked for.

Rules
- bytes and None go as they are; `str` is text/plain; everything else is JSON unless the content type names a codec.
- `decode(bytes)` never fails; `decode(str)` needs UTF-8; a content type without a codec is a `DecodeError` naming it.
- msgspec does JSON; pydantic models are known by their methods, without importing pydantic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import DecodeError, InvalidMessage

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Codec:
    """`encode(object) -> bytes` and `decode(bytes, type) -> object` for some content types (lower case)."""

    content_types: Sequence[str]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, Any], Any]


class Codecs:
    """The codecs of one client by content type. JSON is always there."""

    __slots__ = ("_by_type",)

    def __init__(self, codecs: Iterable[Codec] = ()) -> None:
        self._by_type: dict[str, Codec] = {JSON_TYPE: JSON}
        for codec in codecs:
            for content_type in codec.content_types:
                self._by_type[_bare(content_type)] = codec

    def find(self, content_type: str) -> Codec | None:
        bare = _bare(content_type)
        found = self._by_type.get(bare)
        if found is None and bare.endswith("+json"):
            return self._by_type[JSON_TYPE]
        return found


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _json_default(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic 2
    if callable(dump):
        return dump(mode="json")
    raise NotImplementedError(f"a {type(value).__name__} is not JSON")


@functools.cache
def _encoder() -> Any:
    import msgspec  # at the first object, not at import: who sends bytes does not pay for it

    return msgspec.json.Encoder(enc_hook=_json_default)


def _json_encode(value: Any) -> bytes:
    encoded: bytes = _encoder().encode(value)
    return encoded


def _json_decode(body: bytes, kind: Any) -> Any:
    validate = getattr(kind, "model_validate_json", None)  # pydantic 2
    if callable(validate):
        return validate(body)
    import msgspec

    return msgspec.json.decode(body, type=kind)


JSON = Codec((JSON_TYPE,), _json_encode, _json_decode)
_DEFAULT = Codecs()


def encode(
    body: Any, content_type: str | None, codecs: Codecs | None = None
) -> tuple[bytes | None, str | None]:
    """(bytes, content type) for a body. Raises `InvalidMessage` for what has no encoding."""
    if body is None or isinstance(body, bytes):
        return body, content_type
    if isinstance(body, bytearray | memoryview):
        return bytes(body), content_type
    if isinstance(body, str) and (content_type is None or _bare(content_type).startswith("text/")):
        return body.encode(), content_type or TEXT_TYPE
    wanted = content_type or JSON_TYPE
    codec = (codecs or _DEFAULT).find(wanted)
    if codec is None:
        raise InvalidMessage(
            f"no codec for content type {wanted!r}: give bytes, or connect(codecs=[Codec([{wanted!r}], …)])"
        )
    try:
        return codec.encode(body), wanted
    except Exception as error:  # a codec of the user's may raise anything; the body is what is wrong
        raise InvalidMessage(
            f"a {type(body).__name__} cannot be encoded as {wanted}: {error}", cause=error
        ) from error


def decode(body: bytes | None, kind: Any, content_type: str | None, codecs: Codecs | None = None) -> Any:
    """`body` as `kind`; see `Delivery.decode`."""
    if kind is bytes:
        return b"" if body is None else body
    if body is None:
        if kind is Any or kind is type(None):
            return None
        raise DecodeError(f"the body is a tombstone (None), not a {_name(kind)}")
    if kind is str:
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(
                f"the body is not UTF-8 ({error.reason} at byte {error.start})", cause=error
            ) from error
    if kind is Any and content_type is not None and _bare(content_type).startswith("text/"):
        return decode(body, str, None)
    codec = (codecs or _DEFAULT).find(content_type or JSON_TYPE)
    if codec is None:
        raise DecodeError(
            f"no codec for content type {content_type!r}: decode(bytes), or connect(codecs=[Codec([{content_type!r}], …)])"
        )
    try:
        return codec.decode(body, kind)
    except Exception as error:  # a codec or a model's validator may raise anything; the body is what is wrong
        raise DecodeError(
            f"the body is not a {_name(kind)} ({content_type or JSON_TYPE}): {type(error).__name__}: {error}",
            cause=error,
        ) from error


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
