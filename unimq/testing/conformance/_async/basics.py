"""Basics: what is sent is what comes, whatever it is called and holds."""

from __future__ import annotations

import datetime as dt
import time

import unimq
from unimq import Message, Queue, Topic
from unimq.address import HeaderValue

from ...harness import Harness
from .._check import refused, within
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, a_topic, bodies, drain, fill, nothing, one

MIB = 1024 * 1024
# a few of everything that breaks naive framing: NUL, invalid UTF-8, line ends, what looks like a frame's end
NOT_UTF8 = bytes(range(256)) + b"\xff\xfe\x00\r\n\n\x00\xce"


@behaviour(1)
async def send_receive_bytes(h: Harness) -> None:
    """What is sent to a queue is received, byte for byte, once."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        receipt = await mq.send(queue, Message(b"hello"))
        assert receipt.message_id, "the receipt has the id that was made"
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            assert delivery.body == b"hello"
            assert delivery.attempt == 1
            assert delivery.source == queue
            delivery.ack()
            await receiver.flush()
            await nothing(h, receiver)


@behaviour(2)
async def empty_body(h: Harness) -> None:
    """An empty body and no body (a tombstone) are two things, and both arrive as they were sent."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(b"", key="k"))
        await mq.send(queue, Message(None, key="k"))
        assert await drain(h, mq, queue, 2) == [b"", None]


@behaviour(3)
async def non_utf8_body(h: Harness) -> None:
    """A body is bytes: nothing is decoded, escaped or cut on its way."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(NOT_UTF8))
        await mq.send(queue, Message("Größe: 😀\x00"))
        async with mq.receiver(queue) as receiver:
            raw = await one(h, receiver)
            text = await one(h, receiver)
            assert raw.body == NOT_UTF8 and raw.decode(bytes) == NOT_UTF8
            with refused(unimq.DecodeError):
                raw.decode(str)
            assert text.decode(str) == "Größe: 😀\x00"
            raw.ack()
            text.ack()


@behaviour(4)
async def body_1MiB(h: Harness) -> None:
    """A body of 1 MiB, or the largest the broker takes, arrives whole."""
    limit = h.capabilities.max_message_bytes
    size = MIB if limit is None else min(MIB, limit - 8 * 1024)
    body = bytes(range(251)) * (size // 251 + 1)
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(body[:size]))
        assert await drain(h, mq, queue, 1) == [body[:size]]


@behaviour(5)
async def oversize_rejected_before_send(h: Harness) -> None:
    """A message larger than the limit is refused before anything is sent; its neighbours and the link are unharmed."""
    async with kit.client(h, h.url_with(max_message_bytes=20_000)) as mq:
        queue = await a_queue(mq, h)
        message = Message(b"x" * 30_000)
        with refused(unimq.MessageTooLarge) as caught:
            await mq.send(queue, message)
        assert not caught.error.may_have_been_sent and not caught.error.retryable
        await mq.send(queue, Message(b"small"))
        assert await drain(h, mq, queue, 1) == [b"small"]


@behaviour(6)
async def headers_roundtrip_str(h: Harness) -> None:
    """Headers arrive as they were sent; none of unimq's own shows among them."""
    headers: dict[str, HeaderValue] = {
        "tenant": "a",
        "empty": "",
        "X-Mixed-Case": "Ja",
        "n": "1",
        "dots.and_underscores": "x",
    }
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(b"x", headers=headers))
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            assert dict(delivery.headers) == headers
            delivery.ack()


@behaviour(7, needs=("typed_headers",))
async def headers_typed(h: Harness) -> None:
    """int, float, bool and bytes in headers keep value and type."""
    headers: dict[str, HeaderValue] = {
        "int": 7, "negative": -(2**63), "big": 2**63 - 1, "float": 0.1, "whole": 3.0, "true": True, "false": False,
        "bytes": b"\x00\xff", "str": "7",
    }  # fmt: skip
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        await mq.send(queue, Message(b"x", headers=headers))
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            found = dict(delivery.headers)
            assert found == headers
            assert {name: type(value) for name, value in found.items()} == {
                name: type(value) for name, value in headers.items()
            }
            delivery.ack()


@behaviour(8)
async def header_odd_chars_and_unicode(h: Harness) -> None:
    """Colons, line ends, backslashes, spaces and every script in a header survive; a header of unimq's own is refused."""
    headers: dict[str, HeaderValue] = {
        "colon:in:name": "a:b", "lines": "one\ntwo\r\nthree", "backslash": "\\n \\c", "unicode": "größe 😀 漢字",
        "größe": "x", "spaces in name": "  padded  ", "quotes": "\"'", "equals=": "a=b;c",
    }  # fmt: skip
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        with refused(unimq.InvalidMessage):
            await mq.send(queue, Message(b"x", headers={"unimq-attempt": "3"}))
        with refused(unimq.InvalidMessage):
            await mq.send(queue, Message(b"x", headers={"big": 2**63}))
        await mq.send(queue, Message(b"x", headers=headers))
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            assert dict(delivery.headers) == headers
            delivery.ack()


