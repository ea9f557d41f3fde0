"""The data directory: made, locked, or refused in one sentence.

Rules
- One broker at a time: the file is locked as long as the connection is open, and free again the moment its process is gone.
- Nothing is written before it is certain that the directory is new, or a broker's of a version that this one can read.
- The file is a write-ahead log's. A commit is in the hands of the operating system, so whatever kills the process loses
  nothing of it; after a power cut the last commits may be missing, whole ones, never a part.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from .limits import LOG_KEPT_BYTES

FILE: Final = "broker.sqlite3"
APPLICATION_ID: Final = 0x756E696D  # "unim", in the file's header
VERSION: Final = 1

# Names are bytes, as AMQP has them: they need not be UTF-8. Arguments are field tables.
SCHEMA: Final = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value)",
    """CREATE TABLE exchanges (vhost BLOB, name BLOB, kind TEXT, auto_delete INTEGER, internal INTEGER, arguments BLOB,
       PRIMARY KEY (vhost, name))""",
    """CREATE TABLE queues (number INTEGER PRIMARY KEY, vhost BLOB, name BLOB, auto_delete INTEGER, arguments BLOB,
       UNIQUE (vhost, name))""",
    """CREATE TABLE bindings (vhost BLOB, source BLOB, kind TEXT, destination BLOB, key BLOB, arguments BLOB,
       PRIMARY KEY (vhost, source, kind, destination, key, arguments))""",
    "CREATE INDEX bindings_to ON bindings (vhost, kind, destination)",
    # id: the number of the queue and the message's own in it (`store.row_id`)
    """CREATE TABLE messages (id INTEGER PRIMARY KEY, state INTEGER, position INTEGER, due_at REAL, expires_at REAL,
       deliveries INTEGER, redelivered INTEGER, deferred INTEGER, reason BLOB, description BLOB,
       priority INTEGER, enqueued_at REAL, record BLOB, body BLOB)""",
)


class DataError(OSError):
    """The data directory cannot be used, or not any more. One sentence, with the directory in it."""


def opened(directory: Path) -> sqlite3.Connection:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not any(directory.iterdir())
    except OSError as error:
        raise DataError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    file = directory / FILE
    if not new and not file.exists():
        raise DataError(f"the data directory {directory} is not empty and not a broker's: name a new one")
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(file, isolation_level=None, timeout=0)
        _prepare(connection, directory, empty=not file.exists() or not file.stat().st_size)
    except sqlite3.Error as error:
        _close(connection)
        raise refusal(directory, error) from error
    except DataError:
        _close(connection)
        raise
    return connection


def refusal(directory: Path, error: sqlite3.Error) -> DataError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DataError(f"the data directory {directory} is in use by another broker")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataError(f"the data directory {directory} is damaged: {FILE}: {error}")
    return DataError(f"the data directory {directory} cannot be used: {FILE}: {error}")


def _prepare(connection: sqlite3.Connection, directory: Path, empty: bool) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    if empty:  # it must be the first that happens to the file
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN EXCLUSIVE")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    connection.execute("COMMIT")
    if application == 0 and version == 0 and tables == 0:
        _make(connection)
    elif application != APPLICATION_ID:
        raise DataError(f"the data directory {directory} is not a broker's: {FILE} is another program's")
    elif version > VERSION:
        raise DataError(
            f"the data directory {directory} was written by a newer unimq (format {version}, here {VERSION})"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()
