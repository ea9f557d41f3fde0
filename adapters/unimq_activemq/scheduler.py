"""Whether the broker delays messages: asked of the broker itself, at the first wish for a delay.

Classic without `schedulerSupport` ignores AMQ_SCHEDULED_DELAY and delivers at once, without a word. So two messages go to
a private queue, first one delayed by 500 ms, then one that is not: a queue keeps order, so the one that arrives first
tells, and no clock is compared. All of it is asynchronous: who wishes waits in a list.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from . import names
from .errors import NoReceipt
from .fields import encode
from .session import Session

_log = logging.getLogger("unimq.activemq")

PROBE_DELAY_MS: Final = 500
PROBE_TIMEOUT_S: Final = 5.0

Then = Callable[["bool | None", "BaseException | None"], None]


class Scheduler:
    """`works`: None until found out. `ask` may be called from any thread."""

    def __init__(self, session: Session, flavour: str, on_found: Callable[[bool], None]) -> None:
        self.works: bool | None = None
        self._session = session
        self._flavour = flavour
        self._on_found = on_found
        self._waiting: list[Then] = []
        self._subscription = f"probe-{uuid.uuid4().hex[:12]}"
        self._deadline: float | None = None
        self._answered = False

    def ask(self, then: Then) -> None:
        """`then(works, error)` later, on the receiver thread."""
        self._session.soon(lambda: self._ask(then))

    def _ask(self, then: Then) -> None:
        if self.works is not None or self._session.error is not None:
            then(self.works, self._session.error)
            return
        self._waiting.append(then)
        if self._deadline is None:
            self._begin()

    def _begin(self) -> None:
        self._deadline = time.monotonic() + PROBE_TIMEOUT_S
        self._answered = False
        self._session.listen(self._subscription, self._on_message)
        self._session.on_tick(self._on_tick)
        self._session.on_end(self._on_end)
        where = f"unimq.{self._subscription}"
        subscribe = {"id": self._subscription, "ack": "auto"}
        send = {"persistent": "false"}
        if self._flavour == names.ARTEMIS:
            subscribe |= {"destination": where, "subscription-type": "ANYCAST"}
            send |= {"destination": where, "destination-type": "ANYCAST"}
        else:  # a temporary queue ends with the connection; an ordinary one would stay on Classic
            subscribe |= {"destination": "/temp-queue/" + where}
            send |= {"destination": "/temp-queue/" + where}
        later = send | {"AMQ_SCHEDULED_DELAY": str(PROBE_DELAY_MS), "unimq_probe": "later"}
        frames = [
            encode("SUBSCRIBE", subscribe),
            encode("SEND", later),
            encode("SEND", send | {"unimq_probe": "now"}),
        ]
        self._session.write(b"".join(frames))

    def _on_message(self, frame: Any) -> None:
        later = frame.headers.get("unimq_probe") == "later"
        if not self._answered:
            self._answered = True
            self._tell(not later, None)
        if later:
            self._finish()

    def _on_tick(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._finish()
            if not self._answered:
                self._tell(
                    None, NoReceipt(f"the scheduler's probe did not come back within {PROBE_TIMEOUT_S:g} s")
                )

    def _on_end(self, error: BaseException) -> None:
        self._deadline = None
        if not self._answered:
            self._tell(None, error)

    def _finish(self) -> None:
        self._deadline = None
        self._session.unlisten(self._subscription)
        self._session.forget_tick(self._on_tick)
        self._session.forget_end(self._on_end)
        self._session.write(encode("UNSUBSCRIBE", {"id": self._subscription}))

    def _tell(self, works: bool | None, error: BaseException | None) -> None:
        self.works = works
        if works is not None:
            _log.debug("the broker's scheduler is %s", "on" if works else "off")
            self._on_found(works)
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(works, error)
