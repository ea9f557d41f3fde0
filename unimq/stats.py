"""Numbers about a place and about a client. None means unknown, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stats:
    """Messages waiting (`depth`), handed out (`in_flight`), `delayed`, `dead`, behind the end (`lag`); `consumers`."""

    depth: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    dead: int | None = None
    lag: int | None = None
    consumers: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Progress, not a TCP connection. `ok` is the answer, `problems` say why not, `details` are for people."""

    ok: bool
    problems: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.ok
