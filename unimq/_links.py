"""The links of a client, as intents for the supervisor: what is open, and what opens it again.

Rules
- Topology is acted on here, when a link opens, from the plan, and so again at every reconnect: `create` makes what is
  missing, `verify` reports differences, `assume` asks for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from ._batcher import Batcher
from ._copier import Copier
from .address import Address, Target
from .driver import (
    Connection,
    Event,
    Op,
    Place,
    Room,
    SenderLink,
    SenderOptions,
)
from .errors import NotFound, UnimqError
from .topology import Declaration, TopologyReport

_log = logging.getLogger("unimq.links")

TopologyMode = Literal["create", "verify", "assume"]


def act(connection: Connection, topology: Sequence[Declaration], mode: TopologyMode) -> TopologyReport:
    """Make or compare what must be there. Blocks; raises the library's errors and `TopologyMismatch`."""
    if mode == "assume" or not topology:
        return TopologyReport()
    report = connection.declare(topology, verify_only=mode == "verify")
    if mode == "verify":
        report.raise_for_differences()
    return report


class SenderIntent:
    """A sender's link. `target` is an address, or the place of a delay."""

    patient = False

    def __init__(
        self, target: Target | Place, options: SenderOptions, batcher: Batcher, prepare: Prepare | None
    ) -> None:
        self.what = f"the sender to {target}"
        self._target = target
        self._options = options
        self._prepare = prepare  # makes a delay place at first use
        self.batcher = batcher

    @property
    def link(self) -> SenderLink | None:
        return self.batcher.link

    @property
    def busy(self) -> bool:
        return self.batcher.outstanding > 0

    def open(self, connection: Connection) -> SenderLink:
        if self._prepare is not None:
            self._prepare(connection)
        return connection.sender(self._target, self._options)

    def attach(self, link: SenderLink) -> None:
        self.batcher.attach(link)

    def detach(self, error: UnimqError | None) -> None:
        self.batcher.detach(error)

    def end(self, error: UnimqError) -> None:
        self.batcher.end(error)

    def event(self, event: Event) -> None:
        if isinstance(event, Room):
            self.batcher.unstall()


Prepare = Callable[[Connection], None]


def place_maker(address: Address, place: Place, mode: TopologyMode) -> Prepare:
    """Makes the one delay place that `address` needs, at first use; under `verify` and `assume` it must be there."""

    def prepare(connection: Connection) -> None:
        if mode == "create":
            connection.declare([Declaration(address, places=(place,))], verify_only=False)

    return prepare


class CopierIntent:
    """The link of a copier. Patient: its place may be deleted and made again. `declared`: its receiver compared the place when
    it opened, so it is looked at again only where it turns out to be gone."""

    patient = True

    def __init__(self, copier: Copier, prepare: Prepare | None, *, declared: bool = False) -> None:
        self.what = f"the link to {copier.place}"
        self.copier = copier
        self._prepare = prepare
        self._declared = declared

    @property
    def link(self) -> SenderLink | None:
        return self.copier.link

    @property
    def busy(self) -> bool:
        return self.copier.busy

    def open(self, connection: Connection) -> SenderLink:
        place, options = self.copier.place, SenderOptions()
        if self._prepare is not None:
            if self._declared and connection.capabilities.unroutable:
                try:
                    return connection.sender(place, options)
                except Exception as error:  # the library's own: told apart once it is classified
                    if not isinstance(self.copier.classify(error, Op.OPEN, False), NotFound):
                        raise
                    _log.info("%s is gone: it is made again, where that is allowed", place)
            self._prepare(connection)
        return connection.sender(place, options)

    def attach(self, link: SenderLink) -> None:
        self.copier.attach(link)

    def detach(self, error: UnimqError | None) -> None:
        self.copier.detach(error)

    def end(self, error: UnimqError) -> None:
        self.copier.detach(error)

    def event(self, event: Event) -> None:
        """`forward` never refuses: there is nothing to be told."""
