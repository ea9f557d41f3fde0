"""What became of each try, for tests, logs and numbers.

Rules
- One Outcome a try; `final` ones end the message for this worker (a retry comes back as another delivery).
- Watchers are called from the thread that handled the message, after the verb: they must not block or raise.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..address import Source
from ..delivery import Delivery


class Verb(enum.Enum):
    ACKED = "acked"
    SETTLED = "settled"  # by the handler itself
    IN_HAND = "in hand"  # tried again at once
    RETRIED = "retried"  # copied to a retry place
    DEAD = "dead"  # copied to the dead-letter place
    DROPPED = "dropped"  # dead, and `dead_letter=None` was written
    LOST = "lost"  # its link is gone: it comes again

    __hash__ = object.__hash__  # an Enum's own is a Python function, and each message is counted


FINAL = frozenset({Verb.ACKED, Verb.SETTLED, Verb.DEAD, Verb.DROPPED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """`handler` is "" where none was called. `reason` and `error` say why it was not acknowledged."""

    verb: Verb
    source: Source
    handler: str
    delivery: Delivery = field(repr=False)
    attempt: int = 1
    reason: str = ""
    error: BaseException | None = field(default=None, compare=False)

    @property
    def final(self) -> bool:
        return self.verb in FINAL


Watcher = Callable[[Outcome], None]


class Ledger:
    """Counts outcomes and passes them on. Any thread (a Counter's `+= 1` under the GIL may lose one: these are for people)."""

    def __init__(self) -> None:
        self.counts: Counter[Verb] = Counter()
        self.watchers: list[Watcher] = []

    def count(self, verb: Verb) -> None:
        """What nobody watches is only counted."""
        self.counts[verb] += 1

    def write(self, outcome: Outcome) -> None:
        self.counts[outcome.verb] += 1
        for watcher in self.watchers:
            watcher(outcome)
