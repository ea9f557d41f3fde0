"""A topic: what is published to it goes to every durable subscription whose filter wants it, one queue each.

Rules
- A subscription is identified by its name on the topic; another filter or queue on it is a difference, not a change.
- Several subscriptions may feed one queue; it gets one copy.
- Fan-out shares the `Stored`: a message on a hundred subscriptions is one body in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from .limits import MAX_SUBSCRIPTIONS_PER_TOPIC, ROUTE_CACHE_SUBJECTS, EngineLimit
from .matcher import Filter
from .message import Stored
from .queue import QueueCore


@dataclass(frozen=True, slots=True)
class Subscription:
    name: str
    filter: Filter
    queue: QueueCore


class Topic:
    __slots__ = ("_routes", "_subscriptions", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._subscriptions: dict[str, Subscription] = {}
        self._routes: dict[str, tuple[Subscription, ...]] = {}

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        return tuple(self._subscriptions.values())

    def subscription(self, name: str) -> Subscription | None:
        return self._subscriptions.get(name)

    def bind(self, name: str, filter: Filter, queue: QueueCore) -> Subscription:
        """Set the subscription `name`, replacing what was there."""
        if name not in self._subscriptions and len(self._subscriptions) >= MAX_SUBSCRIPTIONS_PER_TOPIC:
            raise EngineLimit(
                f"topic {self.name!r} has {MAX_SUBSCRIPTIONS_PER_TOPIC} subscriptions, the most there can be"
            )
        made = self._subscriptions[name] = Subscription(name, filter, queue)
        self._routes.clear()
        return made

    def unbind(self, name: str) -> Subscription | None:
        self._routes.clear()
        return self._subscriptions.pop(name, None)

    def unbind_queue(self, queue: QueueCore) -> None:
        """The queue is gone: nothing is routed to it any more."""
        kept = {name: sub for name, sub in self._subscriptions.items() if sub.queue is not queue}
        if len(kept) != len(self._subscriptions):
            self._subscriptions = kept
            self._routes.clear()

    def route(self, stored: Stored) -> list[QueueCore]:
        """The queues that want it, each once, in the order of subscribing."""
        wanting = self._routes.get(stored.subject)
        if wanting is None:
            wanting = tuple(s for s in self._subscriptions.values() if s.filter.wants_subject(stored.subject))
            if len(self._routes) >= ROUTE_CACHE_SUBJECTS:
                self._routes.clear()
            self._routes[stored.subject] = wanting
        found = [s.queue for s in wanting if not s.filter.where or s.filter.wants_headers(stored.headers)]
        return list(dict.fromkeys(found)) if len(found) > 1 else found
