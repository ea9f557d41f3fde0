"""A receiver's settlement desk: what becomes of each delivery, shared by both facades.

Rules
- A delivery is *open* from its arrival until a verb; the verb takes it out of the books with one atomic `dict.pop`, so a
  second verb, from any thread, finds nothing. `TRANSITIONS` is the whole life of a delivery.
- The order is always: confirmed write to the next place, *then* settle the source. A copy that cannot be written leaves its
  source unsettled and is tried again with back-off; a crash between gives a duplicate, never a loss.
- Settlements leave in batches (`_settling.py`).
- Bound to the link: when it dies, what is open becomes `LOST`, and what was settled and not confirmed goes to `lost`, which
  survives reconnects and is reported once, by `flush`, `close` or `on_settlement_lost`.
"""

from __future__ import annotations

import copy
import datetime as dt
import enum
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from . import _emulation as emulation
from . import headers as h
from ._latch import Latch
from ._settling import Settling
from .address import HeaderValue, Queue, Subscription
from .capabilities import Capabilities
from .codec import Codecs
from .delivery import Delivery
from .driver import (
    IN_HAND,
    NATIVE,
    Copy,
    DeadLetterOutcome,
    Defer,
    LockRenewal,
    Place,
    Plan,
    ReceiverLink,
    Release,
)
from .errors import AlreadySettled, DecodeError, LockLost, UnimqError, Unsupported
from .retry import Dead, DeadLetter, Decision, InHand, Later, Retry, RetryLater, after_failure, jittered

if TYPE_CHECKING:
    from ._copier import Copier

_log = logging.getLogger("unimq.settle")


class State(enum.Enum):
    """Where a delivery is in its life."""

    OPEN = "open"  # in the stash or in the user's hands
    COPYING = "copying"  # on its way to another place; the source is still unsettled
    SETTLING = "settling"  # the driver has the verb
    SETTLED = "settled"  # the broker has it
    LOST = "lost"  # its link is gone: the broker hands it out again


TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.OPEN, "settle"): State.SETTLING,
    (State.OPEN, "copy"): State.COPYING,
    (State.OPEN, "in hand again"): State.OPEN,
    (State.OPEN, "link lost"): State.LOST,
    (State.COPYING, "copy confirmed"): State.SETTLING,
    (State.COPYING, "link lost"): State.LOST,
    (State.SETTLING, "confirmed"): State.SETTLED,
    (State.SETTLING, "refused"): State.LOST,
    (State.SETTLING, "link lost"): State.LOST,
}