@behaviour(9)
async def content_type_and_message_id_roundtrip(h: Harness) -> None:
    """Every field arrives as it was sent; an id is made where none was given; the message itself is not changed."""
    now = dt.datetime(2024, 2, 29, 12, 30, 15, 123_000, tzinfo=dt.UTC)
    message = Message(
        b"{}",
        key="k1",
        subject="orders.created",
        content_type="application/x-own",
        message_id="id-1",
        correlation_id="c-1",
        reply_to=Queue("answers"),
        timestamp=now,
    )
    before = message.copy()
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        receipt = await mq.send(queue, message)
        made = await mq.send(queue, {"n": 1})
        assert message == before, "send changed the message"
        assert receipt.message_id == "id-1" and made.message_id not in (None, "id-1")
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            assert delivery.key == "k1"
            assert delivery.subject == "orders.created"
            assert delivery.content_type == "application/x-own"
            assert delivery.message_id == "id-1"
            assert delivery.correlation_id == "c-1"
            assert delivery.reply_to == Queue("answers"), delivery.reply_to
            assert delivery.timestamp == now
            delivery.ack()
            second = await one(h, receiver)
            assert second.message_id == made.message_id
            assert second.content_type == "application/json" and second.decode() == {"n": 1}
            second.ack()


@behaviour(10, hooks=("foreign_send", "foreign_receive"))
async def raw_foreign_message_readable(h: Harness) -> None:
    """A message of a producer that knows nothing of unimq is a perfectly good one, and ours is readable without unimq."""
    assert h.foreign_send is not None and h.foreign_receive is not None
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        h.foreign_send(queue, NOT_UTF8, {"from": "elsewhere"})
        async with mq.receiver(queue) as receiver:
            delivery = await one(h, receiver)
            assert delivery.body == NOT_UTF8
            assert delivery.headers["from"] == "elsewhere"
            assert delivery.attempt == 1
            delivery.ack()
            await receiver.flush()
        await mq.send(queue, Message(NOT_UTF8, headers={"from": "here"}))
        body, headers = h.foreign_receive(queue)
        assert body == NOT_UTF8, "the body is wrapped in something"
        assert headers["from"] in ("here", b"here")


@behaviour(11)
async def topic_isolation(h: Harness) -> None:
    """What is sent to one address is seen at no other."""
    async with kit.client(h) as mq:
        first, second = await a_queue(mq, h), await a_queue(mq, h)
        topics = [await a_topic(mq, h), await a_topic(mq, h)]
        groups = [h.subscription(topic) for topic in topics]
        for group in groups:
            await mq.declare(group)
        await fill(mq, first, [b"to the first queue"])
        await fill(mq, topics[1], [b"to the second topic"])
        assert await drain(h, mq, first, 1) == [b"to the first queue"]
        assert await drain(h, mq, groups[1], 1) == [b"to the second topic"]
        async with mq.receiver(second) as receiver:
            await nothing(h, receiver)
        async with mq.receiver(groups[0]) as receiver:
            await nothing(h, receiver)


@behaviour(12)
async def receive_timeout_returns_empty(h: Harness) -> None:
    """A receive with nothing there answers [] when its time is up, not before, and the receiver goes on."""
    async with kit.client(h) as mq:
        queue = await a_queue(mq, h)
        async with mq.receiver(queue) as receiver:
            assert list(await receiver.receive(timeout_s=0)) == []
            began = time.monotonic()
            with within(5.0, "an empty receive of 0.3 s"):
                assert list(await receiver.receive(timeout_s=0.3)) == []
            assert time.monotonic() - began >= 0.25, "it came back before its time"
            await fill(mq, queue, [b"later"])
            delivery = await one(h, receiver)
            assert delivery.body == b"later"
            delivery.ack()


@behaviour(13, needs=("unroutable",))
async def send_to_missing_destination_errors_not_lost(h: Harness) -> None:
    """Sending to what nobody declared is an error that says how to declare it; the message is in the error."""
    async with kit.client(h) as mq:
        message = Message(b"to nowhere")
        with refused(unimq.Unroutable, unimq.NotFound) as caught:
            await mq.send(h.nowhere(), message)
        assert "declare" in str(caught.error), f"it does not say what to do: {caught.error}"
        assert caught.error.message is not None and caught.error.message.body == b"to nowhere"
        assert not caught.error.may_have_been_sent
        queue = await a_queue(mq, h)  # the client is unharmed
        await fill(mq, queue, [b"well"])
        assert await drain(h, mq, queue, 1) == [b"well"]


@behaviour(14)
async def unicode_and_long_destination_name_mapped_reversibly(h: Harness) -> None:
    """Odd and long names work as they are, stay apart from each other, and come back as they were."""
    names = [
        h.unique("größe-漢字"), h.unique("with.dots.and_under-scores"), h.unique("a/b"), h.unique("a b"),
        h.unique("l" * 120),
    ]  # fmt: skip
    async with kit.client(h) as mq:
        for name in names:
            await mq.declare(Queue(name))
            await fill(mq, Queue(name), [name.encode()])
        for name in names:
            async with mq.receiver(Queue(name)) as receiver:
                delivery = await one(h, receiver)
                assert delivery.body == name.encode(), f"{name!r} and another name are one place"
                assert delivery.source == Queue(name)
                delivery.ack()
                await receiver.flush()
        # the joint of topic and group must not confuse a.b + c with a + b.c
        stem = h.unique("joint")
        left = unimq.Subscription(Topic(f"{stem}.b"), "c")
        right = unimq.Subscription(Topic(stem), "b.c")
        for group in (left, right):
            await mq.declare(group.topic)
            await mq.declare(group)
        await fill(mq, left.topic, bodies(1))
        assert await drain(h, mq, left, 1) == bodies(1)
        async with mq.receiver(right) as receiver:
            await nothing(h, receiver)
