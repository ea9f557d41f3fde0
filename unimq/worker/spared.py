"""What was in our hands when its line was lost, and cannot have been the reason: it does not pay for it.

Rules
- The broker counts every delivery that was not settled when its link died; it cannot know that this process lives on. We do:
  what no handler had begun is remembered here, and that much is taken off its count when it comes back to us.
- That holds for what was on its way back to its place by a copy (`give_back`) too.
- What a handler was at, or had just finished, pays: a message that takes its line down each time would come for ever.
- It is this process's own memory. In another one, and after a crash, the broker's count holds: it can only be too high.
- A message is known by its id and the number of its copies; without an id it is not remembered. At most `REMEMBERED_MAX`, the
  oldest go first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final, TypeAlias

from .. import headers as h
from ..delivery import Delivery

REMEMBERED_MAX: Final = 10_000
_Key: TypeAlias = tuple[str, object]


class Spared:
    """Any thread."""

    def __init__(self) -> None:
        self._times: dict[_Key, int] = {}
        self._back: dict[_Key, None] = {}
        self._lock = threading.Lock()

    def add(self, deliveries: Iterable[Delivery]) -> None:
        keys = [key for key in map(_key, deliveries) if key is not None]
        with self._lock:
            for key in keys:
                self._times[key] = self._times.pop(key, 0) + 1
            while len(self._times) > REMEMBERED_MAX:
                del self._times[next(iter(self._times))]

    def give_back(self, delivery: Delivery) -> None:
        """It is copied back, and no handler had begun it."""
        key = _key(delivery)
        if key is not None:
            with self._lock:
                self._back[key] = None
                while len(self._back) > REMEMBERED_MAX:
                    del self._back[next(iter(self._back))]

    def add_given_back(self, deliveries: Iterable[Delivery]) -> None:
        """Their settlements are lost: those that were on their way back are spared."""
        self.add([each for each in deliveries if _key(each) in self._back])

    def times(self, delivery: Delivery) -> int:
        """How often its line was lost while it was ours and no handler had begun it."""
        if not self._times:
            return 0
        key = _key(delivery)
        return 0 if key is None else self._times.get(key, 0)


def _key(delivery: Delivery) -> _Key | None:
    meta = delivery.metadata
    return None if meta.message_id is None else (meta.message_id, meta.unimq.get(h.COPIES))