class Desk:
    """See the module. `stash_front` puts a delivery back to be handed out next; `now` is injected."""

    def __init__(
        self,
        *,
        source: Queue | Subscription,
        codecs: Codecs,
        policy: Retry | None,
        plan: Plan,
        capabilities: Capabilities,
        copiers: Callable[[Place], Copier],
        stash_front: Callable[[Delivery], None],
        on_lost: Callable[[list[Delivery]], None] | None,
        now: Callable[[], dt.datetime],
        seed: random.Random,
        adapter: str,
    ) -> None:
        self.source = source
        self.codecs = codecs
        self.policy = policy
        self.plan = plan
        self._capabilities = capabilities
        self._copiers = copiers
        self._stash_front = stash_front
        self._on_lost = on_lost
        self._now = now
        self._random = seed
        self._adapter = adapter
        self._open: dict[Delivery, State] = {}
        self._copying: dict[Delivery, State] = {}
        self._settling = Settling(report=self._report_lost, idle=lambda: self.idle)
        self.lost: list[Delivery] = []
        self.on_link_lost: Callable[[list[Delivery]], None] | None = None  # told of what was open; any thread
        self.closed = False

    # ------------------------------------------------------------------------------------------------ the books
    def attach(self, link: ReceiverLink) -> None:
        self._settling.link = link

    def arrived(self, deliveries: Sequence[Delivery]) -> None:
        """Open them; called once per batch by the receiver."""
        for delivery in deliveries:
            delivery._owner = self
        self._open.update(dict.fromkeys(deliveries, State.OPEN))

    def not_ours(self, deliveries: Sequence[Delivery]) -> None:
        """Settled when handed out (`mode="on_receive"`): they can be decoded, their verbs say AlreadySettled."""
        for delivery in deliveries:
            delivery._owner = self

    @property
    def open_count(self) -> int:
        return len(self._open) + len(self._copying)

    @property
    def idle(self) -> bool:
        """Nothing is on its way to the broker."""
        return self._settling.empty and not self._copying

    def is_open(self, delivery: Delivery) -> bool:
        return delivery in self._open

    def state(self, delivery: Delivery) -> State:
        """Where it is by the books, which say no more of what left them than that it is `SETTLING`."""
        kept = self._open.get(delivery) or self._copying.get(delivery)
        return kept or (State.LOST if delivery.lock_lost else State.SETTLING)

    def link_lost(self) -> None:
        """The link is dead: its deliveries are the broker's again. The driver completes what it had as lost."""
        self._settling.link = None
        opened: list[Delivery] = []
        stranded: list[Delivery] = []
        for books, settled in ((self._open, False), (self._copying, True)):
            while books:
                try:
                    delivery, _ = books.popitem()
                except KeyError:
                    break
                delivery.lock_lost = True
                # its verb was taken and is not done: the copy may be there, the source comes again
                (stranded if settled else opened).append(delivery)
        if self.on_link_lost is not None:
            self.on_link_lost(opened)
        stranded += self._settling.take_all()
        self._report_lost(stranded)
        self._settling.settled.turn()

    def locks_lost(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.lock_lost = True
            self._open.pop(delivery, None)
            self._copying.pop(delivery, None)

    def take_lost(self) -> list[Delivery]:
        lost, self.lost = self.lost, []
        return lost

    def _report_lost(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        for delivery in deliveries:
            delivery.lock_lost = True
        _log.warning("%s: %d settlements were lost; the messages come again", self.source, len(deliveries))
        if self._on_lost is None:
            self.lost.extend(deliveries)
            return
        try:
            self._on_lost(list(deliveries))
        except Exception:  # the user's callback runs on a thread of ours: it must not end it
            _log.exception("on_settlement_lost failed")

    def _take(self, delivery: Delivery) -> None:
        """Out of the open books, or say why it is not there."""
        if self._open.pop(delivery, None) is None:
            if delivery.lock_lost or self.closed:
                raise LockLost(
                    "the link that brought this delivery is gone; the broker hands it out again",
                    adapter=self._adapter,
                )
            raise AlreadySettled("this delivery was settled before", adapter=self._adapter)

    # ------------------------------------------------------------------------------------------------ the verbs
    def ack(self, delivery: Delivery) -> None:
        if self._open.pop(delivery, None) is None:
            self._take(delivery)  # raises the right error
        self._settling.ack(delivery)

    def ack_many(self, deliveries: Sequence[Delivery]) -> None:
        settling = self._settling
        for delivery in deliveries:
            self._take(delivery)
            settling.acks.append(delivery)
        if not settling.busy:
            settling.kick()

    def release(self, delivery: Delivery) -> None:
        self._need("release", "release")
        how = self.plan.release
        if self._ordered and how is not NATIVE:
            raise Unsupported(
                f"release on the ordered {self.source} would change the order", adapter=self._adapter
            )
        self._take(delivery)
        if how is NATIVE:
            self._settling.settle(delivery, Release())
        elif how is IN_HAND:
            # another object: a second verb on the released one must still be refused
            self._again(copy.copy(delivery))
        else:
            assert isinstance(how, Place)
            self._copy(delivery, how, {h.ATTEMPT: delivery.metadata.attempts}, delay_s=None)

    def retry(self, delivery: Delivery, delay_s: float) -> None:
        policy = self._need_policy("retry")
        if delay_s < 0:
            raise ValueError("delay_s is 0 or more")
        if self._ordered:
            raise Unsupported(
                f"retry on the ordered {self.source} would change the order", adapter=self._adapter
            )
        if delivery.attempt >= policy.max_attempts:
            self._bury(delivery, "exhausted", "", None)
            return
        self._need("retry_delay", f"retry(delay_s={delay_s:g})")
        place = self.plan.retry(delay_s)
        self._take(delivery)
        self._later(delivery, place, delay_s)

    def dead_letter(self, delivery: Delivery, reason: str, description: str) -> None:
        self._bury(delivery, reason, description, None)

    def defer(self, delivery: Delivery) -> None:
        self._need("defer", "defer")
        self._take(delivery)
        self._settling.settle(delivery, Defer())

    def renew_lock(self, delivery: Delivery) -> bool:
        link = delivery.link
        if not self._capabilities.lock_renewal or not isinstance(link, LockRenewal):
            return False
        if delivery.lock_lost or not self.is_open(delivery):
            raise LockLost("the lock on this delivery is lost", adapter=self._adapter)
        lost = link.renew([delivery])
        if lost:
            self.locks_lost(lost)
            raise LockLost("the lock on this delivery is lost", adapter=self._adapter)
        return True

    # ----------------------------------------------------------------------------------------- `with delivery:`
    def enter(self, delivery: Delivery) -> None:
        self._need_policy("`with delivery:`")

    def leave(self, delivery: Delivery, error: BaseException | None) -> bool:
        """True swallows `error`. Settled inside: nothing more."""
        if not self.is_open(delivery):
            if delivery.lock_lost:
                _log.warning(
                    "%s: the link was lost while %r was handled; it comes again", self.source, delivery
                )
            if isinstance(error, Exception):
                _log.warning(
                    "%s: %r failed after it was settled: %s", self.source, delivery, error, exc_info=error
                )
                return True
            return False
        if error is None:
            self.ack(delivery)
            return False
        if not isinstance(error, Exception):
            self.release(delivery)
            return False
        _log.warning(
            "%s: try %d of %r failed: %s", self.source, delivery.attempt, delivery, error, exc_info=error
        )
        self.failed(delivery, error)
        return True

    def failed(
        self,
        delivery: Delivery,
        error: Exception,
        *,
        fatal: tuple[type[Exception], ...] = (),
        retry_on: tuple[type[Exception], ...] = (Exception,),
        hold: bool = False,
    ) -> Decision:
        """Apply the policy to a failed try. With `hold` a try in hand is the caller's: the delivery stays with him."""
        policy = self._need_policy("retry")
        if isinstance(error, RetryLater):
            self.retry(delivery, error.delay_s)
            spent = delivery.attempt >= policy.max_attempts
            return Dead("exhausted") if spent else Later(error.delay_s)
        if isinstance(error, DeadLetter):
            self._bury(delivery, error.reason, error.description, error.__cause__)
            return Dead(error.reason)
        if isinstance(error, DecodeError):
            self._bury(delivery, "undecodable", str(error), error)
            return Dead("undecodable")
        if isinstance(error, fatal) or not isinstance(error, retry_on):
            self._bury(delivery, "fatal", "", error)
            return Dead("fatal")
        decision = after_failure(
            policy, attempt=delivery.attempt, try_in_hand=delivery.try_in_hand, age_s=self._age_s(delivery)
        )
        if isinstance(decision, Later) and (self._ordered or not self._capabilities.retry_delay):
            # what would reorder, or cannot wait, is over after its tries in hand
            decision = Dead("exhausted")
        if isinstance(decision, Dead):
            self._bury(delivery, decision.reason, "", error)
        elif isinstance(decision, InHand):
            if not hold:
                self._take(delivery)
            delivery.try_in_hand += 1
            if not hold:
                self._again(delivery)
        else:
            place = self.plan.retry(decision.delay_s)
            self._take(delivery)
            delay_s = decision.delay_s
            if place.delay_s is None:
                delay_s = jittered(delay_s, policy.jitter, self._random.random())
            self._later(delivery, place, delay_s)
        return decision

    def copy_back(self, delivery: Delivery, carried: Mapping[str, HeaderValue]) -> None:
        """Back to the end of its own group's place by a confirmed copy that carries more of our headers; not a try."""
        place = self.plan.replay
        if place is None or self._ordered:
            raise Unsupported(f"a copy back to {self.source}", adapter=self._adapter)
        self._take(delivery)
        self._copy(delivery, place, {h.ATTEMPT: delivery.metadata.attempts, **carried}, delay_s=None)

    def _age_s(self, delivery: Delivery) -> float | None:
        first = emulation.first_failed_at(delivery)
        return None if first is None else (self._now() - first).total_seconds()

    # -------------------------------------------------------------------------------------------------- moving
    @property
    def _ordered(self) -> bool:
        return self.source.ordered

    def _need(self, name: str, what: str) -> None:
        self._capabilities.require(name, what, adapter=self._adapter)

    def _need_policy(self, what: str) -> Retry:
        if self.policy is None:
            raise Unsupported(
                f"{what} needs a policy: this receiver was opened with retry=None", adapter=self._adapter
            )
        return self.policy

    def _again(self, delivery: Delivery) -> None:
        self._open[delivery] = State.OPEN
        self._stash_front(delivery)

    def _later(self, delivery: Delivery, place: Place, delay_s: float) -> None:
        carried = emulation.failed_headers(delivery, self._now())
        if delay_s > 0:
            due = self._now() + dt.timedelta(seconds=delay_s if place.delay_s is None else place.delay_s)
            carried[h.NOT_BEFORE] = emulation.stamp(due)
        self._copy(delivery, place, carried, delay_s=delay_s if place.delay_s is None else None)

    def _bury(self, delivery: Delivery, reason: str, description: str, error: BaseException | None) -> None:
        self._need("dead_letter", "dead_letter")
        target = self.plan.dead_write
        if target is None:
            raise Unsupported(
                "this receiver was opened with dead_letter=None: there is no dead-letter place",
                adapter=self._adapter,
            )
        if target is not NATIVE:
            self._need_policy("dead_letter")
        self._take(delivery)
        carried = emulation.dead_headers(
            delivery, self._now(), reason=reason, description=description, error=error
        )
        if target is NATIVE:
            self._settling.settle(
                delivery, DeadLetterOutcome(reason, description or (str(error) if error else ""), carried)
            )
        else:
            assert isinstance(target, Place)
            self._copy(delivery, target, carried, delay_s=None, dead=True)

    def _copy(
        self,
        delivery: Delivery,
        place: Place,
        carried: Mapping[str, HeaderValue],
        *,
        delay_s: float | None,
        dead: bool = False,
    ) -> None:
        message_id, common = emulation.copy_id(delivery)
        copy = Copy(
            delivery,
            message_id,
            {**common, **carried},
            # the count of its crashes too: whatever became of this try, it was no crash
            drop_headers=frozenset() if dead else emulation.DEATH | {h.CRASHES},
            delay_s=delay_s,
        )
        self._copying[delivery] = State.COPYING
        self._copiers(place).write(copy, self._copied)

    def _copied(self, copy: Copy, error: UnimqError | None) -> None:
        """The copy is written (any thread), or is of no use any more. Only now the source may go."""
        if self._copying.pop(copy.delivery, None) is None or error is not None:
            self._settling.settled.turn()
            return
        self._settling.ack(copy.delivery)

    def copy_wanted(self, copy: Copy) -> bool:
        """Whether a copy is still worth writing: not when its source went back to the broker."""
        return copy.delivery in self._copying

    def flush(self) -> Latch:
        """Set when the broker has everything settled before this call, or the link is gone."""
        return self._settling.flush()
