"""Subject patterns, against the plainest possible definition of them; header equality; routes of a topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq.broker.engine import Filter, Mismatch, Pattern, Topic
from unimq.broker.engine.matcher import words_of

from .kit import declared, engine, message


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", ""]),
        ("#", ["", "a", "a.b.c"], []),
        ("*", ["a"], ["", "a.b"]),
        ("a.*.c", ["a.b.c", "a..c"], ["a.c", "a.b.b.c"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["", "b"]),
        ("#.c", ["c", "a.c", "a.b.c"], ["", "a"]),
        ("a.#.c", ["a.c", "a.b.c", "a.b.b.c"], ["a", "c"]),
        ("*.#", ["a", "a.b"], [""]),
        ("#.#", ["", "a"], []),
        ("", [""], ["a"]),
        ("a#.*b", ["a#.*b"], ["a.b"]),  # inside a word they are letters
    ],
)
def test_pattern(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [s for s in yes if not Pattern(pattern).matches(s)] == []
    assert [s for s in no if Pattern(pattern).matches(s)] == []


def plainly(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return plainly(pattern[1:], words) or (bool(words) and plainly(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and plainly(pattern[1:], words[1:])


words = st.lists(st.sampled_from(["a", "b", ""]), max_size=5).map(".".join)
patterns = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=5).map(".".join)


@given(patterns, words)
def test_pattern_means_what_its_definition_says(pattern: str, subject: str) -> None:
    assert Pattern(pattern).matches(subject) == plainly(words_of(pattern), words_of(subject))


def test_many_hashes_stay_linear() -> None:
    assert not Pattern(".".join(["#", "a"] * 50) + ".b").matches(".".join(["a"] * 200))


def test_where_needs_all_and_keeps_booleans_apart() -> None:
    wanted = Filter(where={"a": 1, "b": "x"})
    assert wanted.wants("", {"a": 1, "b": "x", "c": 0})
    assert not wanted.wants("", {"a": 1})
    assert not wanted.wants("", {"a": True, "b": "x"})
    assert not Filter(where={"a": "x"}).wants("", {"a": b"x"})
    assert Filter(where={"a": 1}) != Filter(where={"a": True})


def test_both_must_match_and_subjects_are_alternatives() -> None:
    wanted = Filter(("a.*", "b"), {"k": 1})
    assert wanted.wants("a.x", {"k": 1})
    assert wanted.wants("b", {"k": 1})
    assert not wanted.wants("c", {"k": 1})
    assert not wanted.wants("b", {})
    assert wanted == Filter(("b", "a.*", "b"), {"k": 1})


def test_fan_out_shares_the_message_and_one_queue_gets_one_copy() -> None:
    e, _ = engine()
    topic = e.declare_topic("t")
    one, two = declared(e, "one"), declared(e, "two")
    e.subscribe(topic, "1", one, Filter(("a.#",)))
    e.subscribe(topic, "1b", one, Filter(("#",)))
    e.subscribe(topic, "2", two, Filter((), {"k": 1}))
    assert e.publish_topic("t", message(0, subject="a.b", headers={"k": 1})).routed == 2
    assert e.publish_topic("t", message(1, subject="a.b")).routed == 1
    assert one.lease("c")[0].stored is two.lease("c")[0].stored


def test_routes_are_forgotten_when_subscriptions_change() -> None:
    e, _ = engine()
    topic = e.declare_topic("t")
    assert e.publish_topic("t", message()).routed == 0
    e.subscribe(topic, "1", declared(e, "one"))
    assert e.publish_topic("t", message()).routed == 1
    assert e.unsubscribe(topic, "1")
    assert not e.unsubscribe(topic, "1")
    assert e.publish_topic("t", message()).routed == 0


def test_another_filter_is_a_mismatch_until_replaced() -> None:
    e, _ = engine()
    topic, one = e.declare_topic("t"), declared(e, "one")
    made = e.subscribe(topic, "s", one, Filter(("a",)))
    assert e.subscribe(topic, "s", one, Filter(("a",))) == made
    assert e.subscribe(topic, "s", one, Filter(("b",), {"k": 1})) == Mismatch(
        {"subjects": (("a",), ("b",)), "where": ({}, {"k": 1})}
    )
    e.subscribe(topic, "s", one, Filter(("b",)), replace=True)
    assert e.publish_topic("t", message(subject="a")).routed == 0
    assert e.publish_topic("t", message(subject="b")).routed == 1
    assert isinstance(topic, Topic) and topic.subscription("s") is not None
