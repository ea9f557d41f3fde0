"""The engine: queues and topics by name, publishing, dead-lettering, time and notification over all of them.

Rules
- Declaring is idempotent; the same name with other options is a `Mismatch` that says where they differ.
- Publishing answers how many queues wanted the message and which refused it: unroutable is 0, never silence.
- The whole engine holds at most `max_bytes`; a fan-out that does not fit goes to no queue at all.
- A dead letter is put in its place first and leaves its queue then. A place that refuses is asked again later.
- What happens `together` is one step: dead letters find their place only when it is done.
- Listeners are called after the operation, never in its middle; they may call the engine. They must not raise.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Protocol, TypeAlias

import msgspec

from .clock import Clock
from .deadletter import is_cycle, with_death
from .holding import NEWS_DEAD, NEWS_DUE, NEWS_READY
from .limits import ENGINE_MAX_BYTES, MAX_NAME_CHARS, MAX_QUEUES, MAX_TOPICS, SWEEP_MIN_RECORDS, EngineLimit
from .matcher import EVERYTHING, Filter
from .message import Entry, Stored
from .options import QueueOptions
from .queue import QueueCore
from .results import Budget, Refusal
from .topic import Subscription, Topic

# A `dead_letter` that is not a queue's name: True when it has the message now.
DeadLetterTarget: TypeAlias = Callable[[QueueCore, Stored], bool]


class Alarm(Protocol):
    """Something beside the queues' own that time brings."""

    def due(self) -> float | None: ...
    def tick(self, now: float) -> None: ...


class Mismatch(msgspec.Struct, frozen=True):
    """It exists, but not as asked: option → (what is there, what was asked for)."""

    differences: dict[str, tuple[object, object]]


class Published(msgspec.Struct, frozen=True):
    """`routed` queues wanted it; these hold it now; these refused it (a duplicate counts as accepted)."""

    routed: int
    entries: tuple[tuple[QueueCore, Entry], ...] = ()
    refused: tuple[tuple[QueueCore, Refusal], ...] = ()


UNROUTABLE = Published(0)


