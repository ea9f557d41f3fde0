"""One run of a worker, from start to stop, on one event loop.

Rules
- Start: connect (waiting for the broker up to `wait_for_broker_s`), declare, open every receiver, then fetch. What cannot
  work raises here, before a message is handled.
- Stop (§5.4): fetch nothing more, finish what is in hand within `drain_s`, settle, hand back the rest by closing the links.
- Every second it looks after itself: a login that is refused for longer than `auth_grace_s` ends the run; `beat` shows
  that the loop is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .._async._wait import call
from .._async.client import AsyncClient
from .._sync.client import Client
from ..address import Address
from ..errors import AuthenticationFailed, Closed, ConnectionFailed, UnimqError
from ..stats import Health
from . import crew, middleware, twins
from .handlers import Group, Wish, grouped
from .lane import Lane
from .outcomes import Ledger
from .stopping import Stage, Stopping

CONNECT_PAUSE_FIRST_S: Final = 0.2
CONNECT_PAUSE_MAX_S: Final = 5.0
LOOK_S: Final = 1.0
BEATS_MISSED: Final = 3
DRAIN_LOOK_S: Final = 0.02
CLOSE_S: Final = 10.0
HURRIED_CLOSE_S: Final = 1.0
_log = logging.getLogger("unimq.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `Worker(...)` was told."""

    target: str | Client | AsyncClient | None
    drain_s: float
    health_after_s: float
    auth_grace_s: float
    wait_for_broker_s: float
    declare: Mapping[Address, Mapping[str, Any]]
    middleware: Sequence[Any]


