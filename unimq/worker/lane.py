"""One source: its receiver, who gets what it brings, and who runs alone.

Rules
- Deliveries are looked at in their order (`guard.py`), then given to the crew of the first handler that fits. Nobody fits:
  dead letter, `rejected`.
- A suspect runs alone: what is in hand is finished first, nothing else begins before it is over. Where order does not
  count, further suspects go back at once, by a copy that carries their count, and it begins when they are gone (`alone.py`):
  they must not pay for it, nor for what happens while it waits.
- Where the link keeps a journal (`CrashJournal`), a suspect begins when its try is noted, and only that counts: the others may
  stay.
- A suspect waits for at most `CLEAR_ROUNDS` looks at what still came.
- A link that must be opened anew to change its prefetch (`tap.py`) is when nothing is in hand: what it brought and nobody began
  goes back by a copy first, so that the closing does not count against it. On an ordered source it goes back with the link.
- Where the broker has no crash limit there is no guard: everything is fetched wide.
- Fetching pauses while a suspect waits or runs, and while all handlers of the source are paused.
- `over` may come from any thread; everything else is on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .._async.client import AsyncClient
from .._async.receiver import AsyncReceiver
from .._settlement import Desk
from .._sync.client import Client
from ..address import Subscription
from ..delivery import Delivery
from ..errors import Closed, UnimqError, Unsupported
from .alone import cleared, noted
from .crew import Crew, crew
from .guard import NARROW, Guard, Look
from .handlers import Group, Handler
from .outcomes import Ledger, Outcome, Verb
from .post import Post
from .retries import policy_for
from .tap import Tap
from .unhandled import Unhandled

if TYPE_CHECKING:
    from .middleware import Wrap

FAILED_CLOSE_S: Final = 1.0
NOTE_AGAIN_S: Final = 0.05
CLEAR_MAX: Final = 1_000  # deliveries taken in one look for late ones
CLEAR_ROUNDS: Final = (
    3  # a link that cannot be paused brings more each time: its suspect must not wait for the last of them
)
_log = logging.getLogger("unimq.worker")


class Lane:
    """From `open` to `close`; see the module."""

    def __init__(
        self, group: Group, client: AsyncClient, *, ledger: Ledger, broken: Callable[[BaseException], None]
    ) -> None:
        self.group = group
        self.source = group.source
        self.crews: dict[Handler, Crew] = {}
        self._client = client
        self._ledger = ledger
        self._unhandled = Unhandled(self.source, self._the_desk, ledger)
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._receiver: AsyncReceiver | None = None
        self._desk: Desk | None = None
        self._guarded = False
        self._guard: Guard | None = None
        self._retry = group.first.retry
        self._tap = Tap(self.source)
        self._waiting: deque[Delivery] = deque()  # arrived, not looked at
        self._aside: deque[Delivery] = deque()  # suspects that wait for an empty house
        self._in_hand: dict[Delivery, None] = {}
        self._alone = False
        self._clearing: asyncio.Task[None] | None = None  # the house, for a suspect
        self._rounds = 0
        self._may_fetch = asyncio.Event()
        self._may_fetch.set()
        self._paused: set[Handler] = set()
        self._task: asyncio.Task[None] | None = None

    # --------------------------------------------------------------------------------------------------- opening
    async def open(self, sync_client: Client | None, wrap: Wrap) -> None:
        """Open the receiver and hire the crews. Raises what cannot work."""
        first = self.group.first
        retry = policy_for(self.group, self._client)
        self._retry = retry
        wide = self.group.prefetch(locks=bool(self._client.capabilities.lock_renewal))
        # it ends with its receiver
        private = isinstance(self.source, Subscription) and self.source.name is None
        guarded = self._guarded = bool(self._client.capabilities.crash_limit) and not private
        if not guarded and not private:
            _log.info(
                "%s: no crash limit here: a message that kills its process comes again and again", self.source
            )
        receiver = await self._open_receiver(1 if guarded else wide)
        desk = self._the_desk()
        if desk.plan.dead_write is None and first.dead_letter is not None:
            await receiver.close()
            raise Unsupported(
                f"{self.source} has no dead-letter place here: name one (dead_letter=Queue(...)), or write dead_letter=None "
                "to have dead messages dropped"
            )
        can_copy = desk.plan.replay is not None and not self.source.ordered
        if guarded:
            journal = self._tap.journal is not None
            self._guard = Guard(limit=retry.crashes, wide=wide, can_copy=can_copy, journal=journal)
        for handler in self.group.handlers:
            post = Post(
                handler,
                desk=self._the_desk,
                over=self._over,
                ledger=self._ledger,
                client=self._client,
                sync_client=sync_client,
                wrap=wrap,
            )
            self.crews[handler] = crew(post, ordered=self.source.ordered, broken=self._broken)

    def _the_desk(self) -> Desk:
        assert self._desk is not None
        return self._desk

    async def _open_receiver(self, prefetch: int) -> AsyncReceiver:
        first = self.group.first
        receiver = self._client.receiver(
            self.source,
            prefetch=prefetch,
            retry=self._retry,
            dead_letter=first.dead_letter,
            lock_renewal_max_s=first.lock_renewal_max_s,
            on_settlement_lost=self._settlements_lost,
        )
        receiver._intake.copies_back = self._guarded and not self.source.ordered
        try:
            await receiver.ready(self._client._open_timeout_s)
        except UnimqError:
            await receiver.close(FAILED_CLOSE_S)  # the links to its other places are open already
            raise
        except BaseException:
            receiver._intake.stop()  # a link that still opens on its thread is closed again
            self._client._receivers.pop(receiver, None)
            raise
        desk = receiver._intake.desk
        assert desk is not None
        desk.on_link_lost = self._spare
        self._receiver, self._desk = receiver, desk
        self._tap.opened(receiver, prefetch)
        if self._guard is not None:
            receiver._intake.reopen_prefetch = NARROW
        return receiver

    async def _reopen(self, guard: Guard) -> None:
        """With the prefetch that the guard wants, for a link that cannot change it. Nothing is in hand."""
        assert self._receiver is not None
        desk = self._the_desk()
        for delivery in [*self._waiting, *self._aside]:
            if desk.is_open(delivery) and not self.source.ordered:
                self._copy_back(delivery, guard)
        self._waiting.clear()
        self._aside.clear()
        wanted = guard.prefetch
        await self._receiver.close()
        await self._open_receiver(wanted)
        guard.prefetch = wanted

    def _spare(self, deliveries: list[Delivery]) -> None:
        """Any thread: their link is gone, and this process is not."""
        guard = self._guard
        if guard is not None:
            running = {
                each
                for crew_ in self.crews.values()
                for busy in list(crew_.busy.values())
                for each in busy.at
            }
            guard.spared.add(each for each in deliveries if each not in running)

    def _settlements_lost(self, deliveries: list[Delivery]) -> None:
        if self._guard is not None:
            self._guard.spared.add_given_back(deliveries)
        for delivery in deliveries:
            self._ledger.write(Outcome(Verb.LOST, self.source, "", delivery))

    # -------------------------------------------------------------------------------------------------- fetching
    def start(self) -> None:
        self._task = asyncio.create_task(self._fetch(), name=f"unimq-fetch-{self.source}")

    async def _fetch(self) -> None:
        try:
            while True:
                await self._may_fetch.wait()
                if self._reopens and self._guard is not None and not self._in_hand:
                    await self._reopen(self._guard)
                    self._pump()
                    continue
                assert self._receiver is not None
                deliveries = await self._receiver.receive(max(self._tap.prefetch, 1))
                self._waiting.extend(deliveries)
                self._pump()
        except Closed:
            return
        except Exception as error:  # what ended the receiver for good: only a restart can mend it
            _log.exception("%s is no longer received from", self.source)
            self._broken(error)

    async def stop_fetching(self) -> None:
        """Nothing more is taken; what no handler has begun stays for the broker."""
        tasks = [task for task in (self._task, self._clearing) if task is not None]
        self._task = self._clearing = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tap.shut()
        for each in self.crews.values():
            each.close()
        self._waiting.clear()
        self._aside.clear()

    # ------------------------------------------------------------------------------------------------ who gets it
    def _pump(self) -> None:
        """Give out what may begin now."""
        guard, desk, tap, aside = self._guard, self._the_desk(), self._tap, self._aside
        while aside and not desk.is_open(aside[0]):
            aside.popleft()
        while self._waiting and not self._alone and not self._reopens:
            if aside and self.source.ordered:
                break
            delivery = self._waiting[0]
            if not desk.is_open(delivery):
                self._waiting.popleft()  # its link is gone: it comes again
                continue
            if guard is None:
                self._waiting.popleft()
                self._give(delivery)
                continue
            if tap.is_of_a_new_link(delivery):
                guard.reopened()
            look = guard.look(delivery)
            if aside:
                guard.prefetch = NARROW  # whatever else came with the suspect
            if look is Look.SUSPECT and not self.source.ordered:
                tap.pause()
            tap.set_prefetch(guard.prefetch)
            if look is Look.SUSPECT and self.source.ordered and self._in_hand:
                break  # its turn comes when what is before it is over
            self._waiting.popleft()
            if look is Look.SUSPECT:
                if self.source.ordered and tap.journal is None:
                    self._alone = True
                    self._give(delivery)
                elif aside and tap.journal is None:
                    self._copy_back(delivery, guard)
                else:
                    aside.append(delivery)
            elif look is Look.NORMAL:
                self._give(delivery)
            else:
                self._put_away(delivery, guard, look)
        empty = not (self._in_hand or self._alone or self._reopens or self._clearing)
        if aside and empty:
            assert guard is not None
            self._clearing = asyncio.create_task(self._run_alone(guard), name=f"unimq-alone-{self.source}")
        held = bool(self._alone or aside or self._waiting)
        if self._reopens:
            held = bool(self._in_hand)  # then `_fetch` opens it anew
        if not held:
            tap.resume()
        if held or len(self._paused) == len(self.crews):
            self._may_fetch.clear()
        else:
            self._may_fetch.set()

    async def _run_alone(self, guard: Guard) -> None:
        """One suspect, once nothing else can pay for it."""
        try:
            if not await self._may_begin() or not self._aside or not self._the_desk().is_open(self._aside[0]):
                return  # it is gone, or it is tried again
            delivery = self._aside.popleft()
            self._rounds = 0
            count = guard.count(delivery)
            _log.warning("%s: %r came back %d times unsettled: it runs alone", self.source, delivery, count)
            self._alone = True
            self._give(delivery)
        finally:
            self._clearing = None
            if self._task is not None:
                self._pump()

    async def _may_begin(self) -> bool:
        """Whether the first one aside may, after what must be known before: at the broker, or here."""
        journal = self._tap.journal
        if journal is not None:
            if self._aside and await noted(journal, self._aside[0]):
                return True
            await asyncio.sleep(NOTE_AGAIN_S)  # that it is gone is heard in a moment
            return False
        assert self._receiver is not None
        self._waiting.extend(await cleared(self._receiver, self._the_desk(), CLEAR_MAX, self._tap.still))
        self._rounds += 1
        first = self._waiting and self._rounds < CLEAR_ROUNDS  # they are looked at
        return not (first or self._in_hand)

    def _put_away(self, delivery: Delivery, guard: Guard, look: Look) -> None:
        if look is Look.RECOUNT:
            self._copy_back(delivery, guard)
        else:
            self._unhandled.crashed(delivery, guard.count(delivery))

    def _copy_back(self, delivery: Delivery, guard: Guard) -> None:
        guard.spared.give_back(delivery)
        self._unhandled.copy_back(delivery, guard.count(delivery))

    def _give(self, delivery: Delivery) -> None:
        try:
            handler = self.group.pick(delivery)
        except Exception as error:  # a predicate of the user's: as if the handler had failed
            self._alone = False
            if self._unhandled.match_failed(delivery, error) is Verb.IN_HAND:
                self._give(delivery)
            return
        if handler is None:
            self._alone = False
            self._unhandled.rejected(delivery)
            return
        self._in_hand[delivery] = None
        self.crews[handler].put(delivery)

    def _over(self, delivery: Delivery) -> None:
        """Any thread: a handler is done with it."""
        self._in_hand.pop(delivery, None)
        if (self._alone or self._aside or self._waiting or self._reopens) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._after_one)

    def _after_one(self) -> None:
        if not self._in_hand:
            self._alone = False
        if self._task is not None:
            self._pump()

    @property
    def _reopens(self) -> bool:
        """Whether the link must be opened anew, for another prefetch than it has."""
        return self._guard is not None and self._tap.must_reopen(self._guard.prefetch)

    # ------------------------------------------------------------------------------------------ pausing, questions
    def pause(self, handler: Handler) -> None:
        self._paused.add(handler)
        self.crews[handler].pause()
        if len(self._paused) == len(self.crews):
            self._may_fetch.clear()

    def resume(self, handler: Handler) -> None:
        self._paused.discard(handler)
        self.crews[handler].resume()
        self._pump()

    @property
    def in_hand(self) -> int:
        return len(self._in_hand)

    @property
    def busy(self) -> bool:
        return any(each.busy for each in self.crews.values())

    @property
    def unsettled(self) -> int:
        """With what waits for a copy to be written."""
        return 0 if self._desk is None else self._desk.open_count

    def stuck(self, now: float) -> list[str]:
        """Handlers that are over their time."""
        found = []
        for handler, each in self.crews.items():
            limit_s = handler.wish.timeout_s
            late = [now - one.since for one in list(each.busy.values())] if limit_s is not None else []
            over = [age_s for age_s in late if limit_s is not None and age_s > limit_s]
            if over:
                found.append(
                    f"{handler.name} is stuck: {len(over)} at it for up to {max(over):.0f} s, limit {limit_s:g} s"
                )
        return found

    # --------------------------------------------------------------------------------------------------- closing
    async def close(self, timeout_s: float) -> None:
        """Settle what was settled, hand back the rest."""
        for each in self.crews.values():
            each.cancel()
        receiver = self._receiver
        if receiver is None:
            return
        try:
            await receiver.close(timeout_s)
        except UnimqError as error:
            _log.warning("closing the receiver of %s: %s", self.source, error)
