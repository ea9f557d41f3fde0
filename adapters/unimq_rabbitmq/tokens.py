"""A token as a password: asked for again before it ends, and told to the broker on every connection there is.

Rules
- It is renewed `RENEW_BEFORE_S` before it ends; one that lives shorter, after `RENEW_SHARE` of its life.
- `credential()` may block: a thread of its own asks. When that fails it is asked again; the broker ends what it must.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from unimq.driver import Password, Token

from .loop import Loop
from .questions import Answer, guarded

RENEW_BEFORE_S: Final = 60.0
RENEW_SHARE: Final = 0.5
PAUSE_MIN_S: Final = 1.0  # between two tries
ANSWER_TIMEOUT_S: Final = 15.0
_log = logging.getLogger("unimq.rabbitmq")


def renewal_in_s(left_s: float) -> float:
    """How long to wait with the renewal of a token that lives `left_s` more."""
    return max(left_s - RENEW_BEFORE_S, left_s * RENEW_SHARE, PAUSE_MIN_S)


class Renewal:
    """See the module. `ask` is the user's credential; `take` keeps what it says; `loops` are the open connections."""

    def __init__(
        self,
        ask: Callable[[], Password | Token | None],
        take: Callable[[Password | Token | None], None],
        loops: Callable[[], Sequence[Loop]],
        stop: threading.Event,
    ) -> None:
        self._ask = ask
        self._take = take
        self._loops = loops
        self._stop = stop

    def start(self, first: Password | Token | None) -> None:
        if isinstance(first, Token) and first.expires_at is not None:
            thread = threading.Thread(
                target=self._run, args=(first,), name="unimq-rabbitmq-token", daemon=True
            )
            thread.start()

    def _run(self, token: Token) -> None:
        while token.expires_at is not None:
            if self._stop.wait(renewal_in_s(token.expires_at - time.time())):
                return
            try:
                fresh = self._ask()
            except Exception:  # the user's code, on a thread of ours
                _log.exception("a new token could not be had; the old one counts until it expires")
                continue
            self._take(fresh)
            if not isinstance(fresh, Token):
                return
            token = fresh
            for loop in self._loops():
                self._tell(loop, token.value)

    def _tell(self, loop: Loop, secret: str) -> None:
        answer = Answer()
        loop.call(
            guarded(lambda: loop.connection.update_secret(secret, "renewed", callback=answer.set), answer)
        )
        try:
            answer.wait(ANSWER_TIMEOUT_S, "renewing the token")
        except Exception:  # the broker ends the connection when it must; the log says why
            _log.exception("the broker did not take a new token")
