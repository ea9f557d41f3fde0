"""How the last owner of a partition ended, told by the metadata of its committed offset (§5.4). Pure.

Rules
- Kafka counts no deliveries. What it does keep with a committed offset is a string of ours, 4096 bytes at most
  (`offset.metadata.max.bytes`); it is written with every commit: `unimq clean` by an owner that ended well, else `unimq open
  WIDE OFFSET:TRIES ...`.
- An owner writes *open* before it hands anything out. Whoever finds anything but *clean* (foreign tools leave nothing) takes
  the next `WIDE` messages for suspects: they may have been in hand when the owner died.
- A suspect counts as tried once, by that death, and once more for each try that was noted before its handler began. Only what
  was begun pays: its neighbours do not.
- More than `WIDE` may be out behind one that is stuck: then `WIDE` grows with it, by a commit that is not waited for. A death in
  the moment until it lands is not charged to what lies beyond; its next one is.
"""

from __future__ import annotations

from typing import Final

CLEAN: Final = "unimq clean"
OPEN: Final = "unimq open"
WIDE_MAX: Final = 10_000
TRIES_MAX: Final = 64  # offsets written down, the oldest first: one at a time is tried, so there are few
NUMBER_MAX: Final = 20  # digits


class Journal:
    """Of one partition. `prefetch`: how many this owner may have out; `found`: the metadata, None where the group had no
    commit yet."""

    __slots__ = ("suspects", "tries", "_wide")

    def __init__(self, prefetch: int, found: str | None) -> None:
        self.suspects = 0  # how many of the next messages may have been in hand
        self.tries: dict[int, int] = {}
        wide = prefetch
        if found is not None and found != CLEAN:
            before, self.tries = _read(found)
            self.suspects = min(before or prefetch, WIDE_MAX)
            wide = max(wide, self.suspects)
        self._wide = min(wide, WIDE_MAX)

    def times(self, offset: int) -> int | None:
        """How often the next message, at `offset`, was in hand when something ended badly; None: nobody knows of any."""
        if not self.suspects:
            return None
        self.suspects -= 1
        return 1 + self.tries.get(offset, 0)

    def note(self, offset: int, times: int) -> None:
        """Its handler is about to begin; it was in hand `times` times before."""
        self.tries[offset] = times

    def settled(self, below: int) -> None:
        """Everything before this offset is done."""
        if self.tries:
            self.tries = {offset: tries for offset, tries in self.tries.items() if offset >= below}

    def reaches(self, out: int) -> bool:
        """So many are out: whether what is written covers them. If not, it must be written again."""
        if out <= self._wide or self._wide >= WIDE_MAX:
            return True
        self._wide = min(max(self._wide * 2, out), WIDE_MAX)
        return False

    def text(self) -> str:
        """What the next owner must find, should this one die now."""
        tries = (f"{offset}:{self.tries[offset]}" for offset in sorted(self.tries)[:TRIES_MAX])
        return " ".join((OPEN, str(self._wide), *tries))


def _read(text: str) -> tuple[int, dict[int, int]]:
    """(how many may have been out, 0 = not said; offset → tries). What cannot be read says nothing."""
    if not text.startswith(OPEN + " "):
        return 0, {}
    wide, *pairs = text[len(OPEN) + 1 :].split(" ")
    if not _is_number(wide):
        return 0, {}
    tries: dict[int, int] = {}
    for pair in pairs[:TRIES_MAX]:
        offset, _, count = pair.partition(":")
        if _is_number(offset) and _is_number(count):
            tries[int(offset)] = int(count)
    return int(wide), tries


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_MAX