class Shift:
    """`start`, then `stop`; both on the loop. `stopping` and `health` are for any thread."""

    def __init__(self, settings: Settings, wishes: Sequence[Wish], ledger: Ledger) -> None:
        self.stopping = Stopping()
        self.lanes: list[Lane] = []
        self.client: AsyncClient | None = None
        self.beat = time.monotonic()
        self.left_behind = 0  # deliveries whose handler was still at it when the time was up
        self._settings = settings
        self._wishes = wishes
        self._ledger = ledger
        self._sync_client: Client | None = None
        self._owns_client = False
        self._look: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------------ start
    async def start(self) -> None:
        """Raises what cannot work, and `Closed` when it was stopped meanwhile."""
        stopping = self.stopping
        stopping.bind()
        stopping.move("start")
        begun = asyncio.create_task(self._start())
        stop = asyncio.create_task(stopping.wanted.wait())
        try:
            await asyncio.wait([begun, stop], return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                begun.cancel()
            try:
                await begun
            except asyncio.CancelledError:
                if stopping.stage is not Stage.CLOSING:
                    raise
                raise Closed("the worker was stopped while it started") from None
            if stopping.stage is not Stage.STARTING:
                raise Closed("the worker was stopped while it started")
        except BaseException:
            begun.cancel()
            if stopping.stage is Stage.STARTING:
                stopping.move("failed")
            await self._close(HURRIED_CLOSE_S)
            raise
        finally:
            stop.cancel()
        stopping.move("started")
        for lane in self.lanes:
            lane.start()
        self._look = asyncio.create_task(self._look_after())
        _log.info("working on %s", ", ".join(str(lane.source) for lane in self.lanes))

    async def _start(self) -> None:
        settings = self._settings
        groups = grouped(self._wishes, own_codecs=self._own_codecs())
        handlers = [handler for group in groups for handler in group.handlers]
        asynchronous = [handler.shape.is_async for handler in handlers]
        middleware.check(settings.middleware, has_sync=not all(asynchronous), has_async=any(asynchronous))
        client = self.client = await self._connect()
        if any(handler.shape.wants_client and not handler.shape.is_async for handler in handlers):
            self._sync_client = twins.sync_twin(client)
        for place, options in settings.declare.items():
            await client.declare(place, **options)
        wrap = middleware.wrapper(settings.middleware)
        for group in groups:
            await self._open(group, client, wrap)

    async def _open(self, group: Group, client: AsyncClient, wrap: middleware.Wrap) -> None:
        lane = Lane(group, client, ledger=self._ledger, broken=self.stopping.failed)
        self.lanes.append(lane)
        try:
            await lane.open(self._sync_client, wrap)
        except UnimqError as error:
            error.add_note(f"while opening {group.source} for {group.handlers[0].name}")
            raise

    def _own_codecs(self) -> bool:
        target = self._settings.target
        return isinstance(target, Client | AsyncClient) and len(target._codecs._by_type) > 1

    async def _connect(self) -> AsyncClient:
        settings, target = self._settings, self._settings.target
        if isinstance(target, AsyncClient):
            if target._capabilities is None:
                await target
            target._check()
            return target
        if isinstance(target, Client):
            return twins.async_twin(target)
        self._owns_client = True
        sends = [each for each in settings.middleware if hasattr(each, "send")]
        deadline = time.monotonic() + settings.wait_for_broker_s
        pause_s = CONNECT_PAUSE_FIRST_S
        while True:
            try:
                return await AsyncClient(target, middleware=sends)
            except ConnectionFailed as error:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise
                _log.warning("waiting for the broker, %.0f s more: %s", left_s, error)
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 2, CONNECT_PAUSE_MAX_S)

    # ------------------------------------------------------------------------------------------------- meanwhile
    async def _look_after(self) -> None:
        refused_since: float | None = None
        told: set[str] = set()
        while True:
            now = self.beat = time.monotonic()
            assert self.client is not None
            supervisor = self.client._supervisor
            refused = supervisor.down_since is not None and isinstance(
                supervisor.last_error, AuthenticationFailed
            )
            refused_since = (refused_since or now) if refused else None
            if refused_since is not None and now - refused_since >= self._settings.auth_grace_s:
                assert supervisor.last_error is not None
                self.stopping.failed(supervisor.last_error)
            stuck = {text for lane in self.lanes for text in lane.stuck(now)}
            for text in stuck if not told else ():
                _log.error("%s; its message is not settled before it returns", text)
            told = stuck
            await asyncio.sleep(LOOK_S)

    def health(self) -> Health:
        """Any thread. Progress: idle is good."""
        stage, now = self.stopping.stage, time.monotonic()
        problems: list[str] = []
        if self.stopping.error is not None:
            problems.append(f"it gave up: {self.stopping.error}")
        elif stage is not Stage.RUNNING:
            problems.append(f"the worker is {stage.value}")
        if stage is Stage.RUNNING and now - self.beat >= max(
            self._settings.health_after_s, BEATS_MISSED * LOOK_S
        ):
            problems.append(f"the loop did not turn for {now - self.beat:.0f} s: an async handler blocks it")
        for lane in list(self.lanes):
            problems += lane.stuck(now)
        details: dict[str, object] = {
            "stage": stage.value,
            "in_hand": sum(lane.in_hand for lane in list(self.lanes)),
            "outcomes": {verb.value: count for verb, count in list(self._ledger.counts.items())},
        }
        client = self.client
        if client is not None:
            seen = client.health()
            details |= seen.details
            supervisor = client._supervisor
            down = supervisor.down_since
            if down is not None and now - down >= self._settings.health_after_s:
                problems.append(str(supervisor.down_error()))
            elif down is None:
                problems += seen.problems
        return Health(not problems, tuple(problems), details)

    # ------------------------------------------------------------------------------------------------------- stop
    async def wait(self) -> None:
        """Until somebody wants it to stop, or it cannot go on."""
        await self.stopping.wanted.wait()

    async def stop(self) -> None:
        """Drain, then close. Raises nothing but what a cancelled caller brings."""
        stopping = self.stopping
        if stopping.stage is Stage.RUNNING:
            stopping.stop()
        began = time.monotonic()
        for lane in self.lanes:
            await lane.stop_fetching()
        drained = await self._drained(began + self._settings.drain_s)
        stopping.move("drained" if drained else "time is up")
        self.left_behind = sum(lane.in_hand for lane in self.lanes) if not drained else 0
        await self._close(HURRIED_CLOSE_S if stopping.hurried.is_set() else CLOSE_S)
        _log.info(
            "stopped after %.2f s%s",
            time.monotonic() - began,
            "" if drained else ", not everything was finished",
        )

    async def _drained(self, deadline: float) -> bool:
        """Looks rather than listens: threads end when they end, and this is the only one who waits for them."""
        while True:
            if not any(lane.busy for lane in self.lanes):
                return True
            if self.stopping.hurried.is_set() or time.monotonic() >= deadline:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_LOOK_S):
                    await self.stopping.hurried.wait()

    async def _close(self, timeout_s: float) -> None:
        if self._look is not None:
            self._look.cancel()
        for lane in self.lanes:
            await lane.stop_fetching()
        await asyncio.gather(*(lane.close(timeout_s) for lane in self.lanes))
        await crew.gone(each for lane in self.lanes for each in lane.crews.values())
        client = self.client
        if self._sync_client is not None:
            self._told(await call(twins.close_sync, self._sync_client, timeout_s))
        if client is not None:
            if self._owns_client:
                try:
                    await client.close(timeout_s)
                except UnimqError as error:
                    self._told([error])
            elif client is not self._settings.target:
                self._told(await twins.close_async(client, timeout_s))
        self.stopping.move("closed")

    @staticmethod
    def _told(problems: Sequence[UnimqError]) -> None:
        for problem in problems:
            _log.warning("while closing: %s", problem)
