"""Queue arguments: what is refused, in RabbitMQ's words, and what makes two declarations differ."""

from __future__ import annotations

from typing import Any

import pytest

from unimq.broker.engine.dialect import DIALECT_4
from unimq.broker.engine.errors import AmqpError
from unimq.wire.amqp091.table import Int8, Int16, Int64

from .amqp_kit import Reader, queue, quorum, refused, vhost

Q = "queue 'q' in vhost '/'"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"x-message-ttl": "5"}, "invalid arg 'x-message-ttl' for {}: \"expected integer, got longstr\""),
        ({"x-message-ttl": -1}, "invalid arg 'x-message-ttl' for {}: {value_negative,-1}"),
        ({"x-message-ttl": 315_360_000_001}, "invalid arg 'x-message-ttl' for {}: {value_too_large,315360000001}"),
        ({"x-expires": 0}, "invalid arg 'x-expires' for {}: {value_zero,0}"),
        ({"x-expires": True}, "invalid arg 'x-expires' for {}: \"expected integer, got bool\""),
        ({"x-dead-letter-exchange": 5}, "invalid type 'signedint' for arg 'x-dead-letter-exchange' in {}"),
        (
            {"x-dead-letter-routing-key": "k"},
            "invalid arg 'x-dead-letter-routing-key' for {}: routing_key_but_no_dlx_defined",
        ),
        ({"x-max-priority": 256}, "invalid arg 'x-max-priority' for {}: {max_value_exceeded,256}"),
        ({"x-overflow": "sideways"}, "invalid arg 'x-overflow' for {}: invalid_overflow"),
        ({"x-queue-type": "fast"}, "invalid arg 'x-queue-type' for {}: \"unsupported queue type 'fast'\""),
        ({"x-queue-type": "stream"}, "invalid arg 'x-queue-type' for {}: \"unsupported queue type 'stream'\""),
        ({"x-single-active-consumer": "yes"}, "invalid arg 'x-single-active-consumer' for {}: {unacceptable_type,longstr}"),
        ({"x-delivery-limit": 3}, "invalid arg 'x-delivery-limit' for {} of queue type rabbit_classic_queue"),
        ({"x-max-age": "1h"}, "invalid arg 'x-max-age' for {} of queue type rabbit_classic_queue"),
        (
            {"x-queue-type": "quorum", "x-max-priority": 3},
            "invalid arg 'x-max-priority' for {} of queue type rabbit_quorum_queue",
        ),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, Any], wrong: str) -> None:
    on, _ = vhost()
    with refused(406, wrong.replace("{}", Q, 1)):
        queue(on, "q", arguments, durable=True)
    assert not on.queues
    assert not on.engine.queues


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        ({"durable": False}, "non-durable"),
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
    ],
)
def test_what_a_quorum_queue_cannot_be(flags: dict[str, bool], wrong: str) -> None:
    on, _ = vhost()
    with refused(406, f"invalid property '{wrong}' for {Q}"):
        on.declare_queue("q", arguments={"x-queue-type": "quorum"}, **flags)


def test_equivalence_has_two_shapes_and_ignores_what_no_queue_knows() -> None:
    on, _ = vhost()
    there = queue(on, "q", {"x-message-ttl": 1000, "x-unknown": 1, "x-max-length": Int16(5)})
    same = {"x-message-ttl": Int16(1000), "x-unknown": 2, "x-max-length": Int8(5), "x-queue-type": "classic"}
    assert queue(on, "q", same) is there
    with refused(406, f"inequivalent arg 'x-message-ttl' for {Q}: received '2000' but current is '1000'"):
        queue(on, "q", {**same, "x-message-ttl": 2000})
    current = "the value '1000' of type 'signedint'"
    with refused(406, f"inequivalent arg 'x-message-ttl' for {Q}: received none but current is {current}"):
        queue(on, "q")
    asked = "the value '7' of type 'long'"
    with refused(406, f"inequivalent arg 'x-expires' for {Q}: received {asked} but current is none"):
        queue(on, "q", {**same, "x-expires": Int64(7)})
    with refused(406, f"inequivalent arg 'durable' for {Q}: received 'true' but current is 'false'"):
        queue(on, "q", durable=True)
    with refused(
        406,
        f"inequivalent arg 'x-queue-type' for {Q}: received the value 'quorum' of type 'longstr' but current is none",
    ):
        queue(on, "q", {"x-message-ttl": 1000, "x-max-length": 5, "x-queue-type": "quorum"})


def test_names() -> None:
    on, _ = vhost()
    assert on.declare_queue("").name.startswith("amq.gen-")
    assert on.declare_queue("a\r\nb").name == "ab"
    with refused(403, "queue name 'amq.mine' contains reserved prefix 'amq.*'"):
        queue(on, "amq.mine")
    with refused(406, "Cannot declare a server-named queue for type rabbit_quorum_queue"):
        quorum(on, "")


def test_exclusive_is_one_connections() -> None:
    on, _ = vhost()
    mine = on.declare_queue("q", exclusive=True, durable=True, connection="me")
    assert not mine.durable
    text = (
        f"cannot obtain exclusive access to locked {Q}. It could be originally declared on another connection or "
        "the exclusive property value does not match that of the original declaration."
    )
    for attempt in (
        lambda: on.declare_queue("q", exclusive=True, connection="you"),
        lambda: on.declare_queue("q", connection="me"),
        lambda: on.find_queue("q", connection="you"),
        lambda: on.get("q", "c", connection="you"),
        lambda: on.consume("q", Reader(), connection="you"),
        lambda: on.purge_queue("q", connection="you"),
        lambda: on.delete_queue("q", connection="you"),
        lambda: on.bind_queue("q", "amq.topic", "k", connection="you"),
    ):
        with refused(405, text):
            attempt()
    on.drop_connection("you")
    assert "q" in on.queues
    on.drop_connection("me")
    assert "q" not in on.queues
    assert not on.engine.queues


def test_delete_and_its_conditions() -> None:
    on, _ = vhost()
    assert on.delete_queue("never was") == 0
    queue(on)
    reader = Reader()
    on.consume("q", reader)
    with refused(406, f"{Q} in use"):
        on.delete_queue("q", if_unused=True)
    assert on.delete_queue("q") == 0
    assert reader.was_cancelled
    quorum(on)
    with refused(
        540,
        f"cannot delete {Q}. queue.delete operations with if-empty flag set are not supported by quorum queues",
    ):
        on.delete_queue("q", if_empty=True)


def test_dialect_4_refuses_transient_queues() -> None:
    on, _ = vhost(DIALECT_4)
    with pytest.raises(AmqpError):
        queue(on)
    queue(on, durable=True)
    on.declare_queue("mine", exclusive=True, connection="me")
    assert quorum(on, "limited").spec.delivery_limit == 20
