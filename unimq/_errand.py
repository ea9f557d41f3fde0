"""A call that blocks on a thread of its own, for callers that wait no longer than they said.

Rules
- Whoever gives up leaves the thread to its own bound (the driver's of one operation); what it then made is kept: the link is
  there for the next call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ._latch import Latch


class Errand(Latch):
    """Set when the call is over; `outcome` then raises what it raised."""

    __slots__ = ("_result", "_error")

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().__init__()
        self._result: Any = None
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._result = function(*arguments)
            except BaseException as error:  # raised where it is waited for
                self._error = error
            self.set()

        threading.Thread(target=run, name="unimq-errand", daemon=True).start()

    def outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result
