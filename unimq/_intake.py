"""A receiver's link, its stash and its desk: the half of a receiver that knows no waiting.

Rules
- Its copiers are opened first: a dead-letter place that cannot be written is found before a message is taken.
- What a dead link brought is the broker's again: it never enters the stash, and leaves it when the link goes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ._copier import Copier
from ._latch import Turnstile
from ._links import CopierIntent, TopologyMode, act, place_maker
from ._settlement import Desk
from .address import Address, Source
from .codec import Codecs
from .delivery import Delivery
from .driver import (
    Admin,
    Connection,
    Copy,
    Event,
    Facts,
    FlowPaused,
    Forget,
    LockLostEvent,
    Op,
    Place,
    Plan,
    ReceiverLink,
    ReceiverOptions,
    Restored,
    Revoked,
    SettleResult,
)
from .errors import Closed, ConnectionFailed, NotFound, UnimqError, Unsupported
from .retry import Retry

if TYPE_CHECKING:
    from ._supervisor import Supervisor
    from ._ticker import Ticker

OPEN_AGAIN_S: Final = 0.05
_log = logging.getLogger("unimq.links")


class _Default:
    """`dead_letter=DEFAULT`: the place the plan names."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = _Default()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverWish:
    """What `client.receiver(...)` was asked for."""

    source: Source
    prefetch: int
    mode: str
    policy: Retry | None
    dead_letter: Place | Address | _Default | None
    on_lost: Callable[[list[Delivery]], None] | None
    options: ReceiverOptions
    until_end: bool = False


