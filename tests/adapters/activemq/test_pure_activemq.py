"""Names, places, fields, copies and errors of the ActiveMQ adapter: no broker, no client library."""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess
import sys
from typing import Any

import pytest

from unimq import errors as ours
from unimq.address import Queue, Subscription, Topic
from unimq.capabilities import ABSENT, EMULATED, NATIVE
from unimq.driver import ConnectOptions, Copy, Facts, Op
from unimq.errors import UnimqError, Unsupported
from unimq.message import Message
from unimq.retry import Retry
from unimq.url import UrlError, parse
from unimq_activemq import ADAPTER, capabilities, errors, fields, names
from unimq_activemq.adapter import flavour_of
from unimq_activemq.names import ARTEMIS, CLASSIC, Native, Ref

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
FLAVOURS = (CLASSIC, ARTEMIS)

# Stable across versions: a message that waits under a name must be found there by every later release.
GOLDEN = [
    (
        Queue("orders.eu"),
        Native("/queue/orders.eu", None, "orders.eu"),
        Native("orders.eu", "ANYCAST", "orders.eu"),
    ),
    (Queue("a,b*c"), Native("/queue/a%2Cb%2Ac", None, "a%2Cb%2Ac"), Native("a,b%2Ac", "ANYCAST", "a,b%2Ac")),
    (Queue("50%"), Native("/queue/50%25", None, "50%25"), Native("50%25", "ANYCAST", "50%25")),
    (Queue("a::b"), Native("/queue/a::b", None, "a::b"), Native("a%3A%3Ab", "ANYCAST", "a%3A%3Ab")),
    (Queue("x", broker_name="a*"), Native("/queue/a*", None, "a*"), Native("a*", "ANYCAST", "a*")),
    (
        Topic("t.u"),
        Native("/topic/VirtualTopic.t.u", None, "VirtualTopic.t.u"),
        Native("t.u", "MULTICAST", "t.u"),
    ),
    (
        Subscription(Topic("t.u"), "s.v"),
        Native("/queue/Consumer.s%2Ev.VirtualTopic.t.u", None, "Consumer.s%2Ev.VirtualTopic.t.u"),
        Native("t.u::t%2Eu.s%2Ev", "MULTICAST", "t%2Eu.s%2Ev"),
    ),
    (
        Subscription(Topic("t"), "s", broker_name="Consumer.x.VirtualTopic.t"),
        Native("/queue/Consumer.x.VirtualTopic.t", None, "Consumer.x.VirtualTopic.t"),
        Native("t::Consumer.x.VirtualTopic.t", "MULTICAST", "Consumer.x.VirtualTopic.t"),
    ),
    (
        Subscription(Topic("t")),
        Native("/topic/VirtualTopic.t", None, "VirtualTopic.t"),
        Native("t", "MULTICAST", "t"),
    ),
]


@pytest.mark.parametrize(("address", "classic", "artemis"), GOLDEN, ids=[str(entry[0]) for entry in GOLDEN])
def test_golden_names(address: Any, classic: Native, artemis: Native) -> None:
    assert names.native(names.ref_of(address), CLASSIC) == classic
    assert names.native(names.ref_of(address), ARTEMIS) == artemis


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_names_are_one_to_one(flavour: str) -> None:
    parts = ["a", "a.b", "b", "a%2Eb", "%", "a,b", "a*", "a>", "#", "a::b", "a:b", " a", "a ", "ü", "a\nb"]
    for make in (names.escape, names.word):
        made = [make(part, flavour) for part in parts]
        assert len(set(made)) == len(parts)
        assert [names.unescape(name) for name in made] == parts
    pairs = list(itertools.product(parts, parts))
    queues = {names.native(Ref("group", topic, name), flavour).queue for topic, name in pairs}
    dead = {names.dead_ref(Ref("group", topic, name), flavour) for topic, name in pairs}
    assert len(queues) == len(dead) == len(pairs)


