"""Confirms and acks: the books of a channel, against a model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unimq.driver import BatchResult, Failed
from unimq_rabbitmq.confirms import Ledger, Open, spans
from unimq_rabbitmq.tags import Tags

NACK = Failed(ValueError("nack"), handed_over=True)
BACK = Failed(ValueError("returned"), handed_over=True)


class Books:
    def __init__(self) -> None:
        self.results: dict[int, BatchResult] = {}
        self.told: list[Open] = []
        self.ledger = Ledger(self._complete)

    def _complete(self, batch: Open) -> None:
        self.told.append(batch)
        batch.done(batch.result())

    def publish(self, name: int, ids: list[str]) -> Open:
        batch = Open(
            len(ids), lambda result: self.results.__setitem__(name, result), lambda i, m, k, b: ids[i] == m
        )
        self.ledger.published(batch, 0, len(ids))
        return batch


def test_multiple_confirms_all_before_it() -> None:
    books = Books()
    books.publish(1, ["a", "b"])
    books.publish(2, ["c", "d"])
    assert books.ledger.confirm(3, True, None) == 3
    assert list(books.results) == [1]
    assert books.ledger.confirm(4, False, None) == 1
    assert books.results[2].failures is None
    assert books.ledger.idle


def test_out_of_order_and_twice() -> None:
    books = Books()
    books.publish(1, ["a", "b", "c"])
    assert [books.ledger.confirm(tag, False, None) for tag in (2, 2, 3, 1, 1)] == [1, 0, 1, 1, 0]
    assert list(books.results) == [1]


def test_returns_mark_the_first_that_fits() -> None:
    books = Books()
    books.publish(1, ["same", "same", "other"])
    assert books.ledger.returned("same", "q", b"", BACK)
    assert books.ledger.returned("other", "q", b"", BACK)
    assert not books.ledger.returned("nobody", "q", b"", BACK)
    books.ledger.confirm(3, True, None)
    assert set(books.results[1].failures or ()) == {0, 2}


def test_a_nack_fails_its_items_and_a_dead_channel_the_rest() -> None:
    books = Books()
    books.publish(1, ["a", "b", "c", "d"])
    books.ledger.confirm(1, False, None)
    books.ledger.confirm(2, False, lambda: NACK)
    assert books.ledger.all_failed(BACK) == 2
    assert books.results[1].failures == {1: NACK, 2: BACK, 3: BACK}


def test_a_batch_in_two_runs_is_told_once() -> None:
    books = Books()
    batch = Open(3, lambda result: books.results.__setitem__(1, result), lambda *_: False)
    books.ledger.published(batch, 0, 1)
    books.ledger.published(batch, 2, 1)
    batch.fail(1, NACK)
    books.ledger.confirm(2, True, None)
    assert books.results[1].failures == {1: NACK}
    assert len(books.told) == 1


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_order_of_confirms_completes_each_batch_once(sizes: list[int], random: object) -> None:
    books = Books()
    for name, size in enumerate(sizes):
        books.publish(name, [f"{name}-{i}" for i in range(size)])
    total, confirmed = sum(sizes), set[int]()
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    while len(confirmed) < total:
        tag, multiple = random.randint(1, total), random.random() < 0.3  # type: ignore[attr-defined]
        fresh = set(range(1, tag + 1)) - confirmed if multiple else {tag} - confirmed
        assert books.ledger.confirm(tag, multiple, None) == len(fresh)
        confirmed |= fresh
        complete = {i for i, end in enumerate(ends) if set(range(end - sizes[i] + 1, end + 1)) <= confirmed}
        assert set(books.results) == complete
    assert len(books.told) == len(sizes)


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_acks_say_exactly_what_is_settled(count: int, random: object) -> None:
    """Against a broker that knows which tags are unacked: `multiple` must never take an unsettled one, nor end on a gone one."""
    tags, open_tags, ours = Tags(), set(range(1, count + 1)), list(range(1, count + 1))
    random.shuffle(ours)  # type: ignore[attr-defined]
    keep = set(ours[: random.randint(0, 3)])  # type: ignore[attr-defined]
    ours = [tag for tag in ours if tag not in keep]
    while ours:
        size = random.randint(1, 6)  # type: ignore[attr-defined]
        batch, ours = ours[:size], ours[size:]
        nacked = [tag for tag in batch if random.random() < 0.3]  # type: ignore[attr-defined]
        for tag in nacked:
            tags.settled(tag)
            open_tags.discard(tag)
        acked = [tag for tag in batch if tag not in nacked]
        before = set(open_tags)
        for tag, multiple in tags.acks(list(acked)):
            assert tag in open_tags, "a multiple that ends on a settled tag closes the channel"
            open_tags -= set(range(1, tag + 1)) if multiple else {tag}
        assert before - open_tags == set(acked)
    assert open_tags == keep


def test_runs_of_indices() -> None:
    assert list(spans([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 1), (7, 2)]
    assert list(spans([])) == []