class Intake:
    """A receiver's half that knows no waiting: its link, its stash and its desk."""

    patient = False

    def __init__(
        self,
        wish: ReceiverWish,
        *,
        supervisor: Supervisor,
        ticker: Ticker,
        codecs: Codecs,
        topology: TopologyMode,
        now: Callable[[], dt.datetime],
        seed: random.Random,
    ) -> None:
        self.wish = wish
        self.source = wish.source
        self.what = f"the receiver of {wish.source}"
        self._supervisor = supervisor
        self._ticker = ticker
        self._codecs = codecs
        self._topology = topology
        self._now = now
        self._seed = seed
        self._lock = threading.Lock()
        self._link: ReceiverLink | None = None
        self._copiers: dict[Any, CopierIntent] = {}
        self.stash: deque[Delivery] = deque()
        # something to look at: a link came or went, a delivery was put back, it was closed
        self.changed = Turnstile()
        self.desk: Desk | None = None
        self.over: UnimqError | None = None
        self.started = False
        self.closed = False
        self._acted_on: Connection | None = None
        self._declared: set[Any] = set()  # places that were compared then
        self.problem: str | None = None
        self.left_until_end: int | None = None
        self.reopen_prefetch: int | None = None  # of the links after this one, where that is another
        self.copies_back = False  # a worker's, where crashes are counted in copies: that link opens before a message needs it

    # ------------------------------------------------------------------------------------------------- opening
    def start(self, timeout_s: float) -> None:
        """Plan, topology, copiers, then the link. Blocks; raises our errors."""
        self._check_open()
        if self._link is not None:
            return
        deadline = time.monotonic() + timeout_s
        while True:
            connection = self._supervisor.wait_up(deadline - time.monotonic())
            plan = self._planned(connection.facts)
            if self.desk is None:
                self.desk = self._new_desk(plan, connection)
            try:
                self._act(connection, plan)
                break
            except Exception as error:  # the library's own: classified like every error of its
                fault = self._supervisor.classify(error, Op.DECLARE, False)
                broken = isinstance(fault, ConnectionFailed) or self._supervisor.taken_down(connection, fault)
                if not broken or time.monotonic() + OPEN_AGAIN_S >= deadline:
                    raise fault from error
            self._check_open()
            # the line broke while it opened: as a sender's does, it opens on the next one
            time.sleep(OPEN_AGAIN_S)
        if self.wish.mode != "on_receive":
            for place in self._places_to_write(plan):
                self._supervisor.open(self._copier_intent(place), timeout_s)
        self._supervisor.open(self, timeout_s)
        self.started = True

    def _planned(self, facts: Facts) -> Plan:
        adapter = self._supervisor.adapter
        plan = adapter.plan(self.source, self.wish.policy, facts)
        wanted = self.wish.dead_letter
        if wanted is None:
            return dataclasses.replace(plan, dead_write=None)
        if isinstance(wanted, Address):
            return dataclasses.replace(plan, dead_write=Place(wanted, str(wanted)))
        return plan if isinstance(wanted, _Default) else dataclasses.replace(plan, dead_write=wanted)

    def _act(self, connection: Connection, plan: Plan) -> None:
        """Once per connection."""
        if self._acted_on is not connection:
            act(connection, plan.topology, self._topology)
            self._acted_on = connection
            places = [place for declaration in plan.topology for place in declaration.places]
            self._declared = {place.ref for place in places if isinstance(place, Place)}
            self._declared |= {place.ref for place in _home(plan)}

    def _new_desk(self, plan: Plan, connection: Connection) -> Desk:
        return Desk(
            source=self.source,
            codecs=self._codecs,
            policy=self.wish.policy,
            plan=plan,
            capabilities=connection.capabilities,
            copiers=self._copier,
            stash_front=self._put_back,
            on_lost=self.wish.on_lost,
            now=self._now,
            seed=self._seed,
            adapter=self._supervisor.adapter.name,
        )

    def _places_to_write(self, plan: Plan) -> list[Place]:
        """The places that verbs of this receiver may copy to, without those made at first use."""
        wanted: list[Place] = [place for place in (plan.dead_write, plan.release) if isinstance(place, Place)]
        policy = self.wish.policy
        if self.copies_back:
            wanted += _home(plan)
        if policy is not None and not self.source.ordered:
            for delay_s in policy.delayed_s:
                try:
                    wanted.append(plan.retry(delay_s))
                except Unsupported as error:
                    _log.info("%s: no retry after %g s: %s", self.source, delay_s, error)
        return list({place.ref: place for place in wanted}.values())

    def _copier(self, place: Place) -> Copier:
        """The copier of a place; one that a verb asks for first is opened by the supervisor's thread."""
        intent = self._copiers.get(place.ref)
        if intent is None:
            intent = self._copier_intent(place)
            self._supervisor.keep(intent)
        return intent.copier

    def _copier_intent(self, place: Place) -> CopierIntent:
        with self._lock:
            intent = self._copiers.get(place.ref)
            if intent is None:
                copier = Copier(
                    place,
                    classify=self._supervisor.classify,
                    ticker=self._ticker,
                    wanted=self._copy_wanted,
                    drive=self._supervisor.driver_for(),
                )
                # the user's own dead-letter place is the user's to declare
                own = isinstance(place.ref, Address)
                prepare = None if own else place_maker(self.source, place, self._topology)
                declared = place.ref in self._declared
                intent = self._copiers[place.ref] = CopierIntent(copier, prepare, declared=declared)
            return intent

    def _copy_wanted(self, copy: Copy) -> bool:
        return self.desk is not None and self.desk.copy_wanted(copy)

    # ---------------------------------------------------------------------------------------------- the intent
    @property
    def link(self) -> ReceiverLink | None:
        return self._link

    def open(self, connection: Connection) -> ReceiverLink:
        plan = self._planned(connection.facts)
        assert self.desk is not None
        self._act(connection, plan)
        self.desk.plan = plan
        if self.wish.until_end and self.left_until_end is None:
            self.left_until_end = self._depth(connection)
        options = dataclasses.replace(
            self.wish.options,
            prefetch=self.reopen_prefetch or self.wish.options.prefetch,
            also_read=plan.also_read,
            on_ready=self.changed.turn,
        )
        try:
            link = connection.receiver(self.source, options)
        except NotFound as error:
            if self._topology != "create":
                raise NotFound(
                    f"{error}; this client was connected with topology={self._topology!r}", cause=error
                ) from error
            raise
        return link

    def _depth(self, connection: Connection) -> int:
        depth = connection.stats(self.source).depth if isinstance(connection, Admin) else None
        if depth is None:
            raise Unsupported(f'until="end" needs stats_depth, which is unknown for {self.source}')
        return depth

    def attach(self, link: ReceiverLink) -> None:
        with self._lock:
            self._link = link
            self.problem = None
        if self.desk is not None:
            self.desk.attach(link)
        self.changed.turn()

    def detach(self, error: UnimqError | None) -> None:
        with self._lock:
            link, self._link = self._link, None
            self.stash.clear()
        if link is not None and self.desk is not None:
            self.desk.link_lost()
        self.changed.turn()

    def end(self, error: UnimqError) -> None:
        self.over = error
        self.changed.turn()

    def event(self, event: Event) -> None:
        if self.desk is None:
            return
        if isinstance(event, LockLostEvent):
            self._unstash(event.deliveries)
            self.desk.locks_lost(event.deliveries)
        elif isinstance(event, Revoked):
            self._revoked(event)
        elif isinstance(event, FlowPaused):
            self.problem = event.reason or "too much is unsettled: nothing is fetched until some is settled"
            _log.warning("%s: %s", self.source, self.problem)
        elif isinstance(event, Restored) and event.gap:
            with self._lock:
                self.stash.clear()
            self.desk.link_lost()
            if self._link is not None:
                self.desk.attach(self._link)

    def _unstash(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of `deliveries` that nobody has in hand, out of the stash."""
        chosen = set(deliveries)
        with self._lock:
            found = [delivery for delivery in self.stash if delivery in chosen]
            if found:
                kept = [delivery for delivery in self.stash if delivery not in chosen]
                self.stash.clear()
                self.stash.extend(kept)
        return found

    def _revoked(self, event: Revoked) -> None:
        """Forget what nobody has begun; what is in hand may be settled until the deadline."""
        unstarted = self._unstash(event.deliveries)
        assert self.desk is not None
        self.desk.locks_lost(unstarted)
        if unstarted:
            event.link.settle(unstarted, Forget(), _nothing)

    # ------------------------------------------------------------------------------------------------ receiving
    def arrived(self, link: ReceiverLink, deliveries: Sequence[Delivery]) -> None:
        """What a `link.receive` brought goes into the stash; what a dead link brought is the broker's again."""
        if not deliveries:
            return
        assert self.desk is not None
        with self._lock:
            if link is not self._link:
                return
            if self.wish.mode == "on_receive":
                self.desk.not_ours(deliveries)
            else:
                self.desk.arrived(deliveries)
            self.stash.extend(deliveries)

    def take(self, count: int) -> list[Delivery]:
        """Up to `count` from the stash, oldest first."""
        stash = self.stash
        taken: list[Delivery] = []
        while stash and len(taken) < count:
            try:
                taken.append(stash.popleft())
            except IndexError:
                break
        if self.left_until_end is not None:
            self.left_until_end -= sum(1 for delivery in taken if delivery.try_in_hand == 1)
        return taken

    def _put_back(self, delivery: Delivery) -> None:
        with self._lock:
            self.stash.appendleft(delivery)
            link = self._link
        self.changed.turn()
        if link is not None:
            link.wake()

    def _check_open(self) -> None:
        if self.closed:
            raise Closed(f"{self.what} is closed")
        if self.over is not None:
            raise self.over

    def check(self) -> None:
        """Raise what ended this receiver, if anything did."""
        if self.closed or self.over is not None:
            self._check_open()

    # -------------------------------------------------------------------------------------------------- closing
    def stop(self) -> ReceiverLink | None:
        """First half of close: nobody waits any more, nothing is reopened. Never blocks."""
        self.closed = True
        self._supervisor.forget(self)
        link = self._link
        self.changed.turn()
        if link is not None:
            link.wake()
        return link

    def finish(self, link: ReceiverLink | None, timeout_s: float) -> None:
        """Second half, after the flush: hand back what is open by closing the link. Blocks; one deadline for all links."""
        deadline = time.monotonic() + timeout_s
        for intent in self._copiers.values():
            self._supervisor.forget(intent)
            intent.copier.close()
        if link is not None:
            link.close(timeout_s)
        with self._lock:
            self._link = None
            self.stash.clear()
        for intent in self._copiers.values():
            if intent.link is not None:
                intent.link.close(max(deadline - time.monotonic(), 0.0))
        if self.desk is not None:
            self.desk.closed = True
            self.desk.link_lost()

    def problems(self) -> list[str]:
        found = [] if self.problem is None else [f"{self.source}: {self.problem}"]
        if self.over is not None:
            found.append(f"{self.what} ended: {self.over}")
        copiers = [intent.copier for intent in self._copiers.values() if intent.copier.stuck]
        found += [f"{copier.stuck} copies to {copier.place} wait: {copier.last_error}" for copier in copiers]
        return found


def _nothing(result: SettleResult) -> None:
    """Forgetting has no outcome."""


def _home(plan: Plan) -> list[Place]:
    """Where a copy goes back to the source itself, without a delay: one place, or none."""
    return [plan.replay] if plan.replay is not None and not plan.replay.delay_s else []
