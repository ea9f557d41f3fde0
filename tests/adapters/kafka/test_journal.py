"""The journal of a partition: what the next owner learns from the metadata of the committed offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq_kafka.journal import CLEAN, TRIES_MAX, WIDE_MAX, Journal
from unimq_kafka.offsets import Lane

METADATA_MAX = 4096  # offset.metadata.max.bytes, the broker's default


def after(journal: Journal, prefetch: int = 10) -> Journal:
    """The next owner's, when this one died now."""
    return Journal(prefetch, journal.text())


def test_a_new_group_has_no_suspects() -> None:
    assert Journal(10, None).times(0) is None


def test_after_a_clean_end_nobody_is_suspect() -> None:
    assert Journal(10, CLEAN).times(5) is None


def test_after_a_death_as_many_are_suspects_as_may_have_been_out() -> None:
    journal = after(Journal(3, None), prefetch=10)
    assert [journal.times(offset) for offset in range(5)] == [1, 1, 1, None, None]


@pytest.mark.parametrize("foreign", ["", "consumer-7", "unimq open", "unimq open x 1:2", "unimq open -3"])
def test_what_a_foreign_tool_left_is_no_clean_end(foreign: str) -> None:
    journal = Journal(2, foreign)
    assert [journal.times(offset) for offset in range(3)] == [1, 1, None]


def test_only_what_was_begun_pays() -> None:
    owner = Journal(3, None)
    for death in range(1, 4):
        owner = after(owner, 3)
        times = owner.times(100)
        assert times == death
        owner.note(100, times)
        owner.note(100, times)  # asked again, since the broker did not answer
    owner = after(owner, 3)
    assert [owner.times(offset) for offset in (100, 101, 102)] == [4, 1, 1]


def test_what_is_done_is_forgotten() -> None:
    journal = Journal(10, f"{Journal(10, None).text()} 7:3 9:1")
    journal.settled(8)
    assert journal.tries == {9: 1}


def test_more_may_be_out_behind_one_that_is_stuck() -> None:
    journal = Journal(10, None)
    assert journal.reaches(10)
    assert not journal.reaches(11), "it must be written again"
    assert journal.reaches(20)
    assert after(journal).suspects == 20
    assert not journal.reaches(WIDE_MAX * 2)
    assert journal.reaches(WIDE_MAX * 3), "there is an end to it"


@given(
    prefetch=st.integers(1, 100_000),
    tries=st.dictionaries(st.integers(0, 2**63), st.integers(1, 1_000), max_size=200),
)
def test_it_is_read_as_it_was_written_and_never_too_long(prefetch: int, tries: dict[int, int]) -> None:
    journal = Journal(prefetch, None)
    for offset, times in tries.items():
        journal.note(offset, times)
    assert len(journal.text()) <= METADATA_MAX
    found = after(journal)
    kept = sorted(tries)[:TRIES_MAX]
    assert found.tries == {offset: tries[offset] for offset in kept}
    assert found.suspects == min(prefetch, WIDE_MAX)


@given(st.text(max_size=5_000))
def test_no_metadata_breaks_it(text: str) -> None:
    journal = Journal(10, text)
    assert journal.suspects <= WIDE_MAX
    journal.times(0)
    assert len(journal.text()) <= METADATA_MAX


def test_the_metadata_goes_with_the_commit_of_its_partition() -> None:
    lane = Lane("t", 0, None)
    assert lane.is_open and not lane.dirty, "a receiver without a group commits nothing"
    lane.begin(5, Journal(10, None))
    assert lane.dirty and not lane.is_open, "nothing may be handed out yet"
    lane.written = lane.text()
    assert lane.is_open and not lane.dirty
    lane.ended = True
    assert lane.dirty and lane.text() == CLEAN