def test_plan_goes_back_to_the_own_queue_and_never_nacks() -> None:
    for flavour in FLAVOURS:
        facts = Facts(flavour=flavour)
        for source in (Queue("q"), Subscription(Topic("t"), "s")):
            plan = ADAPTER.plan(source, Retry(), facts)
            assert plan.release == plan.retry(0) == plan.retry(12.5) == plan.replay
            assert plan.retry(3).delay_s is None and not plan.also_read
            assert plan.dead_read[0] == plan.dead_write and plan.dead_write.ref.dead
            assert hash(plan.release.ref) is not None
    dead = [str(place) for place in ADAPTER.plan(Queue("q"), None, Facts(flavour=CLASSIC)).dead_read]
    assert dead == ["q.dlq", "ActiveMQ.DLQ", "DLQ.q"]
    dead = [str(place) for place in ADAPTER.plan(Queue("q"), None, Facts(flavour=ARTEMIS)).dead_read]
    assert dead == ["q.dlq", "DLQ", "ExpiryQueue"]


def test_plan_without_a_scheduler_or_a_queue() -> None:
    plan = ADAPTER.plan(Queue("q"), Retry(), Facts(flavour=CLASSIC, scheduler=False))
    assert plan.retry(0)
    with pytest.raises(Unsupported, match="schedulerSupport"):
        plan.retry(0.1)
    for source in (Topic("t"), Subscription(Topic("t"))):
        plan = ADAPTER.plan(source, Retry(), Facts(flavour=CLASSIC))
        assert plan.dead_write is None
        with pytest.raises(Unsupported):
            plan.retry(1)


def frame(
    message: Message, body: bytes | None, flavour: str = CLASSIC, **more: Any
) -> tuple[dict[str, str], bytes]:
    head = fields.head_of(names.native(Ref("queue", "q"), flavour))
    made = fields.send_frame(
        head, "7", message, body, message.content_type, "id", flavour, NOW, more.get("delay", 0)
    )
    return parsed(made)


def parsed(made: bytes) -> tuple[dict[str, str], bytes]:
    """What stomp.py's rules make of a frame; every header once."""
    assert made.endswith(b"\0")
    start, _, body = made[:-1].partition(b"\n\n")
    lines = start.decode().split("\n")
    assert lines[0] == "SEND"
    pairs = [line.split(":", 1) for line in lines[1:]]
    headers = {unescaped(name): unescaped(value) for name, value in pairs}
    assert len(headers) == len(pairs)
    return headers, body


def unescaped(text: str) -> str:
    out, letters = "", iter(text)
    for letter in letters:
        out += {"n": "\n", "r": "\r", "c": ":", "\\": "\\"}[next(letters)] if letter == "\\" else letter
    return out


def test_a_send_as_headers() -> None:
    message = Message(
        key="k", headers={"i": 1, "x": b"\0", "a:b": "c\nd"}, subject="s", content_type="application/json", priority=3,
        correlation_id="c", reply_to=Queue("r"), ttl_s=1.5, timestamp=NOW,
    )  # fmt: skip
    headers, body = frame(message, b"{}", ARTEMIS, delay=250)
    ms = fields.millis(NOW)
    assert body == b"{}"
    assert headers == {
        "destination": "q", "destination-type": "ANYCAST", "persistent": "true", "receipt": "7", "unimq_message_id": "id",
        "_AMQ_DUPL_ID": "id", "content-type": "application/json", "i": "1", "x": "AA==", "a:b": "c\nd",
        "unimq_types": "i=i;x=x", "JMSXGroupID": "k", "unimq_key": "k", "unimq_subject": "s", "correlation-id": "c",
        "reply-to": "r", "unimq_reply_to": "queue:r", "priority": "3", "expires": str(ms + 1500),
        "unimq_timestamp": str(ms), "AMQ_SCHEDULED_DELAY": "250",
    }  # fmt: skip
    assert frame(message, b"{}")[0]["reply-to"] == "/queue/r"
    read = fields.read(headers)
    assert (read.headers, read.key, read.subject) == ({"i": 1, "x": b"\0", "a:b": "c\nd"}, "k", "s")
    assert (read.message_id, read.reply_to, read.priority, read.timestamp) == ("id", Queue("r"), 3, NOW)
    assert read.expires_at == NOW + dt.timedelta(seconds=1.5)


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"{}", "application/json", True),
        ("ü".encode(), "text/plain; charset=utf-8", True),
        (b"{}", "application/x+json", True),
        (b"a\0b", "text/plain", False),
        (b"\xff", "text/plain", False),
        (b"{}", None, False),
        (b"{}", "application/octet-stream", False),
        (b"", None, False),
    ],
)
def test_text_goes_without_a_length(body: bytes, content_type: str | None, text: bool) -> None:
    headers, sent = frame(Message(content_type=content_type), body)
    assert sent == body and ("content-length" not in headers) == text
    assert text or headers["content-length"] == str(len(body))
    assert "unimq_null" not in headers


