"""Exchanges and bindings: where a message goes, and which declarations are refused."""

from __future__ import annotations

from typing import Any

import pytest

from unimq.broker.engine.exchange import headers_match
from unimq.wire.amqp091.table import Int64

from .amqp_kit import drained, queue, refused, send, vhost


@pytest.mark.parametrize(
    ("kind", "bound", "key", "goes"),
    [
        ("direct", "a.b", "a.b", True),
        ("direct", "a.*", "a.b", False),
        ("fanout", "other", "a.b", True),
        ("topic", "a.*", "a.b", True),
        ("topic", "a.*", "a", False),
        ("topic", "a.#", "a", True),
        ("topic", "#", "", True),
        ("topic", "*", "", False),
        ("topic", "a.*.c", "a..c", True),
        ("topic", "#.c", "a.b.c", True),
        ("topic", "", "", True),
    ],
)
def test_a_key_and_a_binding(kind: str, bound: str, key: str, goes: bool) -> None:
    on, _ = vhost()
    queue(on)
    on.declare_exchange("e", kind)
    on.bind_queue("q", "e", bound)
    assert send(on, key, exchange="e").routed == int(goes)
    assert drained(on) == ["m"] * goes


@pytest.mark.parametrize(
    ("wanted", "there", "goes"),
    [
        ({}, {}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"a": 1}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({"a": None}, {"a": "whatever"}, True),
        ({"a": None}, {}, False),
        ({"a": 1}, {"a": Int64(1)}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"x-a": 1}, {}, True),  # x- does not count
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
        ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
    ],
)
def test_headers(wanted: dict[str, Any], there: dict[str, Any], goes: bool) -> None:
    assert headers_match(wanted, there) is goes


def test_one_copy_whatever_the_ways() -> None:
    on, _ = vhost()
    queue(on)
    for name in ("source", "one", "two"):
        on.declare_exchange(name, "fanout")
    on.bind_exchange("one", "source", "")
    on.bind_exchange("two", "source", "")
    on.bind_exchange("source", "one", "")  # and round
    for name in ("source", "one", "two"):
        on.bind_queue("q", name, "")
        on.bind_queue("q", name, "again")
    assert send(on, "k", exchange="source").routed == 1
    assert drained(on) == ["m"]


def test_cc_and_bcc_are_routing_keys_and_bcc_is_not_seen() -> None:
    on, _ = vhost()
    for name in ("q", "cc", "bcc"):
        queue(on, name)
    assert send(on, "q", headers={"BCC": ["bcc"], "CC": ["cc", "cc", "q"], "a": 1}).routed == 3
    got = on.get("bcc", "me")
    assert got is not None
    assert got[1].stored.meta.properties.headers == {"CC": ["cc", "cc", "q"], "a": 1}
    with refused(406, 'invalid message: {unacceptable_type_in_header,"CC",longstr}'):
        send(on, "q", headers={"CC": "q"})


def test_the_alternate_exchange_takes_what_finds_no_way_at_every_step() -> None:
    on, _ = vhost()
    queue(on)
    on.declare_exchange("e", "direct", arguments={"alternate-exchange": "lost"})
    on.declare_exchange("first", "fanout")
    on.bind_exchange("e", "first", "")
    assert send(on, "k", exchange="first").routed == 0  # `lost` is not there
    on.declare_exchange("lost", "fanout")
    on.bind_queue("q", "lost", "")
    assert send(on, "k", exchange="first").routed == 1


def test_an_auto_delete_exchange_goes_with_its_last_binding_and_takes_those_to_it() -> None:
    on, _ = vhost()
    queue(on)
    on.declare_exchange("source", "fanout", auto_delete=True)
    on.declare_exchange("e", "fanout", auto_delete=True)
    on.bind_exchange("e", "source", "")
    on.bind_queue("q", "e", "")
    on.unbind_queue("q", "e", "not bound like this")
    assert "e" in on.exchanges
    on.delete_queue("q")
    assert "e" not in on.exchanges
    assert "source" not in on.exchanges


def test_declaring_and_its_refusals() -> None:
    on, _ = vhost()
    on.declare_exchange("e", "topic", durable=True, arguments={"alternate-exchange": "a"})
    on.declare_exchange("e", "topic", durable=True, arguments={"alternate-exchange": "a", "other": 1})
    where = "exchange 'e' in vhost '/'"
    with refused(406, f"inequivalent arg 'type' for {where}: received 'direct' but current is 'topic'"):
        on.declare_exchange("e", "direct", durable=True)
    with refused(406, f"inequivalent arg 'durable' for {where}: received 'false' but current is 'true'"):
        on.declare_exchange("e", "topic")
    with refused(
        406,
        f"inequivalent arg 'alternate-exchange' for {where}: received none but current is the value 'a' of type 'longstr'",
    ):
        on.declare_exchange("e", "topic", durable=True)
    with refused(503, "unknown exchange type 'strange'"):
        on.declare_exchange("e", "strange")
    with refused(403, "exchange name 'amq.mine' contains reserved prefix 'amq.*'"):
        on.declare_exchange("amq.mine", "direct")
    with refused(403, "operation not permitted on the default exchange"):
        on.declare_exchange("", "direct")
    with refused(404, "no exchange 'none' in vhost '/'"):
        on.check_exchange("none")
    with refused(403, "deletion of system exchange 'amq.topic' in vhost '/' not allowed"):
        on.delete_exchange("amq.topic")
    on.delete_exchange("never was")


def test_binding_and_its_refusals() -> None:
    on, _ = vhost()
    queue(on)
    on.declare_exchange("h", "headers")
    with refused(404, "no exchange 'none' in vhost '/'"):
        on.bind_queue("q", "none", "")
    with refused(404, "no queue 'none' in vhost '/'"):
        on.bind_queue("none", "h", "")
    with refused(403, "operation not permitted on the default exchange"):
        on.bind_queue("q", "", "q")
    with refused(406, 'Invalid x-match field value <<"some">>; expected all, any, all-with-x, or any-with-x'):
        on.bind_queue("q", "h", "", {"x-match": "some"})
    on.unbind_queue("q", "none", "")
    on.unbind_queue("none", "h", "")
    on.bind_queue("q", "h", "", {"a": 1, "b": 2})
    on.bind_queue("q", "h", "", {"b": 2, "a": 1})  # the same
    on.unbind_queue("q", "h", "", {"a": 1, "b": 2})
    assert send(on, "", exchange="h", headers={"a": 1, "b": 2}).routed == 0
    with refused(406, "exchange 'h' in vhost '/' in use"):
        on.bind_queue("q", "h", "")
        on.delete_exchange("h", if_unused=True)


def test_internal_and_missing_exchanges_take_no_publish() -> None:
    on, _ = vhost()
    on.declare_exchange("inner", "fanout", internal=True)
    with refused(403, "cannot publish to internal exchange 'inner' in vhost '/'"):
        send(on, "k", exchange="inner", headers={"CC": "wrong too"})
    with refused(404, "no exchange 'none' in vhost '/'"):
        send(on, "k", exchange="none", expiration="wrong too")
