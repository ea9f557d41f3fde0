"""Plans are pure; errors are told apart by class, code and text."""

from __future__ import annotations

import socket
import subprocess
import sys

import pika.exceptions as px
import pytest
from pika.adapters.utils import connection_workflow as cw

from unimq import Queue, Retry, Subscription, Topic
from unimq import errors as ours
from unimq.driver import NATIVE, Facts, Op, Place
from unimq_rabbitmq import ADAPTER, errors


def classify(error: BaseException, op: Op = Op.RECEIVE, handed_over: bool = False) -> ours.UnimqError:
    return ADAPTER.classify(error, op=op, handed_over=handed_over)


# ------------------------------------------------------------------------------------------------------------ plans
def test_a_queues_plan() -> None:
    plan = ADAPTER.plan(Queue("q"), Retry(delayed_s=(0.7, 30)), Facts())
    assert plan.release is NATIVE
    assert [str(plan.retry(s)) for s in (0, 0.3, 0.6, 0.7, 0.8, 30, 31)] == [
        "q", "q.retry.500", "q.retry.700", "q.retry.700", "q.retry.1000", "q.retry.30000", "q.retry.60000",
    ]  # fmt: skip
    assert isinstance(plan.dead_write, Place)
    assert plan.dead_write.text == "q.dlq"
    assert plan.also_read == ()
    assert [ref.queue for ref in plan.topology[0].places] == ["q.dlq", "q.retry.700", "q.retry.30000"]
    assert plan.delay is not None
    assert plan.delay(4).text == "q.retry.5000"
    with pytest.raises(ours.Unsupported):
        plan.retry(8 * 86400)


def test_a_topics_delayed_send_keeps_the_subject() -> None:
    plan = ADAPTER.plan(Topic("t"), None, Facts())
    assert plan.delay is not None
    ref = plan.delay(0.15).ref
    assert (ref.exchange, ref.queue, ref.back_to) == ("t.delay.200", "t.delay.200", "t")


def test_without_a_policy_nothing_of_it_is_made() -> None:
    assert ADAPTER.plan(Queue("q"), None, Facts()).topology[0].places == ()


def test_a_private_subscription_has_no_places() -> None:
    plan = ADAPTER.plan(Subscription(Topic("t")), Retry(delayed_s=()), Facts())
    assert plan.dead_write is None
    with pytest.raises(ours.Unsupported, match="name"):
        plan.retry(1)


def test_the_package_does_not_need_pika() -> None:
    code = "import sys; import unimq_rabbitmq; assert 'pika' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=30
    )


# ----------------------------------------------------------------------------------------------------------- errors
def wrapped(error: Exception) -> Exception:
    phase = cw.AMQPConnectorAMQPHandshakeError(error)
    return px.AMQPConnectionError(cw.AMQPConnectionWorkflowFailed([phase]))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (px.ProbableAuthenticationError("x"), ours.AuthenticationFailed),
        (wrapped(px.ProbableAuthenticationError("x")), ours.AuthenticationFailed),
        (px.AuthenticationError("x"), ours.AuthenticationFailed),
        (px.ProbableAccessDeniedError("refused"), ours.PermissionDenied),
        (px.ProbableAccessDeniedError("vhost nowhere not found"), ours.NotFound),
        (px.StreamLostError("x"), ours.ConnectionFailed),
        (px.AMQPHeartbeatTimeout("x"), ours.ConnectionFailed),
        (px.ConnectionBlockedTimeout("x"), ours.ResourceExhausted),
        (px.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), ours.ConnectionFailed),
        (px.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'x'"), ours.NotFound),
        (px.ChannelClosedByBroker(403, "ACCESS_REFUSED - write access"), ours.PermissionDenied),
        (px.ChannelClosedByBroker(405, "RESOURCE_LOCKED"), ours.ResourceExhausted),
        (px.ChannelClosedByBroker(406, "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"),
         ours.MessageTooLarge),
        (px.ConsumerCancelled("x"), ours.NotFound),
        (px.ShortStringTooLong(b"x"), ours.InvalidMessage),
        (socket.gaierror("no such host"), ours.ConnectionFailed),
        (ConnectionRefusedError(), ours.ConnectionFailed),
    ],
)  # fmt: skip
def test_classes(error: Exception, kind: type[ours.UnimqError]) -> None:
    fault = classify(error)
    assert type(fault) is kind
    assert fault.cause is not None


def test_a_wrong_password_is_permanent_and_a_lost_stream_is_not() -> None:
    assert not classify(wrapped(px.ProbableAuthenticationError("x"))).retryable
    assert classify(px.StreamLostError("x")).retryable


@pytest.mark.parametrize(
    "guess", [px.ProbableAuthenticationError, px.ProbableAccessDeniedError, px.IncompatibleProtocolError]
)
def test_a_line_that_breaks_while_a_link_opens_is_tried_again(guess: type[Exception]) -> None:
    """A broker that is killed in the handshake of a link's own connection: the link must come back."""
    for line in (px.StreamLostError("reset"), px.StreamLostError("Transport indicated EOF")):
        fault = classify(guess(repr(line)), Op.OPEN)
        assert type(fault) is ours.ConnectionFailed
        assert fault.retryable


def test_the_write_makes_the_difference() -> None:
    lost = px.StreamLostError("x")
    assert type(classify(lost, Op.SEND, True)) is ours.SendOutcomeUnknown
    before = classify(lost, Op.SEND, False)
    assert type(before) is ours.ConnectionFailed
    assert not before.may_have_been_sent


def test_a_missing_exchange_is_unroutable_for_a_send() -> None:
    fault = classify(px.ChannelClosedByBroker(404, "NOT_FOUND - no exchange 't'"), Op.SEND, True)
    assert type(fault) is ours.Unroutable
    assert "mq.declare" in str(fault)


def test_406_is_told_apart_by_text() -> None:
    slow = classify(
        px.ChannelClosedByBroker(
            406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out."
        )
    )
    assert (slow.code, slow.retryable) == ("consumer-timeout", True)
    tag = classify(px.ChannelClosedByBroker(406, "PRECONDITION_FAILED - unknown delivery tag 9"))
    assert tag.code == "unknown-delivery-tag"


@pytest.mark.parametrize(
    ("said", "there", "asked"),
    [
        (
            "received the value '2000' of type 'signedint' but current is the value '1000' of type 'signedint'",
            1000,
            2000,
        ),
        ("received '2000' but current is '1000'", 1000, 2000),
        ("received none but current is the value '1000' of type 'signedint'", 1000, None),
        ("received the value 'quorum' of type 'longstr' but current is none", None, "quorum"),
    ],
)
def test_differences_are_read(said: str, there: object, asked: object) -> None:
    text = f"PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': {said}"
    error = px.ChannelClosedByBroker(406, text)
    assert errors.inequivalent(error) == ("queue", "q", "x-message-ttl", there, asked)
    assert type(classify(error)) is ours.TopologyMismatch


def test_the_unknown_is_counted() -> None:
    before = errors.unknown["KeyError"]
    assert classify(KeyError("x")).code == "unknown"
    assert errors.unknown["KeyError"] == before + 1
