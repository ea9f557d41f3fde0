"""The decoder: any pieces, bounded memory, malformed input answered with the protocol's codes."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unimq.wire.amqp091 import Decoder, WireError, content_frames, deliver_frames, method_frame
from unimq.wire.amqp091.decoder import HEARTBEAT, PROTOCOL_HEADER, TOO_LARGE, Event
from unimq.wire.amqp091.errors import CODES
from unimq.wire.amqp091.spec import HEARTBEAT_FRAME
from unimq.wire.amqp091.spec import PROTOCOL_HEADER as HEADER

FUZZ_CASES = 1_000 if os.environ.get("UNIMQ_SHORT") else 10_000  # `make proofs` runs all

PROPERTIES = b"\x00\x00"


def decoder(frame_max: int = 4096) -> Decoder:
    made = Decoder(expect_protocol_header=False)
    made.frame_max = frame_max
    made.channels = {1, 2}
    return made


def frame(kind: int, channel: int, payload: bytes, end: int = 0xCE) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes((end,))


def publish(body: bytes, channel: int = 1, frame_max: int = 4096, key: str = "k") -> bytes:
    method = method_frame(channel, "basic.publish", "ex", key, True, False)
    return method + content_frames(channel, PROPERTIES, body, frame_max)


def code_of(data: bytes, made: Decoder | None = None) -> tuple[int, list[Event]]:
    """The error's code (0: none) and what came before it."""
    before: list[Event] = []
    try:
        before.extend((made or decoder()).feed(data))
    except WireError as error:
        return error.code, before
    return 0, before


SAMPLES = [
    method_frame(1, "queue.declare", "q", False, True, False, False, False, {"x-max-length": 3}),
    publish(b"hello"),
    publish(b"", channel=2),
    publish(b"y" * 9000, key="long"),
    HEARTBEAT_FRAME,
    method_frame(2, "basic.ack", 7, True),
    deliver_frames(1, "tag", 9, True, "ex", "k", PROPERTIES, b"d" * 5000, 4096),
]
EXPECTED = [event for sample in SAMPLES for event in decoder().feed(sample)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=200))
def test_any_pieces_give_the_same_events(sizes: list[int]) -> None:
    stream = b"".join(SAMPLES)
    made = decoder()
    events: list[Event] = []
    pos = turn = 0
    while pos < len(stream):
        size = sizes[turn % len(sizes)]
        events += made.feed(stream[pos : pos + size])
        pos, turn = pos + size, turn + 1
    assert events == EXPECTED


def test_the_protocol_header_comes_first() -> None:
    made = Decoder()
    assert list(made.feed(HEADER[:3])) == []
    assert list(made.feed(HEADER[3:] + HEARTBEAT_FRAME)) == [
        (0, PROTOCOL_HEADER, (HEADER,)),
        (0, HEARTBEAT, ()),
    ]


