"""The retry policy: a value, and the pure decisions made from it.

Rules
- Finite by default. A stage is `1 + immediate` tries in hand; stages are joined by the delays of `delayed_s`.
- `attempt` counts every try, 1, 2, 3 … over stages; at most `max_attempts`, then the message is dead (`exhausted`).
- Nothing here waits, sends or knows a broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .errors import HandlerSignal

REASONS = frozenset(
    {"exhausted", "fatal", "undecodable", "expired", "rejected", "max-delivery", "crashed", "unroutable"}
)


@dataclass(frozen=True, slots=True)
class Retry:
    """`(1 + immediate) × (1 + len(delayed_s))` tries in all. `max_age_s` ends them earlier by age since the first
    failure; `crashes` is how often a message may kill its process."""

    immediate: int = 2
    delayed_s: Sequence[float] = field(default=(1.0, 10.0, 60.0))
    jitter: float = 0.1
    max_age_s: float | None = None
    crashes: int = 5

    def __post_init__(self) -> None:
        if self.immediate < 0 or self.crashes < 1:
            raise ValueError("Retry: immediate is 0 or more, crashes 1 or more")
        if any(delay <= 0 for delay in self.delayed_s):
            raise ValueError("Retry: delays are seconds above 0; an immediate try is `immediate`")
        if not 0 <= self.jitter < 1:
            raise ValueError("Retry: jitter is a fraction, 0 to below 1")
        object.__setattr__(self, "delayed_s", tuple(float(delay) for delay in self.delayed_s))

    @property
    def max_attempts(self) -> int:
        return (1 + self.immediate) * (1 + len(self.delayed_s))


@dataclass(frozen=True, slots=True)
class InHand:
    """Try again now: the same delivery is handed out next."""


@dataclass(frozen=True, slots=True)
class Later:
    """Copy to a retry place with this delay, then settle the source."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Copy to the dead-letter place with this reason, then settle the source."""

    reason: str


Decision = InHand | Later | Dead


def after_failure(policy: Retry, *, attempt: int, try_in_hand: int, age_s: float | None) -> Decision:
    """What becomes of a message whose try number `attempt` failed; `try_in_hand` is 1 for the first of a stage.

    Counted from `attempt`, not from what is in hand: a crash forgets the tries in hand, never the stages.
    """
    if attempt >= policy.max_attempts or (
        policy.max_age_s is not None and age_s is not None and age_s >= policy.max_age_s
    ):
        return Dead("exhausted")
    if try_in_hand <= policy.immediate:
        return InHand()
    if not policy.delayed_s:
        return Dead("exhausted")
    stage = max(attempt // (1 + policy.immediate), 1)  # an explicit retry may come before the stage's end
    return Later(policy.delayed_s[stage - 1])


def jittered(delay_s: float, jitter: float, unit: float) -> float:
    """`delay_s` spread by ± `jitter`; `unit` is a random number in 0 … 1 (the caller owns the seed)."""
    return delay_s * (1 + jitter * (2 * unit - 1))


class RetryLater(HandlerSignal):
    """A handler raises this to be tried again after `delay_s`; counted like any failure."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


class DeadLetter(HandlerSignal):
    """A handler raises this to put its message into the dead letters at once."""

    def __init__(self, reason: str, description: str = "") -> None:
        super().__init__(reason, description)
        self.reason = reason
        self.description = description