def test_a_tombstone() -> None:
    headers, sent = frame(Message(), None)
    assert headers["unimq_null"] == "1" and sent == b""


@pytest.mark.parametrize(
    "name", ["destination", "receipt", "expires", "JMSXGroupID", "_AMQ_DUPL_ID", "AMQ_SCHEDULED_DELAY", "a\0"]
)
def test_names_that_are_not_the_users(name: str) -> None:
    with pytest.raises(ours.InvalidMessage):
        frame(Message(headers={name: "x"}), b"")


class Raw:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers, self.body = headers, b"body"


def copied(
    raw: dict[str, str], flavour: str, *, dead: bool = False, group: str | None = None, **copy: Any
) -> dict[str, str]:
    delivery = fields.StompDelivery(Raw(raw), b"body", "t", None, None)  # type: ignore[arg-type]
    head = fields.head_of(names.native(Ref("queue", "q"), flavour))
    made = fields.copy_frame(
        head,
        "7",
        Copy(delivery, "o#1", copy.pop("set_headers", {}), **copy),
        flavour,
        NOW,
        dead=dead,
        group=group,
    )
    return parsed(made)[0]


RAW = {
    "subscription": "s", "message-id": "m", "ack": "a", "destination": "/queue/x", "destination-type": "ANYCAST", "receipt": "1",
    "redelivered": "true", "timestamp": "1767322000000", "expires": "1767400000000", "priority": "8", "persistent": "true",
    "scheduledJobId": "j", "AMQ_SCHEDULED_DELAY": "5", "_AMQ_SCHED_DELIVERY": "6", "_AMQ_ORIG_QUEUE": "o", "_AMQ_DUPL_ID": "o",
    "_AMQ_GROUP_ID": "g", "unimq_message_id": "o", "unimq_attempt": "1", "user": "1", "unimq_types": "user=i;unimq-attempt=i",
    "reply-to": "r", "correlation-id": "c", "dlqDeliveryFailureCause": "x", "original-destination": "y",
}  # fmt: skip


def test_a_copy_keeps_the_message_and_strips_its_journey() -> None:
    made = copied(RAW, ARTEMIS, set_headers={"unimq-attempt": 2, "unimq-reason": "x"}, delay_s=1.5)
    assert made == {
        "destination": "q", "destination-type": "ANYCAST", "persistent": "true", "receipt": "7", "_AMQ_DUPL_ID": "o#1",
        "JMSXGroupID": "g", "unimq_message_id": "o", "unimq_attempt": "2", "unimq_reason": "x", "user": "1",
        "unimq_types": "user=i;unimq-attempt=i", "reply-to": "r", "correlation-id": "c", "priority": "8",
        "expires": "1767400000000", "unimq_timestamp": "1767322000000", "AMQ_SCHEDULED_DELAY": "1500", "content-length": "4",
    }  # fmt: skip
    assert "content-length" not in copied(RAW, CLASSIC)  # there a text has none
    assert "_AMQ_DUPL_ID" not in copied(RAW, CLASSIC)
    assert "expires" not in copied(RAW, CLASSIC, dead=True)
    assert copied(RAW, CLASSIC, ttl_s=2.0)["expires"] == str(fields.millis(NOW) + 2000)
    dropped = copied(RAW, CLASSIC, drop_headers=frozenset({"unimq-attempt", "user"}))
    assert not {"unimq_attempt", "user", "unimq_types"} & set(dropped)


def test_two_groups_copies_of_one_message_are_no_duplicates() -> None:
    ids = {copied(RAW, ARTEMIS, group=group)["_AMQ_DUPL_ID"] for group in ("t.a", "t.b")}
    assert ids == {"o#1@t.a", "o#1@t.b"}


def test_what_the_broker_wrote_about_a_death() -> None:
    cause = {
        "dlqDeliveryFailureCause": "java.lang.Throwable: Message Expired. Expiration:1",
        "original-destination": "/queue/q",
    }
    death = fields.native_death(cause)
    assert death is not None and death.reason == "expired" and "/queue/q" in death.description
    death = fields.native_death({"_AMQ_ORIG_QUEUE": "q", "_AMQ_ACTUAL_EXPIRY": "1767322000000"})
    assert death is not None and (death.reason, death.at) == (
        "expired",
        dt.datetime(2026, 1, 2, 2, 46, 40, tzinfo=dt.UTC),
    )
    death = fields.native_death({"_AMQ_ORIG_QUEUE": "q"})
    assert death is not None and death.reason == "max-delivery"
    assert fields.native_death({}) is None


