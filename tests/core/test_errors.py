"""Errors: typed, picklable, and without secrets."""

import pickle

import pytest

import unimq
from unimq import errors
from unimq.errors import CauseText, SettlementLost, UnimqError, redact

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UnimqError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_pickles_with_its_fields(kind: type[UnimqError]) -> None:
    error = kind("it failed", adapter="x", cause=ValueError("why"), message=unimq.Message(b"b", key="k"))
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == "it failed"
    assert (back.code, back.retryable, back.may_have_been_sent) == (
        error.code,
        error.retryable,
        error.may_have_been_sent,
    )
    assert back.adapter == "x"
    assert isinstance(back.cause, ValueError)
    assert back.message == unimq.Message(b"b", key="k")


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in ALL]
    assert len(codes) == len(set(codes))


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("raw")
        self.lock = lambda: None


def test_a_cause_that_cannot_travel_becomes_its_text() -> None:
    back = pickle.loads(pickle.dumps(UnimqError("x", cause=Unpicklable())))
    assert isinstance(back.cause, CauseText)
    assert "raw" in str(back.cause)


def test_lost_deliveries_stay_in_their_process() -> None:
    back = pickle.loads(pickle.dumps(SettlementLost("x", deliveries=[object()])))  # type: ignore[list-item]
    assert back.deliveries == []


@pytest.mark.parametrize(
    "text",
    [
        "amqp://guest:s3cret@host/v",
        "cannot reach kafkas://u:s3cret@a:1,b:2",
        "Endpoint=sb://x/;SharedAccessKeyName=k;SharedAccessKey=s3cret;EntityPath=q",
        "password='s3cret'",
        "amqp://user:s3cret@h1,user2:s3cret@h2",
    ],
)
def test_secrets_do_not_show(text: str) -> None:
    assert "s3cret" not in redact(text)
    assert "s3cret" not in str(UnimqError(text))
    assert "s3cret" not in repr(UnimqError(text))


def test_builtin_bases() -> None:
    assert issubclass(unimq.ConnectionFailed, ConnectionError)
    assert issubclass(unimq.SendTimeout, TimeoutError)
    assert issubclass(unimq.RequestTimeout, TimeoutError)


def test_one_messages_own_error_keeps_the_cause() -> None:
    shared = unimq.Rejected("no", cause=ValueError("raw"))
    own = shared.for_message(unimq.Message(b"m"))
    assert own is not shared
    assert own.cause is shared.cause
    assert own.__cause__ is shared.cause
    assert own.message == unimq.Message(b"m")
    assert shared.message is None
