"""Bugs that a worker could well have, planted by name: each must be found by the loss proof."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

LINGER_S = 0.05


def ack_before_the_copy() -> None:
    """The source is acknowledged at once; its copy leaves a moment later."""
    from unimq._settlement import Desk

    copy = Desk._copy

    def bad(self: Any, delivery: Any, *arguments: Any, **named: Any) -> None:
        self._settling.ack(delivery)
        timer = threading.Timer(LINGER_S, lambda: copy(self, delivery, *arguments, **named))
        timer.daemon = True
        timer.start()

    def copied(self: Any, copy: Any, error: Any) -> None:
        self._copying.pop(copy.delivery, None)

    Desk._copy = bad  # type: ignore[method-assign]
    Desk._copied = copied  # type: ignore[method-assign]


def copy_dropped_on_a_cut() -> None:
    """A copy counts as there when it is handed over: what a cut takes on its way is forgotten."""
    from unimq.driver import ALL_WELL
    from unimq_rabbitmq.sender import RabbitSender

    forward = RabbitSender.forward

    def bad(self: Any, copies: Any, done: Any) -> None:
        forward(self, copies, lambda result: None)
        done(ALL_WELL)

    RabbitSender.forward = bad  # type: ignore[method-assign]


def crashes_not_counted() -> None:
    """A message that kills its process comes again for ever."""
    from unimq.worker import guard

    setattr(guard, "crashes_of", lambda delivery: 0)  # noqa: B010  # mypy takes no other


def suspects_not_alone() -> None:
    """A suspect runs among the others, who then pay for its crashes."""
    from unimq.worker.guard import Guard, Look

    look = Guard.look

    def bad(self: Any, delivery: Any) -> Look:
        found = look(self, delivery)
        self.prefetch = self._wide
        return Look.NORMAL if found is Look.SUSPECT else found

    Guard.look = bad  # type: ignore[method-assign]


PLANT: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (ack_before_the_copy, copy_dropped_on_a_cut, crashes_not_counted, suspects_not_alone)
}
