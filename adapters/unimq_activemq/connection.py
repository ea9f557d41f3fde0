"""A connection: two STOMP connections under one roof, and the links on them.

Rules
- One STOMP connection publishes, one consumes (opened with the first receiver). A broker that is out of memory stops
  reading from the socket that sends: ACKs on the same one would wait behind it, and only ACKs make room. And Artemis
  answers one bad SEND by closing the connection.
- When either ends, both do, with one `Lost(None, …)`: the core connects anew.
- No thread is left after `close`, which is bounded against a silent peer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from unimq.address import Source, Subscription, Target
from unimq.capabilities import Capabilities
from unimq.driver import Facts, Lost, Place, ReceiverOptions, SenderOptions, Sink
from unimq.errors import Unsupported
from unimq.topology import Declaration, TopologyReport

from . import capabilities as caps
from . import names, topology
from .errors import ADAPTER, closed
from .receiver import ReceiverLink
from .scheduler import Scheduler
from .sender import SenderLink
from .session import Session

_log = logging.getLogger("unimq.activemq")

MODES: Final = ("consume", "on_receive", "browse", "dead")
OnEnd = Callable[[Session, BaseException], None]


class Connection:
    def __init__(
        self,
        open_session: Callable[[str, OnEnd], tuple[Session, dict[str, str]]],
        describe: Callable[[dict[str, str]], tuple[str, str, Capabilities]],
        sink: Sink,
    ) -> None:
        self._open_session = open_session
        self._sink = sink
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._closing = False
        self._lost = False
        self._consume: Session | None = None
        self._links: list[SenderLink | ReceiverLink] = []
        self._publish, headers = open_session("publish", self._on_end)
        try:
            self._flavour, version, self.capabilities = describe(headers)
        except BaseException:
            self._closing = True
            self._publish.close(1.0)
            raise
        self.facts = Facts(flavour=self._flavour, version=_version(version))
        self._scheduler = Scheduler(self._publish, self._flavour, self._on_scheduler)

    # ---------------------------------------------------------------------------------------------- the seam
    def sender(self, target: Target | Place, options: SenderOptions) -> SenderLink:
        if options.native:
            raise Unsupported(f"native sender options: {', '.join(options.native)}", adapter=ADAPTER)
        if options.unroutable == "error":
            raise Unsupported('unroutable="error": ActiveMQ creates what is sent to', adapter=ADAPTER)
        if options.compression is not None:
            raise Unsupported(f"compression={options.compression!r}", adapter=ADAPTER)
        self._check_open()
        link = SenderLink(self._publish, self._scheduler, _ref(target), self._flavour, options, self._sink)
        self._keep(link)
        return link

    def receiver(self, source: Source | Place, options: ReceiverOptions) -> ReceiverLink:
        topology.check_source(source)
        if options.mode not in MODES:
            raise Unsupported(f"a receiver of mode {options.mode!r}", adapter=ADAPTER)
        for name in ("session", "positions"):
            if getattr(options, name) is not None:
                raise Unsupported(f"a receiver with {name}", adapter=ADAPTER)
        if options.until_end:
            raise Unsupported('until="end": over STOMP nobody says where the end is', adapter=ADAPTER)
        if options.native:
            raise Unsupported(f"native receiver options: {', '.join(options.native)}", adapter=ADAPTER)
        if options.mode == "browse":
            self.capabilities.require("browse", "browsing", adapter=ADAPTER)
        link = ReceiverLink(self._consuming(), _ref(source), self._flavour, options)
        link.open()
        self._keep(link)
        return link

    def declare(self, declarations: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
        topology.check(declarations, dedup=bool(self.capabilities.dedup))
        self._check_open()
        if not verify_only:
            for subscription in topology.groups(declarations):
                self._make_group(subscription)
        return TopologyReport(
            facts={
                "flavour": self._flavour,
                "version": self.facts.version,
                "scheduler": self._scheduler.works,
            }
        )

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s

        def left() -> float:
            return max(deadline - time.monotonic(), 0.1)

        with self._lock:
            self._closing = True
            links, self._links = self._links, []
        for link in links:
            link.close(left())
        # a receiver that is just being opened has its connection by now, and finds it closed
        with self._opening:
            sessions = [session for session in (self._publish, self._consume) if session is not None]
        for session in sessions:
            session.close(left())

    # ---------------------------------------------------------------------------------------------- within
    def _check_open(self) -> None:
        if self._closing:
            raise closed("connection")
        if self._publish.error is not None:
            raise self._publish.error

    def _keep(self, link: SenderLink | ReceiverLink) -> None:
        with self._lock:
            if not self._closing:
                self._links.append(link)
                return
        link.close(1.0)
        raise closed("connection")

    def _consuming(self) -> Session:
        with self._opening:
            self._check_open()
            if self._consume is None:
                self._consume, _ = self._open_session("consume", self._on_end)
            return self._consume

    def _make_group(self, subscription: Subscription) -> None:
        """A prefetch of 1 and at once away again: an existing group keeps what it has, in order."""
        link = ReceiverLink(self._consuming(), _ref(subscription), self._flavour, ReceiverOptions(prefetch=1))
        link.open()
        link.close(caps.CLOSE_S)

    def _on_scheduler(self, works: bool) -> None:
        self.facts = Facts(flavour=self._flavour, version=self.facts.version, scheduler=works)
        if not works:
            self.capabilities = caps.without_scheduler(self.capabilities)

    def _on_end(self, session: Session, error: BaseException) -> None:
        """On that session's receiver thread, when everything open on it has completed."""
        with self._lock:
            first, self._lost = not self._lost, True
            closing = self._closing
        for other in (self._publish, self._consume):
            if other is not None and other is not session and not closing:
                other.kill(error)
        if first and not closing:
            self._sink(Lost(None, error))


def _ref(place: Source | Target | Place) -> names.Ref:
    if isinstance(place, Place):
        ref: names.Ref = place.ref
        return ref
    return names.ref_of(place)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
