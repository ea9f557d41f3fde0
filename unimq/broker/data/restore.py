"""What the file holds, brought back into virtual hosts that are new.

Rules
- First all exchanges, queues and bindings, then all messages, then time and dead-lettering: a message that expired meanwhile,
  or was handed out once too often, finds its dead-letter queue.
- What was handed out and not settled comes back as from a reader that is gone: redelivered, and counted by quorum queues.
- All of it counts against `--max-bytes`, also beyond it: then publishers wait until there is room again.
- Restored exactly or not at all: what does not fit together is a damaged directory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final

import msgspec

from unimq.wire.amqp091.errors import WireError

from ..engine.amqpqueue import AmqpQueue
from ..engine.errors import AmqpError
from ..engine.exchange import TO_EXCHANGE
from ..engine.message import ENDED, Entry
from ..engine.vhost import VHost
from .directory import DataError, refusal
from .limits import SEQ_BITS
from .records import decoded, table, text
from .store import Store, row_id

# Who held the leases when the broker ended.
GONE: Final = "whoever was there before the restart"


def restore(store: Store, vhosts: dict[str, VHost], make: Callable[[str], VHost]) -> None:
    """Into `vhosts`, which are empty; a virtual host that is not among them is made and added. The store is told of what
    happens in all of them from here on."""
    try:
        _restore(store, vhosts, make)
        store.commit()
    except sqlite3.Error as error:
        raise refusal(store.directory, error) from error
    except (AmqpError, WireError, msgspec.DecodeError, LookupError, ValueError, TypeError) as error:
        raise DataError(f"the data directory {store.directory} is damaged: {error}") from error


def _restore(store: Store, vhosts: dict[str, VHost], make: Callable[[str], VHost]) -> None:
    read = store.connection.execute

    def host(raw_name: bytes) -> VHost:
        name = text(raw_name)
        if name not in vhosts:
            vhosts[name] = make(name)
        return vhosts[name]

    for vhost, name, kind, auto_delete, internal, arguments in read("SELECT * FROM exchanges"):
        host(vhost).declare_exchange(
            text(name),
            kind,
            durable=True,
            auto_delete=bool(auto_delete),
            internal=bool(internal),
            arguments=table(arguments),
        )
    queues: dict[int, tuple[VHost, AmqpQueue]] = {}
    for number, vhost, name, auto_delete, arguments in read("SELECT * FROM queues"):
        at = host(vhost)
        queues[number] = (
            at,
            at.declare_queue(
                text(name), durable=True, auto_delete=bool(auto_delete), arguments=table(arguments)
            ),
        )
    for vhost, source, kind, destination, key, arguments in read("SELECT * FROM bindings"):
        bind = host(vhost).bind_exchange if kind == TO_EXCHANGE else host(vhost).bind_queue
        bind(text(destination), text(source), text(key), table(arguments))
    for number, rows in groupby(read("SELECT * FROM messages ORDER BY id"), _number):
        queues[number][1].core.restore(_entries(rows), GONE)
    for number, (at, queue) in queues.items():
        queue.core.journal = store.take_over(at.name, queue, number)
    for at in vhosts.values():
        at.journal = store
    for _, queue in queues.values():
        queue.core.drop_owner(GONE)
        queue.bound()


def _number(row: tuple[Any, ...]) -> int:
    return int(row[0]) >> SEQ_BITS


def _entries(rows: Iterable[tuple[Any, ...]]) -> Iterable[Entry]:
    for (
        row,
        state,
        position,
        due_at,
        expires_at,
        deliveries,
        redelivered,
        deferred,
        reason,
        description,
        priority,
        enqueued_at,
        record,
        body,
    ) in rows:
        if not 0 <= state < ENDED:
            raise ValueError(f"no message is in state {state!r}")
        yield Entry(
            decoded(record, body),
            row & row_id(1, 0) - 1,
            state,
            enqueued_at,
            position,
            priority,
            bool(redelivered),
            bool(deferred),
            deliveries,
            expires_at,
            due_at,
            reason=text(reason),
            description=text(description),
        )
