"""The error table: every name exists in the client library, and before and after the write mean different things."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from unimq.driver import Op
from unimq.errors import (
    AuthenticationFailed,
    Closed,
    ConnectionFailed,
    InvalidMessage,
    MessageTooLarge,
    NotFound,
    ResourceExhausted,
    SendOutcomeUnknown,
    SendTimeout,
    UnimqError,
)
from unimq_kafka import ADAPTER, errors


def kafka(name: str) -> KafkaException:
    return KafkaException(KafkaError(getattr(KafkaError, name)))


@pytest.mark.parametrize("name", sorted({*errors.TABLE, *errors.NEVER_STORED, *errors.RECEIVER_FATAL}))
def test_every_name_is_the_librarys(name: str) -> None:
    assert KafkaError(getattr(KafkaError, name)).name() == name


@pytest.mark.parametrize(
    ("name", "op", "handed_over", "kind"),
    [
        ("_MSG_TIMED_OUT", Op.SEND, True, SendOutcomeUnknown),
        ("_MSG_TIMED_OUT", Op.SEND, False, SendTimeout),
        ("_PURGE_QUEUE", Op.SEND, False, Closed),
        ("_PURGE_INFLIGHT", Op.SEND, True, SendOutcomeUnknown),
        ("_TRANSPORT", Op.SEND, True, SendOutcomeUnknown),
        ("_TRANSPORT", Op.CONNECT, False, ConnectionFailed),
        ("_AUTHENTICATION", Op.CONNECT, False, AuthenticationFailed),
        ("MSG_SIZE_TOO_LARGE", Op.SEND, True, MessageTooLarge),
        ("UNKNOWN_TOPIC_OR_PART", Op.SEND, True, NotFound),
    ],
)
def test_classes(name: str, op: Op, handed_over: bool, kind: type[UnimqError]) -> None:
    fault = ADAPTER.classify(kafka(name), op=op, handed_over=handed_over)
    assert type(fault) is kind
    assert fault.adapter == "kafka"
    assert isinstance(fault.cause, KafkaException)


def test_others() -> None:
    assert isinstance(ADAPTER.classify(BufferError("full"), op=Op.SEND, handed_over=False), ResourceExhausted)
    assert isinstance(
        ADAPTER.classify(RuntimeError("Consumer closed"), op=Op.RECEIVE, handed_over=False), Closed
    )
    try:
        "\ud800".encode()
    except UnicodeEncodeError as error:
        assert isinstance(ADAPTER.classify(error, op=Op.SEND, handed_over=False), InvalidMessage)
    assert isinstance(ADAPTER.classify(TimeoutError(), op=Op.OPEN, handed_over=False), ConnectionFailed)
    ours = NotFound("x")
    assert ADAPTER.classify(ours, op=Op.SEND, handed_over=False) is ours


@pytest.mark.parametrize("error", [kafka("ELECTION_NOT_NEEDED"), ZeroDivisionError("x")])
def test_the_unknown_is_counted(error: Exception) -> None:
    before = errors.unknown_errors.total()
    fault = ADAPTER.classify(error, op=Op.SEND, handed_over=True)
    assert fault.code == "unknown"
    assert fault.may_have_been_sent
    assert errors.unknown_errors.total() == before + 1
