"""`unimq.explain`: what a broker makes of the promises, and where the messages of an address go. For people, and for tests.

Rules
- It reads the same capabilities and the same plan that the rest acts on; nothing is said here that is not done there.
- No secret: the URL is shown without its password.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import url as urls
from .address import Address, Queue, Subscription, Topic
from .capabilities import FLAGS, Capabilities
from .driver import IN_HAND, Facts, Place, Plan
from .errors import Unsupported
from .registry import find
from .retry import Retry


@dataclass(frozen=True, slots=True)
class Explanation:
    """`places`: (what for, where). `str()` is the page for people."""

    broker: str
    url: str
    capabilities: Capabilities
    address: Address | None = None
    places: Sequence[tuple[str, str]] = ()
    losses: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"{self.broker}  {self.url}", ""]
        for name in FLAGS:
            loss = self.capabilities.losses.get(name)
            lines.append(
                f"  {name:22}{getattr(self.capabilities, name).value}{'' if loss is None else ': ' + loss}"
            )
        if self.address is not None:
            lines += ["", str(self.address)]
            lines += [f"  {what:22}{where}" for what, where in self.places]
            lines += [f"  note: {loss}" for loss in self.losses]
        return "\n".join(lines)


def explain(
    url: str,
    address: Address | None = None,
    *,
    connect: bool = True,
    retry: Retry | None = Retry(),
    **options: Any,
) -> Explanation:
    """What the broker at `url` has, and where messages of `address` go under the policy `retry`. With `connect=False`
    nothing is asked: the most that the adapter can. Raises as `connect` does."""
    adapter = find(urls.scheme_of(url))
    endpoint = urls.parse(url)
    facts, capabilities = Facts(), adapter.capabilities
    if connect:
        from ._connect import connect as connect_now

        with connect_now(url, **options) as client:
            capabilities = client.capabilities
            facts = client._questions.facts
    broker = capabilities.found or adapter.name
    if address is None:
        return Explanation(broker, str(endpoint), capabilities)
    if not isinstance(address, Queue | Topic | Subscription):
        raise TypeError(f"an address is a Queue, Topic or Subscription, not {address!r}")
    plan = adapter.plan(address, retry, facts)
    return Explanation(
        broker, str(endpoint), capabilities, address, _places(address, plan, retry), plan.losses
    )


def _places(address: Address, plan: Plan, retry: Retry | None) -> list[tuple[str, str]]:
    if isinstance(address, Topic):
        return []
    places = [("release", _where(plan.release))]
    for delay_s in retry.delayed_s if retry is not None and not address.ordered else ():  # type: ignore[attr-defined]
        try:
            places.append((f"retry after {delay_s:g} s", str(plan.retry(delay_s))))
        except Unsupported as refused:
            places.append((f"retry after {delay_s:g} s", f"refused: {refused}"))
    places.append(("dead letters go to", "nowhere" if plan.dead_write is None else _where(plan.dead_write)))
    places += [("dead letters lie in", str(place)) for place in plan.dead_read]
    places += [("also read", str(place)) for place in plan.also_read]
    return places


def _where(how: object) -> str:
    if isinstance(how, Place):
        return f"a confirmed copy to {how}, then the source is settled"
    return "handed out again here" if how is IN_HAND else "the broker's own"
