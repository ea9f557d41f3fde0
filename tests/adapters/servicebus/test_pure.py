"""Names, plan, classify: no broker, no stub."""

from __future__ import annotations

import itertools

import pytest

from tests.adapters.servicebus.stub import amqp_error
from unimq.address import Queue, Subscription, Topic
from unimq.driver import NATIVE, Facts, Op
from unimq.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    InvalidMessage,
    LockLost,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    Rejected,
    ResourceExhausted,
    SendOutcomeUnknown,
    TopologyMismatch,
    UnimqError,
    Unroutable,
    Unsupported,
)
from unimq.retry import Retry
from unimq_servicebus import ADAPTER, errors, names

NAMES = [
    "orders", "orders.eu", "Orders", "a/b", "a_b-c", "é", "a b", "xu--2a", "XU--2a", "xu--", "xu--zz", "xxu--41u--41",
    "/a", "a/", "a//b", ".a", "-a", "a_", "_", "$x", "a$DeadLetterQueue", "t/Subscriptions/s", "a*?#@b", "\ud800", "日本",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_one_to_one_and_acceptable(name: str) -> None:
    text = names.escape(name)
    assert names.unescape(text) == name
    assert all(c in names._PLAIN or c == "/" for c in text)
    assert text[0].isalnum()
    assert text[-1].isalnum()
    assert "//" not in text
    assert "/subscriptions/" not in text.casefold()


def test_accepted_names_are_kept_and_all_differ() -> None:
    for name in ("orders", "orders.eu", "a/b", "a_b-c", "xu--zz"):
        assert names.queue_entity(Queue(name)).path == name
    assert len({names.escape(name) for name in NAMES}) == len(NAMES)
    assert names.queue_entity(Queue("A")).key == names.queue_entity(Queue("a")).key, "the broker has no case"
    assert names.queue_entity(Queue("x", broker_name="$verbatim")).path == "$verbatim"


def test_retry_queues_differ_where_topic_and_subscription_do() -> None:
    pairs = list(itertools.product(["a", "a.b", "a.b.c", "b"], ["c", "b.c", "c.d", "x/y"]))
    made = {names.retry_entity(Subscription(Topic(t), s), sessions=False).name for t, s in pairs}
    assert len(made) == len(pairs)
    assert names.retry_entity(Subscription(Topic("t"), "s"), sessions=False).name == "t.s.retry"


def test_too_long_a_name_is_refused() -> None:
    with pytest.raises(Unsupported, match="260"):
        names.queue_entity(Queue("q" * 261))
    with pytest.raises(Unsupported, match="without a name"):
        names.subscription_entity(Subscription(Topic("t")))


def test_plan_of_a_queue() -> None:
    plan = ADAPTER.plan(Queue("q"), Retry(), Facts())
    assert plan.release is NATIVE
    assert plan.dead_write is NATIVE
    assert [place.text for place in plan.dead_read] == ["q/$DeadLetterQueue"]
    assert plan.retry(0.0).text == plan.retry(1e6).text == "q"
    assert plan.retry(5.0).delay_s is None
    assert not plan.also_read
    assert plan.replay is not None
    assert plan.replay.text == "q"


def test_plan_of_a_subscription() -> None:
    plan = ADAPTER.plan(Subscription(Topic("t"), "s", ordered=True), Retry(), Facts())
    assert plan.retry(5.0).text == "t.s.retry"
    assert [place.text for place in plan.also_read] == ["t.s.retry"]
    assert [place.text for place in plan.dead_read] == [
        "t/Subscriptions/s/$DeadLetterQueue", "t.s.retry/$DeadLetterQueue",
    ]  # fmt: skip
    assert plan.retry(1.0).ref.sessions, "sessions where the source has them"
    assert plan.topology[0].places == (plan.retry(1.0),)


def test_plan_of_a_topic() -> None:
    with pytest.raises(Unsupported):
        ADAPTER.plan(Topic("t"), Retry(), Facts()).retry(1.0)


def test_places_are_hashable() -> None:
    plan = ADAPTER.plan(Queue("q"), None, Facts())
    assert len({plan.retry(1.0), plan.retry(2.0), plan.dead_read[0]}) == 2


TABLE = [
    ("amqp:link:message-size-exceeded", Op.SEND, True, MessageTooLarge, False),
    ("amqp:not-found", Op.SEND, True, Unroutable, False),
    ("amqp:not-found", Op.OPEN, False, NotFound, False),
    ("amqp:not-allowed", Op.SEND, True, Rejected, False),
    ("amqp:not-allowed", Op.OPEN, False, TopologyMismatch, False),
    ("amqp:unauthorized-access", Op.OPEN, False, PermissionDenied, False),
    ("com.microsoft:auth-failed", Op.OPEN, False, AuthenticationFailed, False),
    ("com.microsoft:server-busy", Op.SEND, True, ResourceExhausted, False),
    ("com.microsoft:message-lock-lost", Op.SETTLE, True, LockLost, False),
    ("com.microsoft:session-lock-lost", Op.RECEIVE, False, LockLost, False),
    ("com.microsoft:timeout", Op.SEND, True, SendOutcomeUnknown, True),
    ("amqp:link:detach-forced", Op.SEND, True, SendOutcomeUnknown, True),
    ("amqp:link:detach-forced", Op.SEND, False, ConnectionFailed, False),
    ("amqp:link:detach-forced", Op.RECEIVE, False, ConnectionFailed, False),
]


@pytest.mark.parametrize(("condition", "op", "handed_over", "kind", "may"), TABLE)
def test_the_condition_decides(condition: str, op: Op, handed_over: bool, kind: type, may: bool) -> None:
    error = amqp_error(condition)
    fault = ADAPTER.classify(error, op=op, handed_over=handed_over)
    assert type(fault) is kind
    assert fault.may_have_been_sent is may
    assert fault.cause is error
    assert fault.adapter == "servicebus"


def test_other_errors() -> None:
    def kind(error: BaseException, op: Op = Op.SEND, handed_over: bool = True) -> type:
        return type(ADAPTER.classify(error, op=op, handed_over=handed_over))

    assert kind(ConnectionRefusedError()) is SendOutcomeUnknown
    assert kind(ConnectionRefusedError(), Op.CONNECT, False) is ConnectionFailed
    assert kind(TimeoutError(), Op.OPEN, False) is ConnectionFailed
    assert kind(ValueError("Value supplied for int invalid")) is InvalidMessage
    ours = Rejected("no")
    assert ADAPTER.classify(ours, op=Op.SEND, handed_over=False) is ours


def test_what_is_in_no_table_is_counted() -> None:
    before = errors.UNKNOWN["amqp:something-new"]
    for _ in range(2):
        fault = ADAPTER.classify(amqp_error("amqp:something-new"), op=Op.SEND, handed_over=True)
    assert type(fault) is UnimqError
    assert fault.code == "unknown"
    assert fault.may_have_been_sent
    assert errors.UNKNOWN["amqp:something-new"] == before + 2


def test_the_tables_name_real_classes() -> None:
    import azure.core.exceptions as core
    import azure.servicebus.exceptions as library

    for name in errors.CLASSES:
        assert hasattr(library, name) or hasattr(core, name), name
