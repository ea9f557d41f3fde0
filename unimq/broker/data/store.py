"""The journal of the engine, written into SQLite: one transaction a turn.

Rules
- `commit` writes all that was told since the last one, or nothing of it. The server calls it before it answers anybody.
- A message that came and went between two commits is never written. A row goes when its message leaves.
- Classic queues keep what was published as persistent, quorum queues all they have, as RabbitMQ's do.
- A message in several queues is a row in each.
- Once a commit has failed the store is of no use any more: the server ends, as if it had been killed.

Entry      told                 at the commit
---------  -------------------  ---------------------------------------
(unknown)  entered              NEW: inserted as it is then
NEW        changed              NEW
NEW        left                 forgotten
(in file)  changed              CHANGED: its state and place are written
CHANGED    left                 GONE: deleted
(in file)  left                 GONE: deleted
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unimq.wire.amqp091.table import encode_table

from ..engine.exchange import TO_EXCHANGE, TO_QUEUE
from .directory import opened, refusal
from .limits import FREE_MAX_BYTES, GIVE_BACK_PAGES, LOOK_AFTER_ROWS, QUEUE_NUMBER_MAX, SEQ_BITS
from .records import encoded, raw

if TYPE_CHECKING:
    from ..engine.amqpqueue import AmqpQueue
    from ..engine.exchange import Binding, Exchange
    from ..engine.message import Entry, Stored

_INSERT: Final = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE: Final = """UPDATE messages SET state = ?, position = ?, due_at = ?, expires_at = ?, deliveries = ?,
                    redelivered = ?, deferred = ?, reason = ?, description = ? WHERE id = ?"""
_DELETE: Final = "DELETE FROM messages WHERE id = ?"


def row_id(number: int, seq: int) -> int:
    return number << SEQ_BITS | seq


class StoredQueue:
    """The `QueueJournal` of one queue."""

    __slots__ = ("_base", "_keeps_all", "_store")

    def __init__(self, store: Store, number: int, keeps_all: bool) -> None:
        self._store = store
        self._base = number << SEQ_BITS
        self._keeps_all = keeps_all

    def entered(self, entry: Entry) -> None:
        if self._keeps_all or entry.stored.persistent:
            self._store.new[self._base | entry.seq] = entry

    def changed(self, entry: Entry) -> None:
        if self._keeps_all or entry.stored.persistent:
            row = self._base | entry.seq
            new = self._store.new
            if row in new:
                new[row] = entry
            else:
                self._store.changed[row] = entry

    def left(self, entry: Entry) -> None:
        if self._keeps_all or entry.stored.persistent:
            row = self._base | entry.seq
            store = self._store
            if store.new.pop(row, None) is None:
                store.changed.pop(row, None)
                store.gone.append(row)


class Store:
    """An open data directory: the engine's `Journal`. One thread, the broker's."""

    def __init__(self, directory: Path) -> None:
        """Raises `DataError`."""
        self.directory = directory
        self.connection = opened(directory)
        self.new: dict[int, Entry] = {}
        self.changed: dict[int, Entry] = {}
        self.gone: list[int] = []
        self._numbers: dict[tuple[str, str], int] = {}  # of the queues
        self._free: list[int] = []  # numbers that may be given again
        self._freed: list[int] = []  # from the next commit on
        self._next_number = 1
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self._rows_left = 0
        try:
            (self._page_bytes,) = self.connection.execute("PRAGMA page_size").fetchone()
            moved = self.connection.execute("SELECT value FROM settings WHERE name = 'advanced_s'").fetchone()
        except sqlite3.Error as error:
            self.connection.close()
            raise refusal(directory, error) from error
        # how far the broker's clock was moved by hand, in all its lives
        self.advanced_s = 0.0 if moved is None else float(moved[0])

    # ------------------------------------------------------------------------------------------- what is there
    def take_over(self, vhost: str, queue: AmqpQueue, number: int) -> StoredQueue:
        """A queue that was found in the file."""
        self._numbers[vhost, queue.name] = number
        self._next_number = max(self._next_number, number + 1)
        return StoredQueue(self, number, queue.spec.kind == "quorum")

    def clock_advanced(self, advanced_s: float) -> None:
        self._write("INSERT OR REPLACE INTO settings VALUES ('advanced_s', ?)", advanced_s)

    # -------------------------------------------------------------------------------------- what it is told of
    def queue_declared(self, vhost: str, queue: AmqpQueue) -> StoredQueue:
        number = self._free.pop() if self._free else self._next_number
        if number > QUEUE_NUMBER_MAX:
            raise OverflowError(f"{self.directory}: there are no more numbers for queues")
        self._next_number = max(self._next_number, number + 1)
        self._write(
            "INSERT INTO queues VALUES (?, ?, ?, ?, ?)",
            number,
            raw(vhost),
            raw(queue.name),
            queue.auto_delete,
            encode_table(queue.arguments),
        )
        return self.take_over(vhost, queue, number)

    def queue_deleted(self, vhost: str, queue: AmqpQueue) -> None:
        number = self._numbers.pop((vhost, queue.name))
        self._freed.append(number)
        for pending in (self.new, self.changed):
            for row in [row for row in pending if row >> SEQ_BITS == number]:
                del pending[row]
        self._write("DELETE FROM queues WHERE number = ?", number)
        self._write(
            "DELETE FROM messages WHERE id BETWEEN ? AND ?", row_id(number, 0), row_id(number + 1, 0) - 1
        )
        self._unbind_all(vhost, TO_QUEUE, queue.name)
        self._rows_left += LOOK_AFTER_ROWS

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        self._write(
            "INSERT INTO exchanges VALUES (?, ?, ?, ?, ?, ?)",
            raw(vhost),
            raw(exchange.name),
            exchange.kind,
            exchange.auto_delete,
            exchange.internal,
            encode_table(exchange.arguments),
        )

    def exchange_deleted(self, vhost: str, exchange: Exchange) -> None:
        name = raw(exchange.name)
        self._write("DELETE FROM exchanges WHERE vhost = ? AND name = ?", raw(vhost), name)
        self._write("DELETE FROM bindings WHERE vhost = ? AND source = ?", raw(vhost), name)
        self._unbind_all(vhost, TO_EXCHANGE, exchange.name)

    def bound(self, vhost: str, binding: Binding) -> None:
        self._write("INSERT INTO bindings VALUES (?, ?, ?, ?, ?, ?)", *_binding_row(vhost, binding))

    def unbound(self, vhost: str, binding: Binding) -> None:
        self._write(
            "DELETE FROM bindings WHERE vhost = ? AND source = ? AND kind = ? AND destination = ? AND key = ?"
            " AND arguments = ?",
            *_binding_row(vhost, binding),
        )

    def _unbind_all(self, vhost: str, kind: str, destination: str) -> None:
        self._write(
            "DELETE FROM bindings WHERE vhost = ? AND kind = ? AND destination = ?",
            raw(vhost),
            kind,
            raw(destination),
        )

    def _write(self, statement: str, *values: Any) -> None:
        self._statements.append((statement, values))

    # ----------------------------------------------------------------------------------------------- committing
    def commit(self) -> None:
        """All that was told, in the file, or `DataError`."""
        if not (self.new or self.changed or self.gone or self._statements):
            return
        execute, many = self.connection.execute, self.connection.executemany
        try:
            execute("BEGIN")
            for statement, values in self._statements:
                execute(statement, values)
            if self.gone:
                many(_DELETE, [(row,) for row in self.gone])
            if self.changed:
                many(_UPDATE, [(*_standing(entry), row) for row, entry in self.changed.items()])
            if self.new:
                many(_INSERT, _rows(self.new))
            execute("COMMIT")
            self._rows_left += len(self.gone)
            if self._rows_left >= LOOK_AFTER_ROWS:
                self._give_back()
        except sqlite3.Error as error:
            raise refusal(self.directory, error) from error
        self.new.clear()
        self.changed.clear()
        self.gone.clear()
        self._statements.clear()
        self._free += self._freed
        self._freed.clear()

    def _give_back(self) -> None:
        """Free pages to the file system, a few with each commit; below a bound they stay for what comes."""
        (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if free * self._page_bytes <= FREE_MAX_BYTES:
            self._rows_left = 0
        else:
            # one step a page; `execute` takes a single step
            self.connection.executescript(f"PRAGMA incremental_vacuum({GIVE_BACK_PAGES})")

    def close(self) -> None:
        """What was not committed is lost. The next broker may open it."""
        self.connection.close()


def _binding_row(vhost: str, binding: Binding) -> tuple[Any, ...]:
    kind, destination = binding.destination
    arguments = encode_table(binding.arguments)
    return raw(vhost), raw(binding.source), kind, raw(destination), raw(binding.key), arguments


def _standing(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.state,
        entry.position,
        entry.due_at,
        entry.expires_at,
        entry.delivery_count,
        entry.redelivered,
        entry.deferred,
        raw(entry.reason),
        raw(entry.description),
    )


def _rows(new: dict[int, Entry]) -> list[tuple[Any, ...]]:
    rows = []
    last: Stored | None = None
    record = b""
    for row, entry in new.items():
        stored = entry.stored
        if stored is not last:  # a message in several queues
            last, record = stored, encoded(stored)
        rows.append((row, *_standing(entry), entry.priority, entry.enqueued_at, record, stored.body))
    return rows
