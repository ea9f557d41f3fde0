"""Addresses: values, and inverses of their text."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq import Address, Queue, Subscription, Topic

names = st.text(min_size=1, max_size=40)


@given(names)
def test_text_and_parse_are_inverses(name: str) -> None:
    for address in (Queue(name), Topic(name), Subscription(Topic(name), name), Subscription(Topic(name))):
        assert Address.parse(str(address)) == address


@given(names, names)
def test_the_joint_of_a_subscription_is_unambiguous(topic: str, name: str) -> None:
    back = Address.parse(str(Subscription(Topic(topic), name)))
    assert back == Subscription(Topic(topic), name)


@pytest.mark.parametrize("text", ["", "orders", "queue:", "box:orders", "subscription:/x", "subscription:t/"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|kind|subscription"):
        Address.parse(text)


@pytest.mark.parametrize(
    "make", [lambda: Queue(""), lambda: Topic(""), lambda: Subscription(Topic("t"), ""), lambda: Queue(3)]
)
def test_an_empty_name_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        make()  # type: ignore[operator]


def test_a_subscription_is_a_value() -> None:
    one = Subscription(Topic("t"), "s", subjects=["a.*"], where={"x": 1})
    assert one == Subscription(Topic("t"), "s", subjects=("a.*",), where={"x": 1})
    assert hash(one) == hash(Subscription(Topic("t"), "s", subjects=["a.*"], where={"x": 1}))
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(ValueError, match="list of patterns"):
        Subscription(Topic("t"), "s", subjects="a.*")
    with pytest.raises(ValueError, match="latest"):
        Subscription(Topic("t"), "s", start="middle")
