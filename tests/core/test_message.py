"""Messages: what is refused before anything moves."""

import datetime as dt
from typing import Any

import pytest

from unimq import InvalidMessage, Message, Queue
from unimq.message import check

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b"bytes"},
        {"subject": 1},
        {"content_type": b"x"},
        {"message_id": 7},
        {"correlation_id": 7},
        {"reply_to": 5},
        {"priority": 10},
        {"priority": -1},
        {"priority": True},
        {"priority": 1.5},
        {"ttl_s": -1},
        {"ttl_s": "3"},
        {"delay_s": float("nan")},
        {"delay_s": 1, "deliver_at": NOW},
        {"deliver_at": NOW.replace(tzinfo=None)},
        {"timestamp": 12345},
        {"headers": {"": "x"}},
        {"headers": {1: "x"}},
        {"headers": {"unimq-attempt": 1}},
        {"headers": {"unimq_attempt": 1}},
        {"headers": {"x": None}},
        {"headers": {"x": [1]}},
        {"headers": {"x": 2**63}},
    ],
    ids=str,
)
def test_what_no_broker_carries_is_refused(fields: dict[str, Any]) -> None:
    message = Message(b"", **fields)
    with pytest.raises(InvalidMessage) as refused:
        check(message)
    assert refused.value.message is message


def test_what_can_be_carried_passes() -> None:
    check(Message(b"x"))
    check(
        Message(
            {"any": "object"},
            key="k",
            headers={"s": "1", "i": -(2**63), "f": 0.5, "b": True, "x": b"\0"},
            priority=9,
        )
    )
    check(Message(None, reply_to=Queue("q"), ttl_s=0, delay_s=3.5, timestamp=NOW))


def test_a_copy_changes_only_what_it_is_told() -> None:
    message = Message(b"x", key="k", priority=3)
    other = message.copy(key="l")
    assert (other.body, other.key, other.priority) == (b"x", "l", 3)
    assert message.key == "k"
    assert other != message
    assert other.copy(key="k") == message
