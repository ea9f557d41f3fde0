"""Message → record → Metadata, and copies. A record is whatever has its methods."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from unimq import headers as h
from unimq.address import Queue
from unimq.driver import Copy
from unimq.errors import InvalidMessage, Unsupported
from unimq.message import Message
from unimq_kafka import fields
from unimq_kafka.offsets import Lane

CREATED, NONE = 1, 0


class Record:
    def __init__(
        self,
        value: bytes | None = b"",
        key: bytes | None = None,
        headers: list[tuple[str, Any]] | None = None,
        timestamp: tuple[int, int] = (CREATED, 1_700_000_000_123),
    ) -> None:
        self._all = (value, key, headers, timestamp)

    def value(self) -> bytes | None:
        return self._all[0]

    def key(self) -> bytes | None:
        return self._all[1]

    def headers(self) -> list[tuple[str, Any]] | None:
        return self._all[2]

    def timestamp(self) -> tuple[int, int]:
        return self._all[3]

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42


def wire(message: Message, message_id: str | None = "id-1") -> Record:
    """As the client hands it out: header values are bytes, no headers are None."""
    pairs = fields.headers_of(message, message.content_type, message_id)
    return Record(
        message.body,
        None if message.key is None else message.key.encode(),
        [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs] or None,
    )


def delivery(record: Record) -> fields.KafkaDelivery:
    link: Any = None
    return fields.KafkaDelivery(record, record.value(), 1, None, link, Lane("q", 3, None), 42)


def test_everything_comes_back() -> None:
    sent = Message(
        b"x",
        key="k",
        subject="a.b",
        content_type="text/plain",
        correlation_id="c",
        reply_to=Queue("back"),
        headers={"s": "ü", "i": -(2**63), "f": 0.1, "b": True, "raw": b"\xff\x00", "empty": "", "eb": b""},
    )
    meta = fields.read(wire(sent))
    assert (meta.key, meta.subject, meta.content_type, meta.correlation_id) == ("k", "a.b", "text/plain", "c")
    assert meta.reply_to == Queue("back")
    assert meta.message_id == "id-1"
    assert meta.headers == sent.headers
    assert {name: type(value) for name, value in meta.headers.items()} == {
        name: type(value) for name, value in (sent.headers or {}).items()
    }
    assert meta.position == (3, 42)
    assert meta.timestamp == dt.datetime.fromtimestamp(1_700_000_000.123, dt.UTC)


def test_a_plain_message_has_no_headers_but_its_id() -> None:
    assert fields.headers_of(Message(b"x"), None, "i") == [(h.MESSAGE_ID, "i")]
    assert fields.headers_of(Message(b"x"), None, None) == []


def test_a_foreign_record_is_a_good_message() -> None:
    record = Record(
        b"x",
        b"\xff",
        [
            ("a", b"1"),
            ("a", b"2"),
            ("bin", b"\xfe"),
            ("none", None),
            (h.ATTEMPT, b"nonsense"),
            (h.TYPES, b"a=i;;=;x"),
        ],
        (NONE, -1),
    )
    meta = fields.read(record)
    assert meta.key == b"\xff"
    assert meta.headers == {"a": 2, "bin": b"\xfe"}
    assert len(meta.headers_raw) == 6
    assert meta.attempts == 0
    assert meta.timestamp is None
    assert fields.read(Record()).headers == {}


@pytest.mark.parametrize("ms", [10**18, -(10**18)])
def test_an_absurd_timestamp_is_none(ms: int) -> None:
    assert fields.read(Record(timestamp=(CREATED, ms))).timestamp is None


@pytest.mark.parametrize(
    "message",
    [Message(priority=1), Message(ttl_s=1), Message(delay_s=1), Message(deliver_at=dt.datetime.now(dt.UTC))],
)
def test_what_a_record_cannot_carry_is_refused(message: Message) -> None:
    with pytest.raises(Unsupported):
        fields.headers_of(message, None, None)


def test_a_header_name_with_nul_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        fields.headers_of(Message(headers={"a\0b": "x"}), None, None)


def test_a_copy_is_faithful() -> None:
    record = Record(
        b"x",
        b"k",
        [
            ("a", b"1"), ("a", b"2"), ("none", None), (h.MESSAGE_ID, b"o"), (h.COPIES, b"1"), (h.REASON, b"fatal"),
            ("x-death", b"?"), ("AMQ_SCHEDULED_DELAY", b"5"),
        ],
    )  # fmt: skip
    copy = Copy(delivery(record), "o#2", {h.COPIES: 2, h.ATTEMPT: 3}, frozenset({h.REASON}))
    assert fields.copy_headers(copy) == [
        ("a", b"1"), ("a", b"2"), ("none", None), (h.MESSAGE_ID, b"o"), (h.COPIES, "2"), (h.ATTEMPT, "3"),
        (h.TIMESTAMP_MS, "1700000000123"),
    ]  # fmt: skip


def test_a_copy_of_a_copy_keeps_the_first_timestamp() -> None:
    record = Record(headers=[(h.TIMESTAMP_MS, b"1000")])
    assert fields.copy_headers(Copy(delivery(record), "i", {})) == [(h.TIMESTAMP_MS, b"1000")]
    assert fields.read(record).timestamp == dt.datetime.fromtimestamp(1, dt.UTC)


@pytest.mark.parametrize(
    ("not_before", "due"),
    [
        (None, 1005.0),
        (b"1003000", 1003.0),
        (b"1970-01-01T00:16:43+00:00", 1003.0),
        (b"9999999999999", 1005.0),  # later than the place is deep: what lies behind it must not wait for it
        (b"soon", 1005.0),
    ],
)
def test_when_a_copy_is_due(not_before: bytes | None, due: float) -> None:
    headers = None if not_before is None else [(h.NOT_BEFORE, not_before)]
    assert fields.due_at(Record(headers=headers, timestamp=(CREATED, 1_000_000)), 5.0) == due
