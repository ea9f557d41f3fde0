"""tx: publishes and acknowledgements held until the commit.

Rules
- A commit does all publishes, then all settlements, in their order; a rollback forgets the publishes and makes the
  deliveries unacknowledged again.
- What a transaction holds is bounded, by count and by bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimq.broker.engine.errors import AmqpError
from unimq.broker.engine.vhost import Prepared

from .limits import TX_BYTES_MAX, TX_PUBLISHES_MAX

if TYPE_CHECKING:
    from .channel import Channel
    from .unacked import Unacked


class Transaction:
    def __init__(self) -> None:
        self.publishes: list[tuple[Prepared, bool]] = []
        self.settled: list[tuple[str, list[Unacked]]] = []
        self.held_bytes = 0

    def publish(self, ready: Prepared, mandatory: bool) -> None:
        self.held_bytes += ready.stored.size_bytes
        if len(self.publishes) >= TX_PUBLISHES_MAX or self.held_bytes > TX_BYTES_MAX:
            raise AmqpError(506, "the transaction holds too much")
        self.publishes.append((ready, mandatory))

    def settle(self, verb: str, taken: list[Unacked]) -> None:
        self.settled.append((verb, taken))


def select(ch: Channel) -> None:
    if ch.mode == "confirm":
        raise AmqpError(406, "cannot switch from confirm to tx mode")
    ch.mode = "tx"
    ch.say("tx.select-ok")


def commit(ch: Channel) -> None:
    from .consuming import settle
    from .publishing import send

    transaction = _of(ch)
    ch.tx = Transaction()
    refused = False
    with ch.vhost.engine.together():  # what dies of it comes behind all of it
        for ready, mandatory in transaction.publishes:
            refused = send(ch, ready, mandatory) or refused
        if not refused:
            ch.say("tx.commit-ok")  # before what settling brings, as RabbitMQ says it
        for verb, taken in transaction.settled:
            settle(ch, verb, taken)
    if refused:
        raise AmqpError(406, "partial tx completion")


def rollback(ch: Channel) -> None:
    transaction = _of(ch)
    ch.tx = Transaction()
    give_back(ch, transaction)
    ch.say("tx.rollback-ok")


def give_back(ch: Channel, transaction: Transaction) -> None:
    """What was settled in it is unacknowledged again, in the order of delivery."""
    tags: dict[int, Unacked] = {}
    for _, taken in transaction.settled:
        tags |= {each.tag: each for each in taken}
    if tags:
        ch.unacked = dict(sorted({**ch.unacked, **tags}.items()))


def _of(ch: Channel) -> Transaction:
    if ch.mode != "tx":
        raise AmqpError(406, "channel is not transactional")
    return ch.tx
