"""What `declare` asks for and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .address import Address
from .errors import TopologyMismatch


@dataclass(frozen=True, slots=True)
class Declaration:
    """One `declare` call, or the part of a plan that makes places exist. Options left None are the broker's.

    `places` are what a plan needs beside the address itself (retry and dead-letter `Place`s).
    """

    address: Address
    replace_filters: bool = False
    partitions: int | None = None
    ttl_s: float | None = None
    max_length: int | None = None
    max_priority: int | None = None
    dedup_window_s: float | None = None
    lock_s: float | None = None
    native: Mapping[str, Any] = field(default_factory=dict)
    places: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """`created`, `existing`, `missing` name broker places; `differences`: place → {option: (there, asked)}.

    `facts` is what a plan may need: partitions, flavour, scheduler, limits, places found.
    """

    created: Sequence[str] = ()
    existing: Sequence[str] = ()
    missing: Sequence[str] = ()
    differences: Mapping[str, Mapping[str, tuple[object, object]]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.missing and not self.differences

    def raise_for_differences(self) -> None:
        if self.ok:
            return
        parts = [f"{place} is missing" for place in self.missing]
        parts += [
            f"{place}: {option} is {there!r}, asked for {asked!r}"
            for place, options in self.differences.items()
            for option, (there, asked) in options.items()
        ]
        raise TopologyMismatch(
            "; ".join(parts) + ': declare it (topology="create"), or ask for what is there',
            differences={place: (dict(options), None) for place, options in self.differences.items()},
        )
