"""Proof 3: nothing is lost to a duplicate window; by hand, on memory. The seeded bugs show that it would be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from integration.proofs.kit import SYNC, WORLDS, World, run
from tests.proofs import dedup
from unimq import Queue, _emulation
from unimq.driver import Place
from unimq_memory import ADAPTER

LIMIT_S = 40
QUEUE = Queue("orders")


def proof(world: World, url: str) -> dedup.Life:
    return run(LIMIT_S, f"{world} life", lambda: dedup.live(world, url, QUEUE))


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_nothing_is_lost_in_a_duplicate_window(world: World, url: str, figure: Callable[[str], None]) -> None:
    life = proof(world, url)
    figure(f"duplicate window, {world}: {len(life.steps)} times in hand, {len(life.findings)} findings")
    assert life.findings == []


def _release_by_copy(plan: Any) -> Any:
    def bad(source: Any, policy: Any, facts: Any) -> Any:
        made = plan(source, policy, facts)
        return dataclasses.replace(made, release=made.retry(0))

    return bad


def test_release_as_a_copy_would_hold_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on brokers without a native release: each copy has an id of its own."""
    monkeypatch.setattr(type(ADAPTER), "plan", staticmethod(_release_by_copy(ADAPTER.plan)))
    assert isinstance(ADAPTER.plan(QUEUE, None, _facts()).release, Place)
    assert proof(SYNC, url).findings == []


@pytest.mark.parametrize("by_copy", [False, True], ids=["retry", "release by a copy"])
def test_a_copy_with_the_same_id_is_found(by_copy: bool, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = _emulation.copy_id

    def same(delivery: Any) -> Any:
        message_id, carried = original(delivery)
        return message_id.partition("#")[0], carried

    if by_copy:
        monkeypatch.setattr(type(ADAPTER), "plan", staticmethod(_release_by_copy(ADAPTER.plan)))
    monkeypatch.setattr(_emulation, "copy_id", same)
    assert any("lost" in text for text in proof(SYNC, url).findings)


def test_a_counter_that_a_replay_resets_is_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of copies begins again with each attempt: the second retry has the id of the first."""
    original = _emulation.copy_id

    def reset_counter(delivery: Any) -> Any:
        _, carried = original(delivery)
        return f"{_emulation.origin_id(delivery)}#1", carried

    monkeypatch.setattr(_emulation, "copy_id", reset_counter)
    assert any("lost" in text for text in proof(SYNC, url).findings)


def _facts() -> Any:
    from unimq.driver import Facts

    return Facts()