CONTENT = struct.Struct(">HHQ")
BAD: dict[str, tuple[bytes, int]] = {
    "end mark": (frame(1, 1, b"\x00\x14\x00\x0a\x00", end=0), 501),
    "frame type": (frame(9, 1, b"abc"), 501),
    "too large": (struct.pack(">BHI", 3, 1, 5000), 501),
    "method cut off": (frame(1, 1, b"\x00"), 501),
    "unknown class": (frame(1, 1, b"\x00\x63\x00\x0a"), 540),
    "unknown method": (frame(1, 1, b"\x00\x3c\x00\x63"), 540),
    "trailing bytes": (frame(1, 1, b"\x00\x3c\x00\x50" + b"\x00" * 10), 501),
    "heartbeat with a payload": (frame(8, 0, b"x"), 501),
    "heartbeat on a channel": (frame(8, 1, b""), 505),
    "header without method": (frame(2, 1, CONTENT.pack(60, 0, 1) + PROPERTIES), 505),
    "body without method": (frame(3, 1, b"x"), 505),
    "body without header": (
        publish(b"")[: -len(content_frames(1, PROPERTIES, b"", 0))] + frame(3, 1, b"x"),
        505,
    ),
    "header of another class": (
        method_frame(1, "basic.publish", "", "k", False, False)
        + frame(2, 1, CONTENT.pack(50, 0, 1) + PROPERTIES),
        505,
    ),
    "header with a weight": (
        method_frame(1, "basic.publish", "", "k", False, False)
        + frame(2, 1, CONTENT.pack(60, 1, 1) + PROPERTIES),
        505,
    ),
    "header cut off": (
        method_frame(1, "basic.publish", "", "k", False, False) + frame(2, 1, b"\x00\x3c"),
        501,
    ),
    "method in a content": (
        method_frame(1, "basic.publish", "", "k", False, False) + method_frame(1, "basic.qos", 0, 1, False),
        505,
    ),
    "body longer than said": (
        method_frame(1, "basic.publish", "", "k", False, False)
        + frame(2, 1, CONTENT.pack(60, 0, 1) + PROPERTIES)
        + frame(3, 1, b"xyz"),
        505,
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_malformed(what: str) -> None:
    data, code = BAD[what]
    good = method_frame(1, "basic.ack", 1, False)
    assert code_of(good + data) == (code, [(1, "basic.ack", (1, False))])


def test_a_content_that_is_too_large_is_refused_at_its_header() -> None:
    made = decoder()
    data = method_frame(1, "basic.publish", "", "k", False, False)
    data += frame(2, 1, CONTENT.pack(60, 0, 1 << 40) + PROPERTIES)
    assert list(made.feed(data)) == [(1, TOO_LARGE, (1 << 40, made.message_max_bytes))]


def test_contents_on_several_channels_interleave() -> None:
    first, second = publish(b"a" * 5000, 1), publish(b"b" * 5000, 2)
    cut = first.index(b"\xce\x03") + 1
    events = list(decoder().feed(first[:cut] + second + first[cut:]))
    assert [event[2][-1][:1] for event in events] == [b"b", b"a"]


def test_a_closing_channel_drops_all_but_its_end() -> None:
    made = decoder()
    made.channels.discard(1)
    made.closing.add(1)
    data = publish(b"x") + method_frame(1, "basic.qos", 0, 1, False) + method_frame(1, "channel.close-ok")
    assert list(made.feed(data)) == [(1, "channel.close-ok", ())]


@pytest.mark.slow
@settings(max_examples=FUZZ_CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fuzz(data: st.DataObject) -> None:
    """Valid frames with bytes changed, cut out and put in, in random pieces: an error of the protocol or nothing."""
    stream = bytearray(b"".join(data.draw(st.lists(st.sampled_from(SAMPLES[:3] + SAMPLES[4:6]), max_size=4))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, max(len(stream) - 1, 0)))
        action = data.draw(st.integers(0, 2))
        if action == 0 and stream:
            stream[at] = data.draw(st.integers(0, 255))
        elif action == 1:
            del stream[at : at + data.draw(st.integers(1, 9))]
        else:
            stream[at:at] = data.draw(st.binary(max_size=12))
    made = decoder()
    piece = data.draw(st.integers(1, 64))
    raw = bytes(stream)
    try:
        for pos in range(0, len(raw), piece):
            list(made.feed(raw[pos : pos + piece]))
    except WireError as error:
        assert error.code in CODES
    assert len(made._rest) <= 4096 + 8 + piece
    assert made.assembling_bytes <= len(raw)


def test_one_byte_at_a_time_is_linear() -> None:
    """A 100 KB frame dribbled byte by byte: each byte costs the same."""
    data = publish(b"z" * 100_000, frame_max=0)
    made = decoder(131_072)
    started = time.perf_counter()
    events = [event for n in range(len(data)) for event in made.feed(data[n : n + 1])]
    assert len(events) == 1
    assert time.perf_counter() - started < 5.0


def test_tiny_body_frames_cost_no_memory() -> None:
    """A body of 200,000 one-byte frames is held once, not as 200,000 pieces."""
    size = 200_000
    head = method_frame(1, "basic.publish", "", "k", False, False)
    head += frame(2, 1, CONTENT.pack(60, 0, size) + PROPERTIES)
    made = decoder()
    list(made.feed(head))
    piece = frame(3, 1, b"x") * 1000
    tracemalloc.start()
    try:
        events: list[Any] = []
        for _ in range(size // 1000):
            events += made.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(events) == 1 and len(events[0][2][-1]) == size
    assert peak < 5 * size
