"""Virtual hosts on a data directory, without a server: they are killed and born again on the same clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unimq.broker.data import Store, restore
from unimq.broker.engine import Engine, ManualClock
from unimq.broker.engine.dialect import DIALECT_3
from unimq.broker.engine.vhost import VHost

MAX_BYTES = 50_000_000
PERSISTENT: dict[str, Any] = {"delivery_mode": 2}


class Life:
    def __init__(self, directory: Path, clock: ManualClock | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory
        self.clock = clock or ManualClock()
        self.engine = Engine(self.clock, seed=1, max_bytes=max_bytes)
        self.store = Store(directory)
        self.vhosts = {"/": self._vhost("/")}
        try:
            restore(self.store, self.vhosts, self._vhost)
        except BaseException:
            self.store.close()
            raise

    def _vhost(self, name: str) -> VHost:
        return VHost(self.engine, name, DIALECT_3)

    def add_vhost(self, name: str) -> VHost:
        made = self.vhosts[name] = self._vhost(name)
        made.journal = self.store
        return made

    @property
    def vhost(self) -> VHost:
        return self.vhosts["/"]

    def commit(self) -> None:
        self.store.commit()

    def killed(self, *, down_s: float = 0.0, max_bytes: int = MAX_BYTES) -> Life:
        """What was not committed is lost; the next life begins `down_s` later."""
        self.store.close()
        self.clock.advance(down_s)
        return Life(self.directory, self.clock, max_bytes)

    def rows(self, table: str = "messages") -> int:
        found = self.store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0])


class Lives:
    """The one that lives now; `end` kills it and begins the next."""

    def __init__(self, directory: Path) -> None:
        self.now = Life(directory)

    def end(self, *, commit: bool = True, down_s: float = 0.0, max_bytes: int = MAX_BYTES) -> VHost:
        if commit:
            self.now.commit()
        self.now = self.now.killed(down_s=down_s, max_bytes=max_bytes)
        return self.now.vhost

    @property
    def vhost(self) -> VHost:
        return self.now.vhost
