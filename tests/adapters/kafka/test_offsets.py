"""The watermark never passes what is not done, whatever the order of the acks and the gaps of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unimq_kafka.offsets import Lane


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_watermark_is_after_the_longest_done_prefix(steps: list[int], random: object) -> None:
    offsets, at = [], 0
    for step in steps:  # gaps: compaction, control records
        at += step
        offsets.append(at)
    lane = Lane("t", 0, None)
    for offset in offsets:
        lane.deliver(offset, f"d{offset}")
    order = list(offsets)
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis' own random
    done: set[int] = set()
    for offset in order:
        assert lane.done(offset)
        assert not lane.done(offset)
        done.add(offset)
        lane.advance()
        held = lane.behind(offset, f"d{offset}")
        prefix = []
        for one in offsets:
            if one not in done:
                break
            prefix.append(one)
        assert lane.watermark == (prefix[-1] + 1 if prefix else None)
        assert held == (offset not in prefix)
    assert not lane.held
    assert not lane.pending


def test_what_was_forgotten_blocks() -> None:
    lane = Lane("t", 0, None)
    for offset in range(3):
        lane.deliver(offset, offset)
    assert lane.forget(0)
    assert lane.done(1)
    assert not lane.advance()
    assert lane.watermark is None
    assert lane.behind(1, 1)


def test_what_a_filter_drops_moves_the_watermark() -> None:
    lane = Lane("t", 0, None)
    lane.skip(0)
    lane.deliver(1, 1)
    lane.skip(2)
    assert lane.advance()
    assert lane.watermark == 1
    lane.done(1)
    lane.advance()
    assert lane.watermark == 3
