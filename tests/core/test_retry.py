"""The policy: finite, and decided by numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimq import Retry
from unimq.retry import Dead, InHand, Later, after_failure, jittered

policies = st.builds(Retry, immediate=st.integers(0, 4), delayed_s=st.lists(st.floats(0.1, 1000), max_size=4))


@given(policies)
def test_a_message_that_always_fails_is_tried_max_attempts_times(policy: Retry) -> None:
    attempt, in_hand, delays = 1, 1, []
    while True:
        decision = after_failure(policy, attempt=attempt, try_in_hand=in_hand, age_s=None)
        if isinstance(decision, Dead):
            break
        attempt += 1
        if isinstance(decision, InHand):
            in_hand += 1
        else:
            delays.append(decision.delay_s)
            in_hand = 1
    assert decision == Dead("exhausted")
    assert attempt == policy.max_attempts
    assert delays == list(policy.delayed_s)


@given(policies, st.integers(1, 60), st.integers(1, 6))
def test_any_count_gets_a_decision(policy: Retry, attempt: int, in_hand: int) -> None:
    decision = after_failure(policy, attempt=attempt, try_in_hand=in_hand, age_s=None)
    if attempt >= policy.max_attempts:
        assert decision == Dead("exhausted")
    if isinstance(decision, Later):
        assert decision.delay_s in policy.delayed_s


def test_age_ends_it() -> None:
    policy = Retry(max_age_s=10)
    assert after_failure(policy, attempt=1, try_in_hand=1, age_s=9) == InHand()
    assert after_failure(policy, attempt=1, try_in_hand=1, age_s=10) == Dead("exhausted")


@given(st.floats(0.1, 1e5), st.floats(0, 0.9), st.floats(0, 1))
def test_jitter_stays_in_its_bounds(delay_s: float, jitter: float, unit: float) -> None:
    assert delay_s * (1 - jitter) * 0.999 <= jittered(delay_s, jitter, unit) <= delay_s * (1 + jitter) * 1.001


@pytest.mark.parametrize(
    "wrong", [{"immediate": -1}, {"crashes": 0}, {"delayed_s": [0]}, {"delayed_s": [-1]}, {"jitter": 1}]
)
def test_a_wrong_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Retry"):
        Retry(**wrong)  # type: ignore[arg-type]
