"""Names are one to one and what the broker takes is taken as it is."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unimq import Queue, Subscription, Topic
from unimq.errors import Unsupported
from unimq_rabbitmq import names

PIECES = [
    "a",
    "b",
    ".",
    "%",
    "2",
    "5",
    "E",
    "0",
    "A",
    "D",
    "6",
    "1",
    "4",
    "amq.",
    "dlq",
    "é",
    "\n",
    "\r",
    "\0",
    "/",
]
WORD = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)


@pytest.mark.parametrize(
    "name", ["orders.eu", "a b", "été", "100%", "x/y#z*", "amq", "a%", "%zz", "amq.gen-abc"]
)
def test_a_name_that_the_broker_takes_is_its_name(name: str) -> None:
    assert names.queue_of(Queue(name)) == name


def test_predefined_exchanges_are_themselves() -> None:
    assert names.exchange_of(Topic("amq.topic")) == "amq.topic"


@pytest.mark.parametrize("name", ["amq.mine", "a\nb", "a\rb", "a\0b", "%0A", "%61mq.x"])
def test_what_it_refuses_or_changes_is_escaped(name: str) -> None:
    escaped = names.escape(name)
    assert escaped != name
    assert not escaped.startswith("amq.")
    assert not set(escaped) & set("\r\n\0")


@given(WORD)
def test_escaping_can_be_undone(name: str) -> None:
    assert names.unescape(names.escape(name)) == name
    assert names.unescape(names.part(name)) == name


@given(WORD, WORD, WORD, WORD)
def test_composed_names_are_one_to_one(topic: str, group: str, other_topic: str, other_group: str) -> None:
    assume((topic, group) != (other_topic, other_group))
    one = names.queue_of(Subscription(Topic(topic), group))
    assert one != names.queue_of(Subscription(Topic(other_topic), other_group))


def test_the_joint_is_seen() -> None:
    assert names.queue_of(Subscription(Topic("a.b"), "c")) == "a%2Eb.c"
    assert names.queue_of(Subscription(Topic("a"), "b.c")) == "a.b%2Ec"


def test_a_group_called_dlq_is_not_somebodys_dead_letter_place() -> None:
    assert names.queue_of(Subscription(Topic("t"), "dlq")) != names.dead_place(Queue("t")).text


def test_places() -> None:
    queue, group = Queue("q"), Subscription(Topic("t"), "s")
    assert names.dead_place(queue).text == "q.dlq"
    assert names.retry_place(queue, 1.5).text == "q.retry.1500"
    assert names.dead_place(group).text == "t.s.dlq"
    assert names.retry_place(group, 60).text == "t.s.retry.60000"
    assert names.filter_exchange(group, "a") == "t.s.a"
    assert names.delay_place(Topic("t"), 0.1).text == "t.delay.100"
    assert hash(names.retry_place(queue, 1).ref) == hash(names.retry_place(queue, 1).ref)


def test_broker_name_reaches_any_place() -> None:
    assert names.queue_of(Queue("x", broker_name="amq.theirs")) == "amq.theirs"
    assert names.queue_of(Subscription(Topic("t"), "s", broker_name="q")) == "q"


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128])
def test_too_long_is_said(name: str) -> None:
    with pytest.raises(Unsupported, match="255"):
        names.queue_of(Queue(name))
    assert names.queue_of(Queue("x" * 255)) == "x" * 255


def test_a_filters_mark_depends_on_the_filter_alone() -> None:
    def mark(**more: object) -> str:
        return names.filter_mark(Subscription(Topic("t"), "s", **more))  # type: ignore[arg-type]

    assert mark(subjects=["a", "b"]) == mark(subjects=["b", "a", "a"])
    assert mark(where={"a": 1, "b": 2}) == mark(where={"b": 2, "a": 1})
    assert (
        len(
            {
                mark(),
                mark(subjects=["a"]),
                mark(where={"a": 1}),
                mark(where={"a": "1"}),
                mark(where={"a": True}),
            }
        )
        == 5
    )
