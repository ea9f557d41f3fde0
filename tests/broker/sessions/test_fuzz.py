"""Whatever a client sends, in whatever order: the session answers in the protocol, and nobody else is disturbed.

A 541 would be a fault of ours, so the log must stay empty; malformed properties are the one 541 that RabbitMQ has too.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unimq.wire.amqp091 import content_frames, method_frame
from unimq.wire.amqp091.methods import BY_NAME
from unimq.wire.amqp091.properties import make_properties

from .kit import World

FUZZ_CASES = 1_000 if os.environ.get("UNIMQ_SHORT") else 10_000  # `make proofs` runs all

NAMES = st.sampled_from(["", "q", "r", "ex", "amq.direct", "amq.topic", "amq.rabbitmq.reply-to", "t"])
ARGUMENTS = st.dictionaries(
    st.sampled_from(
        [
            "x-message-ttl",
            "x-max-length",
            "x-queue-type",
            "x-priority",
            "x-dead-letter-exchange",
            "x-match",
            "x-expires",
        ]
    ),
    st.sampled_from([0, 1, 5, -1, "quorum", "classic", "", "all", None, True, 1.5, [], {}]),
    max_size=2,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "octet": st.integers(0, 255),
    "short": st.integers(0, 4),
    "long": st.sampled_from([0, 0, 0, 1]),
    "longlong": st.integers(0, 6),
    "bit": st.booleans(),
    "shortstr": NAMES,
    "longstr": st.binary(max_size=4),
    "table": ARGUMENTS,
}
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "expiration": st.sampled_from(["0", "5", "x", "-1"]),
        "priority": st.integers(0, 255),
        "delivery_mode": st.integers(0, 3),
        "reply_to": st.sampled_from(["amq.rabbitmq.reply-to", "q"]),
        "headers": st.fixed_dictionaries(
            {},
            optional={
                "CC": st.sampled_from([["q"], "q", 1, []]),
                "BCC": st.sampled_from([["r"], None]),
                "x-death": st.sampled_from([[], "x", [{"queue": "q", "reason": "expired"}], 7, [1]]),
            },
        ),
    },
)
# the likely ones often enough to get somewhere
CHOICES = st.one_of(
    st.sampled_from(
        [
            "queue.declare",
            "basic.publish",
            "basic.consume",
            "basic.get",
            "basic.ack",
            "basic.nack",
            "channel.open",
        ]
    ),
    st.sampled_from(sorted(set(BY_NAME) - {"connection.close", "connection.close-ok"})),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    name = draw(CHOICES)
    method = BY_NAME[name]
    args = [draw(FIELDS[kind]) for kind, reserved in method.fields if not reserved]
    channel = draw(st.sampled_from([1, 1, 1, 2, 3, 0]))
    made = method_frame(channel, name, *args)
    if method.content and draw(st.integers(0, 9)):
        made += content_frames(
            channel, make_properties(**draw(PROPERTIES)).raw, draw(st.binary(max_size=9)), 131_072
        )
    return made


@pytest.mark.slow
@settings(max_examples=FUZZ_CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(frames(), min_size=1, max_size=12),
    piece=st.sampled_from([7, 4096]),
    cut=st.integers(0, 40),
)
def test_any_sequence_of_methods(steps: list[bytes], piece: int, cut: int) -> None:
    world = World()
    client, other = world.open(1, 2), world.open(1)
    other.declare("bystander")
    faults: list[str] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            faults.append(self.format(record))

    told = Told(level=logging.ERROR)
    log = logging.getLogger("unimq.broker.amqp")
    log.addHandler(told)
    propagate, log.propagate = log.propagate, False
    try:
        stream = b"".join(steps)
        stream = stream[: len(stream) - cut] if cut < len(stream) else stream
        for pos in range(0, len(stream), piece):
            client.send(stream[pos : pos + piece])
        client.take()
        world.advance(0.01)
        other.take()
        other.publish("bystander", b"still here")
        other.say(1, "basic.get", "bystander", True)
        assert other.take()[-1][2][-1] == b"still here"
        client.gone()
        other.gone()
    finally:
        log.removeHandler(told)
        log.propagate = propagate
    assert faults == []
    held = sum(queue.held_bytes for queue in world.engine.queues)
    assert world.engine.budget.held_bytes == held
    assert world.node.connections == {}
