# Generated from unimq/_async/receiver.py by tools/unasync.py; do not edit.
"""Receiving from one source: batches, one at a time, or settled when handed out.

Rules
- `receive` returns as soon as it has one or more; it never waits to fill. [] at the time-out is normal; a link that is down
  at the time-out raises, never [].
- One stash feeds `receive`, iteration and cancelled calls: first come first served, each delivery once.
- One caller at a time; the verbs of deliveries may be called from anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final

from .._intake import Intake
from ..address import Source
from ..delivery import Delivery
from ..driver import Op
from ..errors import Closed, ConnectionFailed, SendTimeout, SettlementLost
from . import _wait as wait

if TYPE_CHECKING:
    from .client import Client

DEAD_LINK_LOOK_S: Final = 0.1  # how often to look again while a link that raised has not been reported lost
END_LOOK_S: Final = 0.25


class Receiver:
    """Deliveries of one Queue or Subscription. From `client.receiver(source)`; opens at first use or in `with`."""

    def __init__(self, client: Client, intake: Intake) -> None:
        self._client = client
        self._intake = intake
        self._closing = False

    @property
    def source(self) -> Source:
        return self._intake.source

    def ready(self, timeout_s: float = 30.0) -> None:
        """Open the link now: what is sent after this returns is received."""
        self._client._check()
        if self._intake.link is None:
            wait.within(timeout_s, self._intake.what, self._intake.start)

    def receive(self, max_messages: int = 1, timeout_s: float | None = None) -> list[Delivery]:
        """Up to `max_messages`, as soon as there is one; [] after `timeout_s` (None waits for ever). Raises `Closed`, what
        ended the link for good, and `ConnectionFailed` when the link is down at the time-out."""
        intake = self._intake
        if intake.stash and not intake.closed:
            taken = intake.take(max_messages)
            if taken:
                return taken
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if not intake.started:
            self.ready(
                self._client._open_timeout_s
                if timeout_s is None
                else max(timeout_s, self._client._open_timeout_s)
            )
        while True:
            changed = intake.changed.latch()
            intake.check()
            taken = intake.take(max_messages)
            if taken:
                return taken
            remaining = None if deadline is None else deadline - time.monotonic()
            link = intake.link
            if link is None:
                if remaining is not None and remaining <= 0:
                    raise self._client._down_error()
                wait.latch(changed, remaining)
                continue
            wanted = (
                max_messages if intake.wish.mode == "on_receive" else max(max_messages, intake.wish.prefetch)
            )
            try:
                arrived = wait.arrivals(link, wanted, remaining, intake.changed)
            # the library's own: classified; a link that is being reopened is waited for
            except Exception as error:
                self._link_raised(error, changed, deadline)
                continue
            intake.arrived(link, arrived)
            if not arrived and not intake.stash and deadline is not None and time.monotonic() >= deadline:
                intake.check()
                if intake.link is None:
                    raise self._client._down_error()
                return []

    def _link_raised(self, error: Exception, changed: object, deadline: float | None) -> None:
        """The link is dead. Its loss is on its way to the supervisor, which gives us another, or the reason why not."""
        intake = self._intake
        intake.check()
        fault = self._client._classify(error, Op.RECEIVE)
        if deadline is not None and time.monotonic() >= deadline:
            raise fault
        if intake.link is not None:
            left = (
                DEAD_LINK_LOOK_S if deadline is None else min(DEAD_LINK_LOOK_S, deadline - time.monotonic())
            )
            wait.latch(intake.changed.latch(), left)

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """Ack many at once: cheaper than one by one."""
        desk = self._intake.desk
        if desk is None:
            raise Closed("this receiver was never opened")
        desk.ack_many(list(deliveries))

    def flush(self, timeout_s: float = 30.0) -> None:
        """Returns when the broker has every verb before it. Raises `SettlementLost` with those it did not take (once),
        `SendTimeout` when copies could not be written or no confirmation came in time."""
        desk = self._intake.desk
        if desk is None:
            return
        settled = wait.latch(desk.flush(), timeout_s)
        self._raise_lost()
        if not settled:
            problems = "; ".join(self._intake.problems()) or "the broker does not answer"
            raise SendTimeout(
                f"not everything is settled: {problems}", may_have_been_sent=True, code="flush-timeout"
            )

    def _raise_lost(self) -> None:
        desk = self._intake.desk
        lost = desk.take_lost() if desk is not None else []
        if lost:
            raise SettlementLost(
                f"{len(lost)} settlements were lost with their link; the messages may come again",
                deliveries=lost,
            )

    def close(self, timeout_s: float = 10.0) -> None:
        """Settle what was settled, hand back the rest, close the link. Idempotent, and right while another task or thread is
        in `receive` (which raises `Closed`). Raises `SettlementLost`."""
        if self._closing:
            return
        self._closing = True
        deadline = time.monotonic() + timeout_s
        intake = self._intake
        link = intake.stop()
        try:
            if intake.desk is not None and link is not None:
                wait.latch(intake.desk.flush(), timeout_s / 2)
        finally:
            wait.call(intake.finish, link, max(deadline - time.monotonic(), 0.5))
            self._client._receivers.pop(self, None)
        self._raise_lost()

    def __iter__(self) -> Receiver:
        return self

    def __next__(self) -> Delivery:
        """One at a time, until the receiver is closed or, with `until="end"`, the end seen at open is reached."""
        intake = self._intake
        if intake.stash and intake.left_until_end is None and not intake.closed:
            taken = intake.take(1)
            if taken:
                return taken[0]
        while True:
            if self._closing:
                raise StopIteration
            if intake.wish.until_end:
                self.ready()
                if intake.left_until_end is not None and intake.left_until_end <= 0 and not intake.stash:
                    raise StopIteration
            try:
                taken = self.receive(1, END_LOOK_S if intake.wish.until_end else None)
            except Closed:
                if self._closing:
                    raise StopIteration from None
                raise
            except ConnectionFailed:
                if not intake.wish.until_end:
                    raise
                continue
            if taken:
                return taken[0]
            if intake.wish.until_end and wait.call(self._client._questions.is_empty, intake.source):
                raise StopIteration  # others of the group took the rest

    def __enter__(self) -> Receiver:
        self.ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except SettlementLost as lost:
            if error is None:
                raise
            error.add_note(f"while closing: {lost}")
