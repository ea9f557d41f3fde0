"""`--data`: durable exchanges, queues, bindings and persistent messages in one SQLite file.

Rooms: `directory` opens the file or says why not, `store` writes what the engine's journal is told, `records` is a message as
bytes, `restore` brings it all back.
"""

from .directory import DataError
from .restore import restore
from .store import Store

__all__ = ["DataError", "Store", "restore"]
