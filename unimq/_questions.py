"""What is asked of a broker beside sending and receiving: topology, numbers, looking, emptying. Blocking, shared by both facades.

Rules
- Every error of the library's is classified here, once, with what was being done.
- Looking goes through a link of its own that takes nothing and is closed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from . import _dead
from ._links import TopologyMode, act
from .address import Address, Source, Target
from .capabilities import NATIVE, Capabilities
from .delivery import Delivery
from .driver import Admin, Facts, Op, Place, Plan, ReceiverOptions, Scheduling, Seekable
from .errors import InvalidMessage, NotFound, UnimqError, Unsupported
from .message import Receipt
from .retry import Retry
from .stats import Stats
from .topology import Declaration, TopologyReport

if TYPE_CHECKING:
    from ._supervisor import Supervisor

BROWSE_IDLE_S: Final = 0.5
BROWSE_FIRST_S: Final = 2.0
BROWSE_CLOSE_S: Final = 5.0


class Questions:
    """`wait_s` is how long a question waits for a connection that is being made again."""

    def __init__(self, supervisor: Supervisor, topology: TopologyMode, wait_s: float) -> None:
        self._supervisor = supervisor
        self._topology: TopologyMode = topology
        self._wait_s = wait_s

    def _ask(self, op: Op, question: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return question(*arguments, **named)
        except UnimqError:
            raise
        except Exception as error:  # the library's own: classified
            raise self._supervisor.classify(error, op, False) from error

    @property
    def facts(self) -> Facts:
        connection = self._supervisor.connection
        return connection.facts if connection is not None else Facts()

    def plan(self, address: Source | Target, policy: Retry | None) -> Plan:
        """What the adapter makes of an address, with the facts found so far. Pure."""
        return self._supervisor.adapter.plan(address, policy, self.facts)

    def declare(self, declaration: Declaration, verify_only: bool) -> TopologyReport:
        connection = self._supervisor.wait_up(self._wait_s)
        report: TopologyReport
        if verify_only:
            report = self._ask(Op.DECLARE, connection.declare, [declaration], verify_only=True)
        else:
            report = self._ask(Op.DECLARE, act, connection, [declaration], self._topology)
        return report

    # ----------------------------------------------------------------------------------------------------- admin
    def _admin(self, what: str, place: Any) -> Any:
        connection = self._supervisor.wait_up(self._wait_s)
        if not isinstance(connection, Admin):
            raise Unsupported(what, adapter=self._supervisor.adapter.name)
        return self._ask(Op.ADMIN, getattr(connection, what), place)

    def stats(self, place: Source | Target | Place) -> Stats:
        found: Stats = self._admin("stats", place)
        return found

    def purge(self, place: Source | Place) -> int | None:
        gone: int | None = self._admin("purge", place)
        return gone

    def delete(self, place: Address) -> None:
        self._admin("delete", place)

    def seek(self, source: Source, to: Any) -> None:
        connection = self._supervisor.wait_up(self._wait_s)
        if not isinstance(connection, Seekable):
            raise Unsupported("seek", adapter=self._supervisor.adapter.name)
        self._ask(Op.ADMIN, connection.seek, source, to)

    def cancel(self, receipt: Receipt, capabilities: Capabilities) -> bool:
        connection = self._supervisor.wait_up(self._wait_s)
        if not isinstance(connection, Scheduling) or capabilities.send_delay is not NATIVE:
            raise Unsupported(
                "cancel needs scheduled sends that have a number", adapter=self._supervisor.adapter.name
            )
        if receipt.target is None or receipt.position is None:
            raise InvalidMessage("this receipt names no scheduled send")
        return bool(self._ask(Op.ADMIN, connection.cancel, receipt.target, receipt.position))

    def depth(self, place: Any) -> int | None:
        """How many wait there: 0 where there is no such place, None where the broker does not tell."""
        try:
            return self.stats(place).depth
        except NotFound:
            return 0
        except Unsupported:
            return None

    def is_empty(self, source: Source) -> bool:
        return self.depth(source) == 0

    # --------------------------------------------------------------------------------------------------- looking
    def browse(self, place: Source | Place, limit: int) -> list[Delivery]:
        """Up to `limit`, oldest first; waits no longer than it must where the depth is known."""
        depth = self.depth(place)
        wanted = limit if depth is None else min(limit, depth)
        if wanted <= 0:
            return []
        connection = self._supervisor.wait_up(self._wait_s)
        options = ReceiverOptions(mode="browse", prefetch=wanted)
        try:
            link = self._ask(Op.OPEN, connection.receiver, place, options)
        except NotFound:
            return []
        found: list[Delivery] = []
        try:
            until = time.monotonic() + BROWSE_FIRST_S
            while len(found) < wanted and time.monotonic() < until:
                some: Sequence[Delivery] = self._ask(
                    Op.RECEIVE, link.receive, wanted - len(found), BROWSE_IDLE_S
                )
                found.extend(some)
                if not some and found:
                    break
        finally:
            self._ask(Op.ADMIN, link.close, BROWSE_CLOSE_S)
        return found

    def browse_dead(self, source: Source, limit: int) -> list[_dead.DeadLetter]:
        found: list[_dead.DeadLetter] = []
        for place in self.plan(source, Retry()).dead_read:
            letters = self.browse(place, limit - len(found))
            found += [_dead.read(delivery, str(place)) for delivery in letters]
            if len(found) >= limit:
                break
        return found

    def count_dead(self, source: Source) -> int | None:
        depths = [self.depth(place) for place in self.plan(source, Retry()).dead_read]
        known = [depth for depth in depths if depth is not None]
        return sum(known) if len(known) == len(depths) else None

    def purge_dead(self, source: Source) -> int | None:
        gone = 0
        for place in self.plan(source, Retry()).dead_read:
            try:
                gone += self.purge(place) or 0
            except NotFound:
                continue  # nothing ever died there
        return gone
