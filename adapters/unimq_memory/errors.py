"""Everything that can go wrong in a broker of the same process → our errors. Pure.

Rules
- What was stored and not confirmed when a line broke is an unknown outcome (`handed_over`), never "not sent".
- The tables are read in order, the most derived class first. What none knows is counted and comes back as `unknown`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from unimq.broker.engine import EngineLimit, Refusal
from unimq.driver import Op
from unimq.errors import (
    ConnectionFailed,
    NotFound,
    Rejected,
    ResourceExhausted,
    SendOutcomeUnknown,
    UnimqError,
    Unroutable,
)

ADAPTER: Final = "memory"
unknown: Counter[str] = Counter()

ERRORS: Final[tuple[tuple[type[BaseException], type[UnimqError]], ...]] = (
    (ConnectionError, ConnectionFailed),
    (TimeoutError, ConnectionFailed),  # a broker that accepts and answers nothing
    (EngineLimit, ResourceExhausted),
)


class LineLost(ConnectionError):
    """A fault of a test, or `reset()`: the line to the broker is gone."""


def classify(error: BaseException, *, op: Op, handed_over: bool) -> UnimqError:
    if isinstance(error, UnimqError):
        return error
    for known, ours in ERRORS:
        if isinstance(error, known):
            if ours is ConnectionFailed and op is Op.SEND and handed_over:
                return SendOutcomeUnknown(
                    f"the line broke before the confirmation: {error}", adapter=ADAPTER, cause=error
                )
            return ours(str(error) or type(error).__name__, adapter=ADAPTER, cause=error)
    unknown[type(error).__name__] += 1
    return UnimqError(
        f"unknown: {type(error).__name__}: {error}",
        code="unknown",
        may_have_been_sent=handed_over and op is Op.SEND,
        adapter=ADAPTER,
        cause=error,
    )


def refused(refusal: Refusal, place: str, *, stored_elsewhere: bool) -> UnimqError:
    """A queue's refusal of one message. `stored_elsewhere`: other subscriptions of the topic have it."""
    if refusal is Refusal.CLOSED:
        return Unroutable(f"{place} was deleted; mq.declare(...) makes it again", adapter=ADAPTER)
    if refusal is Refusal.BROKER_FULL:
        text = "the memory broker is full: it holds as many bytes as it may"
        return ResourceExhausted(text, adapter=ADAPTER, may_have_been_sent=stored_elsewhere)
    text = "its max_length is reached" if refusal is Refusal.QUEUE_FULL else refusal.value
    return Rejected(f"{place} refused it: {text}", adapter=ADAPTER, may_have_been_sent=stored_elsewhere)


def not_found(what: object) -> NotFound:
    return NotFound(f"there is no {what}; mq.declare(...) makes it", adapter=ADAPTER)
