"""Sessions: one holder at a time, a state, a lock."""

from __future__ import annotations

import pytest

from unimq.broker.engine import EngineLimit, Refusal, SessionTable
from unimq.broker.engine.limits import MAX_SESSION_STATE_BYTES

from .kit import bodies, declared, engine, message, put


def sessions(**options: float) -> tuple:  # type: ignore[type-arg]
    e, clock = engine()
    q = declared(e, "q", sessions=True, **options)
    assert isinstance(q.sessions, SessionTable)
    return e, clock, q, q.sessions


def test_one_holder_and_order_within() -> None:
    _, _, q, table = sessions()
    for number, session_id in enumerate("abab"):
        put(q, number, session_id=session_id)
    a = table.accept("one", "a")
    assert table.accept("two", "a") is None
    b = table.accept("two")
    assert a is not None and b is not None and b.id == "b"
    assert table.accept("three") is None
    assert bodies(table.lease(a, 5)) == "0 2"
    assert bodies(table.lease(b, 5)) == "1 3"
    assert q.lease("anyone", 5) == []


def test_a_message_without_a_session_is_refused() -> None:
    _, _, q, _ = sessions()
    assert q.put(message()) is Refusal.NO_SESSION


def test_release_gives_back_in_order_and_tells() -> None:
    _, _, q, table = sessions()
    put(q, 0, 1, 2, session_id="a")
    first = table.accept("one")
    assert first is not None
    held = table.lease(first, 2)
    heard: list[int] = []
    q.listeners.append(lambda queue: heard.append(queue.ready))
    assert table.release(first)
    assert not table.release(first)
    assert heard == [3]
    assert table.lease(first, 2) == []
    assert q.ack(held) == held
    second = table.accept("two")
    assert second is not None
    assert bodies(table.lease(second, 5)) == "0 1 2"


def test_lock_is_the_sessions() -> None:
    e, clock, q, table = sessions(lock_s=30)
    put(q, 0, session_id="a")
    first = table.accept("one", "a")
    assert first is not None
    held = table.lease(first)
    clock.advance(20)
    assert table.renew(first)
    assert e.due() == first.locked_until
    clock.advance(29)
    assert q.depth().leased == 1
    clock.advance(1)
    e.tick()
    assert first.lost
    assert not table.renew(first)
    assert not table.set_state(first, b"late")
    assert q.ack(held) == held
    second = table.accept("two")
    assert second is not None
    assert table.lease(second)[0].delivery_count == 1


def test_state_outlives_holder_and_messages_and_is_charged() -> None:
    e, _, _, table = sessions()
    first = table.accept("one", "a")
    assert first is not None
    assert table.get_state(first) is None
    assert table.set_state(first, b"12345")
    assert e.budget.held_bytes == 5
    table.release(first)
    second = table.accept("two", "a")
    assert second is not None
    assert table.get_state(second) == b"12345"
    with pytest.raises(EngineLimit):
        table.set_state(second, b"x" * (MAX_SESSION_STATE_BYTES + 1))
    table.set_state(second, None)
    assert e.budget.held_bytes == 0


def test_deferred_belongs_to_its_session() -> None:
    _, _, q, table = sessions(lock_s=30)
    put(q, 0, session_id="a")
    a, b = table.accept("one", "a"), table.accept("two", "b")
    assert a is not None and b is not None
    (entry,) = table.lease(a)
    q.defer([entry])
    assert table.receive_deferred(b, [entry.seq]) == []
    (fetched,) = table.receive_deferred(a, [entry.seq])
    assert fetched.lease_deadline is None
    assert not q.ack([fetched])


def test_close_ends_sessions_and_frees_states() -> None:
    e, _, q, table = sessions()
    put(q, 0, session_id="a")
    held = table.accept("one")
    assert held is not None
    table.set_state(held, b"state")
    e.delete_queue("q")
    assert held.lost
    assert e.budget.held_bytes == 0


def test_ttl_in_a_session() -> None:
    e, clock, q, _ = sessions()
    put(q, 0, session_id="a", ttl_s=5)
    put(q, 1, session_id="b")
    clock.advance(5)
    e.tick()
    assert list(q.sessions_ready()) == ["b"]
    assert q.depth().ready == 1
