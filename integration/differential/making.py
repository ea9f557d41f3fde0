"""What operations are made of: the names, and what a program knows while it is made.

Rules
- An operation is a dict with JSON's types only, so that a program can be printed and typed in again.
- Programs name queues q0… and exchanges e0…; the executor puts the run's prefix before them.
- The dead letters of two queues never have the same place by name: of two that die at once, nobody says which comes first.
  Nor do they go from a classic queue to a quorum queue, which takes them before a message that comes at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

Op: TypeAlias = dict[str, Any]

SHORT_MS: Final = 500
LONG_MS: Final = 600_000
QUEUES: Final = ("q0", "q1", "q2", "q3")
EXCHANGES: Final = ("e0", "e1", "e2")
CHANNELS: Final = ("a0", "a1", "b0", "b1")  # letter: connection; 0: with confirms
KEYS: Final = ("", "k", "a.b", "a.b.c", "b..c", "q0", "q1")
PATTERNS: Final = ("#", "*", "a.*", "a.#", "#.c", "b.*.c", "k", "", "*.b", "a.*.#")
# Built-in exchanges are shared by all programs on a broker: only one that goes by the key is used, and bound by names of the
# run alone.
BUILT_IN: Final = "amq.direct"
BODIES: Final = (0, 0, 0, 5, 30)  # padding bytes


@dataclass
class Making:
    """What a program has so far."""

    random: Random
    quorum: bool
    short: bool  # something expires
    rude: bool  # also says what no broker takes
    round: bool  # dead letters come back to where they died
    ops: list[Op] = field(default_factory=list)
    queues: dict[str, Op] = field(default_factory=dict)
    exchanges: dict[str, Op] = field(default_factory=dict)
    consumes: list[Op] = field(default_factory=list)
    reads: dict[str, str] = field(default_factory=dict)  # channel → the one queue that it consumes from
    holders: list[str] = field(default_factory=list)  # channels that have been given something, probably
    since_wait: int = 0
    made: int = 0
    focus: tuple[str, ...] = ("q0", "q1")  # where most of it happens
    places: dict[str, str] = field(default_factory=dict)  # queue → where its dead letters go by name
    quorums: tuple[str, ...] = ()  # a name keeps its type: see the known differences
    by_exchange: str = ""  # the one queue whose dead letters may go through an exchange

    def __post_init__(self) -> None:
        self.quorums = tuple(queue for queue in QUEUES if self.quorum and self.often(0.6))
        for group in self._groups():
            self.places |= zip(group, self.random.sample(group, len(group)), strict=True)
        self.by_exchange = str(self.pick(self.quorums or QUEUES))

    def _groups(self) -> list[list[str]]:
        """Queues whose dead letters stay among themselves."""
        pairs = (QUEUES[:2], QUEUES[2:]) if self.round else (QUEUES,)
        groups = [
            [q for q in pair if (q in self.quorums) == kind] for pair in pairs for kind in (False, True)
        ]
        return [group for group in groups if group]

    def pick(self, items: Any) -> Any:
        return self.random.choice(list(items))

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def wrong(self, share: float) -> bool:
        return self.rude and self.often(share)

    def queue(self) -> str:
        """One that should be there, mostly."""
        if self.often(0.6):
            return str(self.pick(self.focus))
        return str(self.pick(QUEUES if not self.queues or self.wrong(0.06) else self.queues))

    def exchange(self) -> str:
        if self.often(0.08):
            return BUILT_IN
        return str(self.pick(EXCHANGES if not self.exchanges or self.wrong(0.06) else self.exchanges))

    def channel(self) -> str:
        return str(self.pick(CHANNELS))

    def stays(self, queue: str) -> bool:
        """Once declared it is there, whatever has happened."""
        there = self.queues[queue]
        return not (
            there["auto_delete"]
            or there["exclusive"]
            or "x-expires" in there["arguments"]
            or any(op["op"] == "delete_queue" and op["queue"] == queue for op in self.ops)
        )

    def argument(self, queue: str, name: str) -> Any:
        """What the queue was declared with first."""
        return self.queues.get(queue, {}).get("arguments", {}).get(name)
