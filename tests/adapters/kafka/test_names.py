"""Names are one to one and stable: topics, groups and places."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq.address import Queue, Subscription, Topic
from unimq.errors import Unsupported
from unimq_kafka import names

LEGAL = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
# what existing clusters hold: a change here loses messages that wait
GOLDEN = {
    "orders": "orders",
    "orders.eu": "orders.eu",
    "a/b": "a-0x2fb",
    "a-0x2fb": "a-0x2d0x2fb",
    ".": "-0x2e",
    "..": "-0x2e-0x2e",
    "größe": "gr-0xc3-0xb6-0xc3-0x9fe",
}


@pytest.mark.parametrize(("name", "topic"), GOLDEN.items())
def test_golden_topics(name: str, topic: str) -> None:
    assert names.topic_of(Queue(name)) == names.topic_of(Topic(name)) == topic


def test_golden_places() -> None:
    billing = Subscription(Topic("events"), "billing")
    assert names.retry_place(Queue("orders"), 5.0).ref.topic == "orders.retry.5000"
    assert names.retry_place(billing, 0.1).ref.topic == "events.billing.retry.100"
    for source, topic, group in (
        (Queue("orders"), "orders.dlq", "unimq.orders.dlq"),
        (billing, "events.billing.dlq", "billing.dlq"),
    ):
        place = names.dead_place(source)
        assert place is not None
        assert (place.ref.topic, place.ref.group) == (topic, group)
    assert names.group_of(Queue("orders")) == "unimq.orders"
    assert names.group_of(Queue("orders"), "mine") == "mine"
    assert names.group_of(billing) == "billing"


@given(st.text(min_size=1, max_size=40))
def test_any_name_is_legal_and_comes_back(name: str) -> None:
    topic = names.escape(name)
    assert LEGAL.match(topic)
    assert topic not in (".", "..")
    if len(topic) < names.TOPIC_MAX_CHARS:
        assert names.unescape(topic) == name
        assert names.unescape(names.escape(name, dots=True)) == name


@given(st.lists(st.text(min_size=1, max_size=400), min_size=2, max_size=5, unique=True))
def test_different_names_stay_different(given_names: list[str]) -> None:
    assert len({names.escape(name) for name in given_names}) == len(given_names)


def test_groups_do_not_share_places() -> None:
    sources = [
        Queue("a.b"),
        Subscription(Topic("a"), "b"),
        Subscription(Topic("a.b"), "c"),
        Subscription(Topic("a"), "b.c"),
        Queue("a"),
    ]
    places = [names.retry_place(source, 1.0).ref.topic for source in sources]
    assert len(set(places)) == len(sources)
    for source, place in zip(sources, places, strict=True):
        found = names.retry_places_among(places, source)
        assert [one.ref.topic for one in found] == [place]


def test_a_long_name_still_has_its_places() -> None:
    long = "x" * 300
    assert len(names.topic_of(Queue(long))) <= names.TOPIC_MAX_CHARS
    dead, retry = names.dead_place(Queue(long)), names.retry_place(Queue(long), 1.0)
    assert dead is not None
    assert LEGAL.match(dead.ref.topic)
    assert LEGAL.match(retry.ref.topic)


def test_retry_places_are_found_by_name() -> None:
    queue = Queue("q")
    topics = [
        "q",
        "q.retry.1000",
        "q.retry.100",
        "q.retry.x",
        "q.retry.",
        "qq.retry.5",
        "q.dlq",
        "q.retry.5.y",
    ]
    assert [place.delay_s for place in names.retry_places_among(topics, queue)] == [0.1, 1.0]


def test_a_private_subscription_has_no_places() -> None:
    private = Subscription(Topic("t"))
    assert names.group_of(private) is None
    assert names.dead_place(private) is None
    with pytest.raises(Unsupported):
        names.retry_place(private, 1.0)
