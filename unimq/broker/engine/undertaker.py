"""What happens to messages and queues at their end: dead letters find their exchange, unused queues expire.

Rules
- A dead letter is published by the broker: to the queue's dead-letter exchange, under its key or under the message's own.
- At most once (the rule): an exchange that is not there, no queue, a cycle or a full queue, and it is gone.
- At least once (quorum, with reject-publish): it stays until every queue it is routed to has it; nowhere to go is a reason
  to stay. A cycle is dropped here as well.
- A queue with x-expires is in use while it has consumers; a declare, a get and the last consumer's leaving start its time
  anew (rabbit_amqqueue_process:ensure_expiry_timer).
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Final

from .amqpqueue import AmqpQueue
from .message import Stored
from .publication import publication_of, stored_of
from .queue import QueueCore
from .xdeath import REASONS, cycles, dead_letter

if TYPE_CHECKING:
    from .vhost import VHost

# Dead letters that some queues have and others refused; more than these start over and may be there twice.
PARTLY_TAKEN_MAX: Final = 10_000


class Undertaker:
    """Of one virtual host."""

    def __init__(self, vhost: VHost) -> None:
        self._vhost = vhost
        self._due: list[tuple[float, int, AmqpQueue]] = []
        self._pushed = count()
        self._partly: dict[tuple[str, int], set[str]] = {}
        vhost.engine.attach(self)

    # --------------------------------------------------------------------------------------------- dead letters

    def take(self, core: QueueCore, stored: Stored) -> bool:
        """The engine's `dead_letter`: its place has it now."""
        vhost = self._vhost
        queue = vhost.queue_of(core)
        if queue is None or queue.spec.dead_letter_exchange is None:
            return True
        spec = queue.spec
        exchange = spec.dead_letter_exchange
        assert exchange is not None
        if exchange and exchange not in vhost.exchanges:
            return not spec.at_least_once
        death = stored.deaths[0]
        reason = REASONS.get(death.reason, death.reason)
        sent = dead_letter(
            publication_of(stored),
            reason,
            queue.name,
            death.died_at,
            exchange,
            spec.dead_letter_key,
            believes_client=vhost.dialect.believes_x_death,
        )
        letter = stored_of(sent, stored.body, priority=stored.priority, persistent=stored.persistent)
        found = list(vhost.routed(sent, letter))
        targets = [place for place in found if not cycles(sent.properties.headers, reason, place.name)]
        if not spec.at_least_once:
            for place in targets:
                place.put(letter, moved=True, answered=False)
            return True
        return self._all_took(core, stored, letter, found, targets)

    def _all_took(
        self,
        core: QueueCore,
        stored: Stored,
        letter: Stored,
        found: list[AmqpQueue],
        targets: list[AmqpQueue],
    ) -> bool:
        if not found:
            return False
        key = (core.name, id(stored.meta))
        had = self._partly.pop(key, set())
        taken = {place.name for place in targets if place.name in had or place.put(letter, moved=True)}
        if len(taken) == len(targets):
            return True
        if len(self._partly) < PARTLY_TAKEN_MAX:
            self._partly[key] = taken
        return False

    # ---------------------------------------------------------------------------------------------- unused queues

    def seen(self, queue: AmqpQueue) -> None:
        """It was used just now; while nobody reads, its time runs from here."""
        expires_s = queue.spec.expires_s
        if expires_s is None or len(queue.consumers):
            return
        queue.unused_since = self._vhost.engine.clock.now()
        heapq.heappush(self._due, (queue.unused_since + expires_s, next(self._pushed), queue))

    def used(self, queue: AmqpQueue) -> None:
        queue.unused_since = None

    def forget(self, queue: AmqpQueue) -> None:
        queue.unused_since = None

    def due(self) -> float | None:
        while self._due:
            when, _, queue = self._due[0]
            since, expires_s = queue.unused_since, queue.spec.expires_s
            if since is not None and expires_s is not None and since + expires_s == when:
                return when
            heapq.heappop(self._due)
        return None

    def tick(self, now: float) -> None:
        while (when := self.due()) is not None and when <= now:
            _, _, queue = heapq.heappop(self._due)
            self._vhost.remove_queue(queue)
