"""Bodies: to bytes by content type, and back by the type asked for."""

import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest

from unimq.codec import JSON_TYPE, TEXT_TYPE, Codec, Codecs, decode, encode
from unimq.errors import DecodeError, InvalidMessage


@dataclasses.dataclass
class Data:
    id: int


class Struct(msgspec.Struct):
    id: int


class Model(pydantic.BaseModel):
    id: int


@pytest.mark.parametrize("kind", [Data, Struct, Model])
def test_objects_are_json_both_ways(kind: Any) -> None:
    body, content_type = encode(kind(id=1), None)
    assert content_type == JSON_TYPE
    assert decode(body, kind, content_type) == kind(id=1)
    assert decode(body, dict, None) == {"id": 1}
    with pytest.raises(DecodeError):
        decode(b'{"id": "one"}', kind, content_type)


def test_bytes_none_and_text() -> None:
    assert encode(b"\xff", None) == (b"\xff", None)
    assert encode(bytearray(b"x"), "a/b") == (b"x", "a/b")
    assert encode(None, None) == (None, None)
    assert encode("ä", None) == ("ä".encode(), TEXT_TYPE)
    assert encode("ä", JSON_TYPE) == ('"ä"'.encode(), JSON_TYPE)
    assert decode(b"\xff", bytes, "what/ever") == b"\xff"
    assert decode(None, bytes, None) == b""
    assert decode(None, Any, None) is None
    assert decode("ä".encode(), str, "what/ever") == "ä"
    assert decode("ä".encode(), Any, TEXT_TYPE) == "ä"


@pytest.mark.parametrize(
    ("body", "kind", "content_type"),
    [
        (b"\xff", str, None),
        (b"{", dict, None),
        (None, dict, None),
        (b"x", dict, "image/png"),
        (b"[1]", dict, "a/b+json"),
    ],
)
def test_what_cannot_be_decoded_says_so(body: bytes | None, kind: Any, content_type: str | None) -> None:
    with pytest.raises(DecodeError) as refused:
        decode(body, kind, content_type)
    assert content_type is None or content_type in str(refused.value)


def test_a_codec_of_ones_own() -> None:
    shout = Codec(
        ["text/shout"],
        lambda value: str(value).upper().encode(),
        lambda body, kind: kind(body.decode().lower()),
    )
    codecs = Codecs([shout])
    assert encode(["a"], "text/shout", codecs) == (b"['A']", "text/shout")
    assert decode(b"ABC", str, "text/shout; v=1", codecs) == "ABC"  # str never asks a codec
    assert decode(b"12", int, "text/shout", codecs) == 12
    with pytest.raises(InvalidMessage, match="text/shout"):
        encode(["a"], "text/shout")
    with pytest.raises(InvalidMessage, match="object"):
        encode(object(), None)