class Engine:
    def __init__(self, clock: Clock, seed: int = 0, max_bytes: int = ENGINE_MAX_BYTES) -> None:
        self.clock = clock
        # for sessions: names and tokens that a failure can be replayed with
        self.random = random.Random(seed)
        self.budget = Budget(max_bytes)
        self._queues: dict[str, QueueCore] = {}
        self._topics: dict[str, Topic] = {}
        self._work: dict[QueueCore, None] = {}
        self._working = False
        self._due: list[tuple[float, int, QueueCore]] = []
        self._due_at: dict[QueueCore, float] = {}  # the one record of each queue that counts
        self._pushed = count()
        self._alarms: list[Alarm] = []

    # -------------------------------------------------------------------------------------------------- queues

    def declare_queue(self, name: str, options: QueueOptions = QueueOptions()) -> QueueCore | Mismatch:
        there = self._queues.get(name)
        if there is not None:
            differences = there.options.differences(options)
            return Mismatch(differences) if differences else there
        _check_name(name)
        if len(self._queues) >= MAX_QUEUES:
            raise EngineLimit(f"there are {MAX_QUEUES} queues, the most there can be")
        made = QueueCore(name, options, clock=self.clock, budget=self.budget, signal=self._signal)
        self._queues[name] = made
        return made

    def queue(self, name: str) -> QueueCore | None:
        return self._queues.get(name)

    @property
    def queues(self) -> tuple[QueueCore, ...]:
        return tuple(self._queues.values())

    def delete_queue(self, name: str) -> int | None:
        """How many messages went with it; None: there is no such queue."""
        queue = self._queues.pop(name, None)
        if queue is None:
            return None
        for topic in self._topics.values():
            topic.unbind_queue(queue)
        self._work.pop(queue, None)
        self._due_at.pop(queue, None)
        return queue.close()

    # -------------------------------------------------------------------------------------------------- topics

    def declare_topic(self, name: str) -> Topic:
        there = self._topics.get(name)
        if there is None:
            _check_name(name)
            if len(self._topics) >= MAX_TOPICS:
                raise EngineLimit(f"there are {MAX_TOPICS} topics, the most there can be")
            there = self._topics[name] = Topic(name)
        return there

    def topic(self, name: str) -> Topic | None:
        return self._topics.get(name)

    @property
    def topics(self) -> tuple[Topic, ...]:
        return tuple(self._topics.values())

    def delete_topic(self, name: str) -> bool:
        """Its subscriptions go with it, their queues stay."""
        return self._topics.pop(name, None) is not None

    def subscribe(
        self, topic: Topic, name: str, queue: QueueCore, filter: Filter = EVERYTHING, *, replace: bool = False
    ) -> Subscription | Mismatch:
        there = topic.subscription(name)
        if there is not None and not replace:
            differences = there.filter.differences(filter)
            if there.queue is not queue:
                differences["queue"] = (there.queue.name, queue.name)
            return Mismatch(differences) if differences else there
        return topic.bind(name, filter, queue)

    def unsubscribe(self, topic: Topic, name: str) -> bool:
        """Nothing is routed to it any more; its queue stays."""
        return topic.unbind(name) is not None

    # ---------------------------------------------------------------------------------------------- publishing

    def publish(self, queue_name: str, stored: Stored, due_at: float | None = None) -> Published:
        queue = self._queues.get(queue_name)
        return UNROUTABLE if queue is None else self.publish_to((queue,), stored, due_at)

    def publish_topic(self, topic_name: str, stored: Stored, due_at: float | None = None) -> Published:
        """To every subscription that wants `stored.subject` and its headers."""
        topic = self._topics.get(topic_name)
        return UNROUTABLE if topic is None else self.publish_to(topic.route(stored), stored, due_at)

    def publish_to(
        self, queues: list[QueueCore] | tuple[QueueCore, ...], stored: Stored, due_at: float | None = None
    ) -> Published:
        """To these queues; each at most once is the caller's care. A routing of another kind ends here."""
        if len(queues) > 1 and not self.budget.has_room(len(queues) * stored.size_bytes):
            self.tick()  # what has expired makes room
            if not self.budget.has_room(len(queues) * stored.size_bytes):
                return Published(len(queues), (), tuple((queue, Refusal.BROKER_FULL) for queue in queues))
        entries = []
        refused = []
        for queue in queues:
            outcome = queue.put(stored, due_at)
            if isinstance(outcome, Entry):
                entries.append((queue, outcome))
            elif outcome is not Refusal.DUPLICATE:
                refused.append((queue, outcome))
        return Published(len(queues), tuple(entries), tuple(refused))

    # ------------------------------------------------------------------------------------------ time and notice

    def attach(self, alarm: Alarm) -> None:
        self._alarms.append(alarm)

    def due(self) -> float | None:
        """When the next `tick` has something to do; None: never."""
        times = [when for when in (self._queues_due(), *(a.due() for a in self._alarms)) if when is not None]
        return min(times, default=None)

    def _queues_due(self) -> float | None:
        while self._due:
            when, _, queue = self._due[0]
            if self._due_at.get(queue) != when:
                heapq.heappop(self._due)
                continue
            exact = queue.due()
            if exact == when:
                return when
            heapq.heappop(self._due)
            self._note_due(queue, exact)
        return None

    def tick(self) -> None:
        """Do what is due in all queues. Costs nothing for queues with nothing due."""
        now = self.clock.now()
        while (when := self._queues_due()) is not None and when <= now:
            queue = heapq.heappop(self._due)[2]
            del self._due_at[queue]
            queue.tick()
        for alarm in self._alarms:
            alarm.tick(now)

    def _note_due(self, queue: QueueCore, when: float | None) -> None:
        if when is None:
            self._due_at.pop(queue, None)
        elif self._due_at.get(queue) != when:
            self._due_at[queue] = when
            heapq.heappush(self._due, (when, next(self._pushed), queue))
            if len(self._due) > 2 * len(self._due_at) + SWEEP_MIN_RECORDS:
                self._due = [record for record in self._due if self._due_at.get(record[2]) == record[0]]
                heapq.heapify(self._due)

    def _signal(self, queue: QueueCore) -> None:
        """A queue has news. One loop for all of it: a chain of dead letters never recurses."""
        self._work[queue] = None
        if not self._working:
            self._working = True
            self._work_off()

    def _work_off(self) -> None:
        try:
            while self._work:
                told = next(iter(self._work))
                del self._work[told]
                self._attend(told)
        finally:
            self._working = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """One step for whoever looks on: the news of all queues wait until the block has ended."""
        if self._working:  # part of a larger step
            yield
            return
        self._working = True
        try:
            yield
        finally:
            self._work_off()

    def _attend(self, queue: QueueCore) -> None:
        news, queue.news = queue.news, 0
        if news & NEWS_DEAD:
            self._hand_over(queue)
            news |= NEWS_DUE
        if news & NEWS_DUE:
            self._note_due(queue, queue.due())
        if news & NEWS_READY and queue.ready:
            for listener in tuple(queue.listeners):
                listener(queue)

    # --------------------------------------------------------------------------------------------- dead letters

    def _hand_over(self, queue: QueueCore) -> None:
        """The dead of `queue` to their place: confirmed there, then buried here."""
        target = queue.options.dead_letter
        for entry in queue.dying():
            stored = with_death(entry, queue.name, self.clock.now())
            if isinstance(target, str) and is_cycle(stored, target):
                queue.bury(entry, "cycle")
            elif self._taken(queue, target, stored):
                queue.bury(entry)
            elif queue.options.dead_letter_refused == "drop":
                queue.bury(entry, "dead-letter-refused")
            else:
                queue.keep_dead(entry)

    def _taken(self, queue: QueueCore, target: object, stored: Stored) -> bool:
        if isinstance(target, str):
            place = self._queues.get(target)
            return place is not None and isinstance(place.put(stored, moved=True), Entry)
        if callable(target):
            return bool(target(queue, stored))
        raise TypeError(
            f"dead_letter of queue {queue.name!r} is a queue's name or a callable, not {target!r}"
        )


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise EngineLimit(f"a name has 1 to {MAX_NAME_CHARS} characters, not {len(name)}")
