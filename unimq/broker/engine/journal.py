"""What is told to whoever keeps durable state: the engine's side of `--data`.

Rules
- A journal is told while an operation happens and writes nothing yet: it is the server that lets it commit, before it
  answers anybody. All that is told between two commits becomes durable together or not at all.
- An entry is told by reference, and counts as it is at the commit. Only its coming and going must be told in order.
- Without a journal (None) nothing here is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .amqpqueue import AmqpQueue
    from .exchange import Binding, Exchange
    from .message import Entry


class QueueJournal(Protocol):
    """Of one durable queue. It takes every message of it and decides for itself which are to last."""

    def entered(self, entry: Entry) -> None: ...

    def changed(self, entry: Entry) -> None:
        """Handed out, come back, condemned: another state, count or place. `entry` may be a successor of the one told."""

    def left(self, entry: Entry) -> None: ...


class Journal(Protocol):
    """Of the virtual hosts. Told of durable things only."""

    def queue_declared(self, vhost: str, queue: AmqpQueue) -> QueueJournal: ...

    def queue_deleted(self, vhost: str, queue: AmqpQueue) -> None:
        """Its bindings and messages go with it."""

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None: ...

    def exchange_deleted(self, vhost: str, exchange: Exchange) -> None:
        """The bindings from it and to it go with it."""

    def bound(self, vhost: str, binding: Binding) -> None: ...

    def unbound(self, vhost: str, binding: Binding) -> None:
        """It may never have been told: one end is not durable."""
