"""The suite's own machinery: the table, the limits, the outcomes, the deliveries for unit tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

import pytest

import unimq
from unimq import Message, Queue, RetryLater
from unimq.capabilities import ABSENT, EMULATED, FLAGS, NATIVE, Capabilities
from unimq.retry import DeadLetter
from unimq.testing import Settled, delivery
from unimq.testing.conformance import (
    EMULATION,
    KNOWN,
    NOT_RUN,
    PASS,
    PROBES,
    UNSUPPORTED,
    WORLDS,
    Behaviour,
    Case,
    CaseHung,
    Harness,
    cases,
    conformance_tests,
    load,
)

pytest_plugins = ["pytester"]

# Flags without a behaviour of their own yet: what proves them needs a part of the API that is not there.
LATER = {"defer", "lock_renewal", "transactions", "seek", "request_reply", "stats_lag"}
# Flags that no call asks for alone: connect(require=[…]) refuses them.
BY_REQUIRE = {
    "confirmed_send",
    "settlement_confirmed",
    "ack",
    "crash_limit",
    "filters_verified",
    "request_reply",
}
PROMISED = {
    *range(1, 18), 19, 20, *range(22, 33), *range(34, 73), 76, *range(82, 98), 99, *range(102, 137),
}  # fmt: skip


def test_every_promise_is_written_in_both_worlds() -> None:
    table = load()
    assert set(table) >= PROMISED, sorted(PROMISED - set(table))
    for behaviour in table.values():
        assert set(behaviour.functions) == set(WORLDS), behaviour.name
        assert asyncio.iscoroutinefunction(behaviour.functions["async"])
        assert not asyncio.iscoroutinefunction(behaviour.functions["sync"])
        assert behaviour.promise.endswith("."), behaviour.name
        assert behaviour.functions["sync"].__doc__, behaviour.name


def test_every_flag_is_tried_both_ways() -> None:
    proven = {flag for behaviour in load().values() for flag in behaviour.needs}
    assert set(FLAGS) - proven == LATER
    for world in WORLDS:
        assert set(FLAGS) - set(PROBES[world]) == BY_REQUIRE


def made(function: Any, **more: Any) -> Case:
    given: dict[str, Any] = {"needs": (), "hooks": (), "limit_s": 10.0, "part": "here", **more}
    behaviour = Behaviour(900, function.__name__, "A promise.", functions={"sync": function}, **given)
    return Case(behaviour, "sync")


def harness(**flags: Any) -> Harness:
    found = Capabilities(found="Test 1.0", losses={"ttl": "it is late"}, **flags)
    return Harness(url="memory://none", _found=found)


def fine(h: Harness) -> None:
    """A behaviour that holds."""


def broken(h: Harness) -> None:
    """A behaviour that does not."""
    raise AssertionError("it does not hold")


def test_outcomes() -> None:
    assert made(fine).run(harness()).kind == PASS
    native = made(fine, needs=("ttl",)).run(harness(ttl=NATIVE))
    assert native.kind == PASS
    emulated = made(fine, needs=("ttl",)).run(harness(ttl=EMULATED))
    assert (emulated.kind, emulated.reason) == (EMULATION, "ttl: it is late")
    no_hook = made(fine, hooks=("proxy", "restart")).run(harness())
    assert no_hook.kind == NOT_RUN
    assert "proxy, restart" in no_hook.reason
    with pytest.raises(AssertionError, match="does not hold"):
        made(broken).run(harness())


def test_unsupported_must_be_seen_to_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    case = made(broken, needs=("ttl",))
    monkeypatch.setitem(PROBES["sync"], "ttl", fine)
    outcome = case.run(harness(ttl=ABSENT))
    assert outcome.kind == UNSUPPORTED
    assert "Test 1.0" in outcome.reason
    monkeypatch.setitem(PROBES["sync"], "ttl", broken)
    with pytest.raises(AssertionError, match="does not hold"):
        case.run(harness(ttl=ABSENT))


def test_a_known_difference_is_run_and_named() -> None:
    h = harness()
    h.known = {900: "the broker sleeps on Sundays"}
    outcome = made(broken).run(h)
    assert outcome.kind == KNOWN
    assert "Sundays" in outcome.reason
    assert "does not hold" in outcome.reason
    with pytest.raises(AssertionError, match="Sundays"):
        made(fine).run(h)


def test_a_case_that_hangs_fails_and_says_where() -> None:
    never = threading.Event()

    def hangs(h: Harness) -> None:
        never.wait(30.0)

    with pytest.raises(CaseHung, match=r"never\.wait"):
        made(hangs, limit_s=0.2).run(harness())
    never.set()


def test_an_async_case_that_blocks_its_loop_is_ended_too() -> None:
    never = threading.Event()

    async def hangs(h: Harness) -> None:
        never.wait(30.0)

    with pytest.raises(CaseHung, match=r"never\.wait"):
        made(hangs, limit_s=0.2).run(harness())
    never.set()


def test_an_unknown_behaviour_is_refused() -> None:
    with pytest.raises(ValueError, match="9999"):
        cases([1, 9999])
    assert [str(case) for case in cases([22], ["sync"])] == ["sync-022_ack_removes"]


def test_the_tests_of_an_adapter_are_one_function() -> None:
    function = conformance_tests([1, 22])
    (mark,) = function.pytestmark  # type: ignore[attr-defined]
    assert len(mark.args[1]) == 4


def test_names_are_unique() -> None:
    h = harness()
    names = {h.unique("a") for _ in range(100)} | {h.queue().name for _ in range(100)}
    assert len(names) == 200
    assert h.url_with(a=1) == "memory://none?a=1"
    h.url += "?b=2"
    assert h.url_with(a=1) == "memory://none?b=2&a=1"


def test_importing_testing_imports_no_pytest_and_no_client_library() -> None:
    code = (
        "import sys, unimq.testing\n"
        "bad = {'pytest', 'pika', 'stomp', 'confluent_kafka', 'azure.servicebus'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# ------------------------------------------------------------------------------------------ deliveries for unit tests
@dataclass
class Order:
    number: int


def handler(order: Order, incoming: unimq.Delivery) -> None:
    if order.number == 0:
        incoming.dead_letter("no number", "it is 0")
    elif order.number < 0:
        raise RetryLater(5)


def test_a_delivery_for_a_handler() -> None:
    incoming = delivery(Order(7), key="k", headers={"tenant": "a"}, attempt=3)
    assert (incoming.key, incoming.attempt, incoming.headers["tenant"]) == ("k", 3, "a")
    assert incoming.content_type == "application/json"
    assert incoming.source == Queue("test")
    assert incoming.settled is None
    with incoming:
        handler(incoming.decode(Order), incoming)
    assert incoming.settled == Settled("ack")
    with pytest.raises(unimq.AlreadySettled):
        incoming.release()


def test_what_a_handler_does_is_written_down() -> None:
    dead = delivery(Order(0))
    with dead:
        handler(dead.decode(Order), dead)
    assert dead.settled == Settled("dead_letter", reason="no number", description="it is 0")
    later = delivery(Order(-1))
    with later:
        handler(later.decode(Order), later)
    assert later.settled == Settled("retry", delay_s=5)
    raised = delivery(b"x")
    with raised:
        raise DeadLetter("why", "because")
    assert raised.settled == Settled("dead_letter", reason="why", description="because")
    stopped = delivery(b"x")
    with pytest.raises(KeyboardInterrupt), stopped:
        raise KeyboardInterrupt
    assert stopped.settled == Settled("release")
    for verb in ("ack", "release", "retry", "defer"):
        each = delivery(None)
        getattr(each, verb)()
        assert each.settled is not None
        assert each.settled.verb == verb
    assert delivery("text").decode(str) == "text"


# ----------------------------------------------------------------------------------------------------- the fixtures
def test_the_fixtures_give_a_fresh_broker(unimq_url: str, unimq_client: unimq.Client) -> None:
    unimq_client.declare(Queue("fresh"))
    unimq_client.send(Queue("fresh"), Message(b"x"))
    with unimq.connect(unimq_url) as other:
        assert other.stats(Queue("fresh")).depth == 1


def test_the_next_one_is_fresh_again(unimq_client: unimq.Client) -> None:
    assert unimq_client.declare(Queue("fresh"), verify_only=True).missing


@pytest.mark.unimq_async(timeout_s=20)
async def test_a_coroutine_with_the_mark_is_run(unimq_url: str) -> None:
    async with unimq.connect_async(unimq_url) as mq:
        await mq.declare(Queue("q"))
        assert (await mq.send(Queue("q"), Message(b"x"))).message_id


def test_the_mark_has_a_hard_limit_and_leaves_other_coroutines_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.unimq_async(timeout_s=0.3)
        async def test_hangs():
            await asyncio.sleep(30)

        @pytest.mark.unimq_async
        async def test_fails():
            assert 1 == 2

        async def test_not_ours():
            assert 1 == 2
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", timeout=60)
    result.stdout.fnmatch_lines(
        ["*did not end within 0.3 s*", "*assert 1 == 2*", "*async def functions are not natively supported*"]
    )