def refused(text: str) -> errors.StompError:
    return errors.StompError(text, connecting=True)


@pytest.mark.parametrize(
    ("error", "op", "handed_over", "kind", "retryable"),
    [
        (refused("User name [x] or password is invalid."), Op.CONNECT, False, ours.AuthenticationFailed, False),
        (refused("Security Error occurred: …"), Op.CONNECT, False, ours.AuthenticationFailed, False),
        (errors.StompError("Security Error occurred: …"), Op.SEND, True, ours.PermissionDenied, False),
        (errors.StompError("User x is not authorized to write to: q"), Op.SEND, True, ours.PermissionDenied, False),
        (errors.StompError("AMQ229102: Address q is full"), Op.SEND, True, ours.ResourceExhausted, True),
        (errors.StompError("The maximum data length was exceeded"), Op.SEND, True, ours.MessageTooLarge, False),
        (errors.StompError("something new"), Op.SEND, True, ours.Rejected, False),
        (errors.NoReceipt("x"), Op.SEND, True, ours.SendOutcomeUnknown, True),
        (ConnectionResetError("x"), Op.SEND, True, ours.SendOutcomeUnknown, True),
        (ConnectionResetError("x"), Op.SEND, False, ours.ConnectionFailed, True),
        (errors.PeerSilent("x"), Op.RECEIVE, False, ours.ConnectionFailed, True),
        (errors.DeadlinePassed("x"), Op.SEND, False, ours.SendTimeout, True),
        (errors.NotActiveMQ("RabbitMQ"), Op.CONNECT, False, ours.Unsupported, False),
        (ours.Closed("x"), Op.SEND, False, ours.Closed, False),
    ],
)  # fmt: skip
def test_classify(
    error: Exception, op: Op, handed_over: bool, kind: type[UnimqError], retryable: bool
) -> None:
    fault = ADAPTER.classify(error, op=op, handed_over=handed_over)
    assert type(fault) is kind and fault.retryable is retryable
    assert fault.may_have_been_sent == (kind is ours.SendOutcomeUnknown)


def test_what_is_not_known_is_said_to_be() -> None:
    fault = ADAPTER.classify(ZeroDivisionError("x"), op=Op.SETTLE, handed_over=True)
    assert fault.code == "unknown" and fault.may_have_been_sent
    assert ADAPTER.classify(errors.StompError("new"), op=Op.OPEN, handed_over=False).code == "unknown"


def test_flavour_is_never_guessed() -> None:
    assert flavour_of("ActiveMQ/6.1.6") == (CLASSIC, "6.1.6")
    assert flavour_of("ActiveMQ-Artemis/2.40.0 ActiveMQ Artemis Messaging Engine") == (ARTEMIS, "2.40.0")
    for server in ("RabbitMQ/3.10.8", ""):
        with pytest.raises(errors.NotActiveMQ):
            flavour_of(server)


def test_capabilities_by_flavour() -> None:
    classic, artemis = capabilities.found(CLASSIC, "6.1.6", None), capabilities.found(ARTEMIS, "2.40.0", 5)
    assert (classic.dedup, artemis.dedup) == (ABSENT, NATIVE)
    assert (classic.browse, artemis.browse) == (NATIVE, EMULATED)
    assert artemis.max_message_bytes == 5 and artemis.found == "ActiveMQ Artemis 2.40.0"
    assert capabilities.without_scheduler(classic).send_delay is ABSENT


@pytest.mark.parametrize(
    "url", ["stomp://h?nope=1", "stomp://h?max_message_bytes=x", "stomp://", "stomp://h?ca=x"]
)
def test_a_wrong_url_is_refused_before_any_io(url: str) -> None:
    with pytest.raises(UrlError):
        ADAPTER.connect(parse(url), ConnectOptions(), lambda event: None)


def test_no_client_library_at_import() -> None:
    code = "import sys, unimq_activemq as a; a.ADAPTER.capabilities; sys.exit('stomp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, timeout=30)
    assert done.returncode == 0
