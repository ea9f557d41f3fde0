"""The proof can fail: adapters that are broken on purpose are caught, each by the behaviours that are named for it.

Rules
- A broken adapter is the in-process one with one lie added, on a scheme of its own.
- Each lie is caught in both worlds by every behaviour named; without the lie the same wrapper passes them all.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from unimq import registry
from unimq.capabilities import ABSENT
from unimq.driver import (
    ALL_SETTLED,
    ALL_WELL,
    Ack,
    Batch,
    BatchResult,
    ConnectOptions,
    Copy,
    Declaration,
    Delivery,
    Done,
    Event,
    Outcome,
    SettleResult,
)
from unimq.headers import ATTEMPT
from unimq.testing import reset
from unimq.testing.conformance import FAILED, PASS, UNSUPPORTED, Case, Harness, cases
from unimq.url import Endpoint

LIES: dict[str, tuple[int, ...]] = {
    "loses every third ack": (22, 34),
    "acks what came before, too": (26,),
    "loses every third send and confirms it": (15, 71),
    "says that messages expire, and they do not": (57, 58),
    "takes a duplicate window that it does not declare": (73, 102),
    "hands out in the wrong order": (60, 61),
    "loses copies and says that they are written": (43, 48, 126, 132),
    "forgets the count of tries on the way": (37, 126, 129),
    "hands out a message twice": (1, 15),
    "hands out more than the prefetch": (32,),
    "drops headers on the way": (6, 9),
}
CLEAN = "no lie"


class BrokenSender:
    def __init__(self, inner: Any, lie: str) -> None:
        self.inner, self.lie, self.count = inner, lie, 0

    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        messages, bodies = list(batch.messages), list(batch.bodies)
        ids = None if batch.ids is None else list(batch.ids)
        if self.lie == "says that messages expire, and they do not":
            messages = [message.copy(ttl_s=None) for message in messages]
        if self.lie == "drops headers on the way":
            messages = [message.copy(headers=None, subject=None) for message in messages]
        if self.lie == "loses every third send and confirms it":
            kept = []
            for index in range(len(messages)):
                self.count += 1
                if self.count % 3:
                    kept.append(index)
            if len(kept) < len(messages):
                part = Batch(
                    [messages[i] for i in kept],
                    [bodies[i] for i in kept],
                    None,
                    None if ids is None else [ids[i] for i in kept],
                    batch.deadline,
                )
                self.inner.submit(part, lambda result: None)
                done(ALL_WELL)
                return len(messages)
        changed = Batch(messages, bodies, batch.content_types, ids, batch.deadline)
        taken: int = self.inner.submit(changed, done)
        return taken

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        if self.lie == "loses copies and says that they are written":
            done(ALL_WELL)
            return
        if self.lie == "forgets the count of tries on the way":
            copies = [
                dataclasses.replace(
                    copy,
                    set_headers={
                        name: copy.set_headers[name] for name in copy.set_headers if name != ATTEMPT
                    },
                    drop_headers=copy.drop_headers | {ATTEMPT},
                )
                for copy in copies
            ]
        self.inner.forward(copies, done)

    def close(self, timeout_s: float) -> None:
        self.inner.close(timeout_s)


class BrokenReceiver:
    def __init__(self, inner: Any, lie: str) -> None:
        self.inner, self.lie, self.count = inner, lie, 0
        self.handed: dict[Any, Delivery] = {}
        self.lock = threading.Lock()

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        found = list(self.inner.receive(max_messages, timeout_s))
        for delivery in found:
            self.handed[delivery.tag] = delivery
            delivery.link = self
        if self.lie == "hands out in the wrong order":
            found.reverse()
        if self.lie == "hands out a message twice" and found:
            found.append(copy.copy(found[0]))
        return found

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        chosen = list(deliveries)
        with self.lock:
            if isinstance(outcome, Ack) and self.lie == "loses every third ack":
                kept = []
                for delivery in chosen:
                    self.count += 1
                    if self.count % 3:
                        kept.append(delivery)
                chosen = kept
            if isinstance(outcome, Ack) and self.lie == "acks what came before, too":
                last = max(delivery.tag for delivery in chosen)
                chosen = [delivery for tag, delivery in self.handed.items() if tag <= last]
            for delivery in chosen:
                self.handed.pop(delivery.tag, None)
        if chosen:
            self.inner.settle(chosen, outcome, done)
        else:
            done(ALL_SETTLED)

    def flush(self, done: Done[SettleResult]) -> None:
        self.inner.flush(done)

    def wake(self) -> None:
        self.inner.wake()

    def close(self, timeout_s: float) -> None:
        self.inner.close(timeout_s)


class BrokenConnection:
    """Only the mandatory part and Admin; events name our links, not the ones inside."""

    def __init__(self, lie: str) -> None:
        self.lie = lie
        self.inner: Any = None
        self.capabilities: Any = None
        self.links: dict[int, Any] = {}

    def open(self, inner: Any) -> BrokenConnection:
        self.inner, self.capabilities = inner, _declared(inner.capabilities, self.lie)
        return self

    @property
    def facts(self) -> Any:
        return self.inner.facts

    def translated(self, event: Event) -> Event:
        link = getattr(event, "link", None)
        ours = self.links.get(id(link)) if link is not None else None
        return event if ours is None else dataclasses.replace(event, link=ours)

    def sender(self, target: Any, options: Any) -> BrokenSender:
        inner = self.inner.sender(target, options)
        ours = self.links[id(inner)] = BrokenSender(inner, self.lie)
        return ours

    def receiver(self, source: Any, options: Any) -> BrokenReceiver:
        if self.lie == "hands out more than the prefetch" and options.mode == "consume":
            options = dataclasses.replace(options, prefetch=1000)
        inner = self.inner.receiver(source, options)
        ours = self.links[id(inner)] = BrokenReceiver(inner, self.lie)
        return ours

    def declare(self, topology: Sequence[Declaration], *, verify_only: bool) -> Any:
        return self.inner.declare(topology, verify_only=verify_only)

    def stats(self, place: Any) -> Any:
        return self.inner.stats(place)

    def purge(self, place: Any) -> Any:
        return self.inner.purge(place)

    def delete(self, place: Any) -> None:
        self.inner.delete(place)

    def close(self, timeout_s: float) -> None:
        self.inner.close(timeout_s)


def _declared(capabilities: Any, lie: str) -> Any:
    if lie == "takes a duplicate window that it does not declare":
        return capabilities.narrowed(dedup=ABSENT)
    return capabilities


class BrokenAdapter:
    """The in-process adapter under another scheme."""

    def __init__(self, lie: str, scheme: str) -> None:
        self.lie, self.schemes = lie, (scheme,)
        self.inner: Any = registry.find("memory")
        self.name, self.extra, self.url_options = self.inner.name, self.inner.extra, self.inner.url_options
        self.capabilities = _declared(self.inner.capabilities, lie)

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Callable[[Event], None]) -> Any:
        ours = BrokenConnection(self.lie)
        inside = dataclasses.replace(endpoint, scheme="memory")
        return ours.open(self.inner.connect(inside, options, lambda event: sink(ours.translated(event))))

    def classify(self, error: BaseException, *, op: Any, handed_over: bool) -> Any:
        return self.inner.classify(error, op=op, handed_over=handed_over)

    def plan(self, source: Any, policy: Any, facts: Any) -> Any:
        return self.inner.plan(source, policy, facts)


def _ran(case: Case, lie: str) -> str:
    """The kind of outcome of this case on an adapter with this lie."""
    scheme = f"broken{abs(hash((lie, str(case)))) % 10**9}"
    adapter: Any = BrokenAdapter(lie, scheme)
    registry.register(adapter)
    try:
        harness = Harness(url=f"{scheme}://{scheme}", patience_s=2.0, quiet_s=0.1, delay_s=0.2)
        return case.run(harness).kind
    except Exception:
        return FAILED
    finally:
        registry.unregister(adapter)
        reset(f"memory://{scheme}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lie", LIES)
def test_a_broken_adapter_is_caught(lie: str) -> None:
    for case in cases(LIES[lie]):
        assert _ran(case, lie) == FAILED, f"{case} did not notice that it {lie}"


@pytest.mark.timeout(300)
def test_without_the_lie_the_wrapper_passes() -> None:
    for case in cases(sorted({number for numbers in LIES.values() for number in numbers})):
        assert _ran(case, CLEAN) in (PASS, UNSUPPORTED, "emulated"), case


def test_a_known_difference_that_is_gone_fails() -> None:
    (case,) = cases([1], ["sync"])
    harness = Harness(url="memory://known-difference", known={1: "it is said to lose everything"})
    with pytest.raises(AssertionError, match="take its known difference"):
        case.run(harness)
    reset(harness.url)
