"""Sessions: all messages with one session id belong to one holder at a time, and a session has a state.

Rules
- The lock is the session's: its messages have none of their own. When it ends, all that is leased comes back, counted.
- A `Session` is the handle of one acceptance, as an `Entry` is of one lease: once lost it stays lost.
- The state outlives holders and messages; setting it to None forgets it. It is charged to the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import msgspec

from .clock import Clock
from .limits import MAX_SESSION_STATE_BYTES, MAX_SESSIONS_PER_QUEUE, EngineLimit
from .message import Entry

if TYPE_CHECKING:
    from .queue import QueueCore


class Session(msgspec.Struct, eq=False):
    id: str
    owner: object
    locked_until: float  # inf: the queue has no lock_s
    lost: bool = False


class SessionTable:
    """The sessions of one queue: `QueueCore.sessions`."""

    __slots__ = ("_clock", "_held", "_queue", "_states")

    def __init__(self, queue: QueueCore, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._held: dict[str, Session] = {}
        self._states: dict[str, bytes] = {}

    def accept(self, owner: object, session_id: str | None = None) -> Session | None:
        """Hold this session, or the next one that has messages; None when it is held or there is none."""
        self._queue.tick()
        if session_id is None:
            session_id = next((s for s in self._queue.sessions_ready() if s not in self._held), None)
        if session_id is None or session_id in self._held:
            return None
        if len(self._held) >= MAX_SESSIONS_PER_QUEUE:
            raise EngineLimit(
                f"queue {self._queue.name!r} has {MAX_SESSIONS_PER_QUEUE} sessions held, the most there can be"
            )
        held = self._held[session_id] = Session(session_id, owner, self._until())
        self._queue.tick_at(held.locked_until)
        return held

    def lease(self, session: Session, n: int = 1) -> list[Entry]:
        self._queue.tick()
        return [] if session.lost else self._queue.lease(session, n, session_id=session.id)

    def receive_deferred(self, session: Session, seqs: Sequence[int]) -> list[Entry]:
        """Those of `seqs` that are set aside and belong to this session."""
        self._queue.tick()
        if session.lost:
            return []
        deferred = self._queue.deferred
        own = [seq for seq in seqs if seq in deferred and deferred[seq].stored.session_id == session.id]
        return self._queue.receive_deferred(session, own)

    def renew(self, session: Session) -> bool:
        self._queue.tick()
        if not session.lost:
            session.locked_until = self._until()
            self._queue.tick_at(session.locked_until)
        return not session.lost

    def release(self, session: Session) -> bool:
        """Give the session up; what it leased comes back."""
        self._queue.tick()
        if session.lost:
            return False
        self._lose(session)
        self._queue.drop_owner(session)
        return True

    def get_state(self, session: Session) -> bytes | None:
        return self._states.get(session.id)

    def set_state(self, session: Session, state: bytes | None) -> bool:
        """False when the session is lost."""
        self._queue.tick()
        if session.lost:
            return False
        budget = self._queue.budget
        old = self._states.get(session.id)
        grows = (len(state) if state is not None else 0) - (len(old) if old is not None else 0)
        if state is not None and len(state) > MAX_SESSION_STATE_BYTES:
            raise EngineLimit(
                f"a session state has at most {MAX_SESSION_STATE_BYTES} bytes, not {len(state)}"
            )
        if old is None and state is not None and len(self._states) >= MAX_SESSIONS_PER_QUEUE:
            raise EngineLimit(f"{MAX_SESSIONS_PER_QUEUE} sessions have a state, the most there can be")
        if grows > 0 and not budget.has_room(grows):
            raise EngineLimit(f"no room for a session state of {grows} bytes more")
        if state is None:
            self._states.pop(session.id, None)
        else:
            self._states[session.id] = state
        budget.held_bytes += grows
        return True

    # The queue's side: called from its own tick and close, so nothing here ticks again.

    def expire(self, now: float) -> None:
        for session in [s for s in self._held.values() if s.locked_until <= now]:
            self._lose(session)
            self._queue.return_all(session, True)

    def next_due(self) -> float:
        return min((s.locked_until for s in self._held.values()), default=inf)

    def clear(self) -> None:
        for session in self._held.values():
            session.lost = True
        self._held.clear()
        self._queue.budget.held_bytes -= sum(map(len, self._states.values()))
        self._states.clear()

    def _lose(self, session: Session) -> None:
        session.lost = True
        del self._held[session.id]

    def _until(self) -> float:
        lock_s = self._queue.options.lock_s
        return inf if lock_s is None else self._clock.now() + lock_s
