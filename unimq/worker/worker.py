"""`Worker`: handlers, and what runs them.

Rules
- `handler` only writes down; a module with a worker can be imported by anything. Handlers stay plain callables.
- `run()` has its event loop on a thread of its own and blocks the caller; in the main thread it takes SIGTERM and SIGINT,
  elsewhere it installs nothing. `async with worker` runs on the loop that is there.
- The exit code: `DONE` stopped and drained, `GAVE_UP` what only a restart can mend, `NOT_DRAINED` handlers were still at it.
  What cannot work raises at start, with one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from .._async.client import AsyncClient
from .._intake import DEFAULT, _Default
from .._sync.client import Client
from ..address import Address, Source, Target
from ..errors import Closed, UnimqError, Unsupported
from ..retry import Retry
from ..stats import Health
from . import processes as forks
from .handlers import Classes, Match, Wish, grouped
from .outcomes import Ledger
from .shift import Settings, Shift

if TYPE_CHECKING:
    from .probe import Probe

DONE: Final = 0
GAVE_UP: Final = 1
NOT_DRAINED: Final = 3
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
F = TypeVar("F", bound=Callable[..., Any])
_log = logging.getLogger("unimq.worker")


class Worker:
    """See the module. `target` is a URL, a connected client, or None: `UNIMQ_URL` at start."""

    def __init__(
        self,
        target: str | Client | AsyncClient | None = None,
        *,
        processes: int = 1,
        drain_s: float = 25.0,
        health_port: int | str | None = None,
        health_after_s: float = 30.0,
        auth_grace_s: float = 300.0,
        wait_for_broker_s: float = 60.0,
        declare: Mapping[Address, Mapping[str, Any]] | Iterable[Address] = (),
        middleware: Sequence[Any] = (),
    ) -> None:
        if processes < 1:
            raise ValueError("processes is 1 or more")
        wanted = dict(declare) if isinstance(declare, Mapping) else {place: {} for place in declare}
        self._settings = Settings(
            target=target,
            drain_s=drain_s,
            health_after_s=health_after_s,
            auth_grace_s=auth_grace_s,
            wait_for_broker_s=wait_for_broker_s,
            declare=wanted,
            middleware=tuple(middleware),
        )
        self.processes = processes
        self._health_port = health_port
        self._wishes: list[Wish] = []
        self._ledger = Ledger()
        self._shift: Shift | None = None
        self._probe: Probe | None = None
        self._family: forks.Family | None = None

    # -------------------------------------------------------------------------------------------------- handlers
    def handler(
        self,
        source: Source,
        *,
        concurrency: int = 1,
        prefetch: int | None = None,
        retry: Retry = Retry(),  # a frozen value
        fatal: type[Exception] | Classes = (),
        retry_on: type[Exception] | Classes = (Exception,),
        dead_letter: Address | _Default | None = DEFAULT,
        timeout_s: float | None = None,
        batch: int | None = None,
        to: Target | None = None,
        match: Match | None = None,
        idempotent: bool | None = None,
        transaction: bool = False,
        lock_renewal_max_s: float = 300.0,
    ) -> Callable[[F], F]:
        """Handle what comes to `source` with the function below; it is left as it is."""

        def register(function: F) -> F:
            self._wishes.append(
                Wish(
                    function=function,
                    source=source,
                    concurrency=concurrency,
                    prefetch=prefetch,
                    retry=retry,
                    fatal=fatal if isinstance(fatal, tuple) else (fatal,),
                    retry_on=retry_on if isinstance(retry_on, tuple) else (retry_on,),
                    dead_letter=dead_letter,
                    timeout_s=timeout_s,
                    batch=batch,
                    to=to,
                    match=match,
                    idempotent=idempotent,
                    transaction=transaction,
                    lock_renewal_max_s=lock_renewal_max_s,
                )
            )
            return function

        return register

    def responder(self, source: Source, **options: Any) -> Callable[[F], F]:
        """Not there yet: request and reply come with the client's `request`."""
        raise Unsupported(f"a responder on {source}: request and reply are not there yet")

    @property
    def sources(self) -> list[Source]:
        """Where handlers are registered, each once."""
        return list({str(wish.source): wish.source for wish in self._wishes}.values())

    # --------------------------------------------------------------------------------------------------- running
    def run(self) -> int:
        """Work until stopped; the exit code. Raises what cannot work."""
        if self.processes > 1:
            self._check_forks()
            self._family = forks.Family(self.processes, self._run_as_child)
            try:
                return self._family.run()
            finally:
                self._family = None
        return self._run_here()

    def _check_forks(self) -> None:
        """What can be said before there are children is said here, once."""
        grouped(self._wishes, own_codecs=True)
        if not isinstance(self._settings.target, str | None):
            raise Unsupported("processes= needs a URL: a client made before the fork cannot be used after it")

    def _run_as_child(self, number: int) -> int:
        if self._health_port is not None:
            from .probe import shifted

            self._health_port = shifted(self._health_port, number)
        return self._run_here()

    def _run_here(self) -> int:
        shift = self._begin()
        problems: list[BaseException] = []
        over = threading.Event()

        def serve() -> None:
            try:
                asyncio.run(self._serve(shift))
            except BaseException as error:  # carried over to the caller, whatever it is
                problems.append(error)
            finally:
                over.set()

        with self._signals(shift):
            threading.Thread(target=serve, name="unimq-worker", daemon=True).start()
            over.wait()
        if problems:
            raise problems[0]
        return self._exit_code(shift)

    def _begin(self) -> Shift:
        if self._shift is not None:
            raise UnimqError("this worker runs already", code="running")
        shift = self._shift = Shift(self._settings, list(self._wishes), self._ledger)
        return shift

    async def _serve(self, shift: Shift) -> None:
        try:
            await self._started(shift)
        except Closed:
            if not shift.stopping.wanted.is_set():
                raise
            return  # stopped while it started
        await shift.wait()
        await self._ended(shift)

    async def _started(self, shift: Shift) -> None:
        try:
            if self._health_port is not None:
                from .probe import Probe  # an HTTP server is not what everybody imports

                self._probe = Probe(self._health_port, shift.health)
            await shift.start()
        except BaseException:
            self._close_probe()
            self._shift = None
            raise

    async def _ended(self, shift: Shift) -> None:
        try:
            await shift.stop()
        finally:
            self._close_probe()
            self._shift = None

    def _close_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()

    @staticmethod
    def _exit_code(shift: Shift) -> int:
        error = shift.stopping.error
        if error is not None:
            if not isinstance(error, Exception):
                raise error  # a handler's SystemExit or KeyboardInterrupt
            _log.error("the worker gave up: %s", error)
            return GAVE_UP
        if shift.left_behind:
            _log.warning("%d handlers were still at it; their messages come again", shift.left_behind)
            return NOT_DRAINED
        return DONE

    @contextlib.contextmanager
    def _signals(self, shift: Shift) -> Iterator[None]:
        """The first signal drains, the second hurries, the third is the system's own again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        seen = 0

        def heard(number: int, frame: FrameType | None) -> None:
            nonlocal seen
            seen += 1
            shift.stopping.stop()
            if seen == 2:
                restore()

        before = {number: signal.getsignal(number) for number in SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in SIGNALS:
            signal.signal(number, heard)
        try:
            yield
        finally:
            restore()

    # ------------------------------------------------------------------------------------------------- controlling
    def stop(self) -> None:
        """Any thread, any number of times. The first drains, the second hurries. Returns at once."""
        family, shift = self._family, self._shift
        if family is not None:
            family.stop()
        elif shift is not None:
            shift.stopping.stop()

    def pause(self, function: Callable[..., Any]) -> None:
        """Begin nothing more with this handler, until `resume`. What it has in hand goes on. Any thread."""
        self._each(function, "pause")

    def resume(self, function: Callable[..., Any]) -> None:
        self._each(function, "resume")

    def _each(self, function: Callable[..., Any], verb: str) -> None:
        shift = self._shift
        if shift is None:
            raise Closed("this worker does not run")
        found = [
            (lane, handler)
            for lane in list(shift.lanes)
            for handler in lane.crews
            if handler.wish.function is function
        ]
        if not found:
            raise ValueError(f"{function!r} is no handler of this worker")
        for lane, handler in found:
            lane._loop.call_soon_threadsafe(getattr(lane, verb), handler)

    def health(self) -> Health:
        """Progress, not a TCP connection: bad when nothing moves that should; idle is good. Any thread."""
        shift = self._shift
        if shift is None:
            return Health(False, ("the worker does not run",), {})
        return shift.health()

    @property
    def health_address(self) -> tuple[str, int] | None:
        """Where the probe listens."""
        return None if self._probe is None else self._probe.address

    async def __aenter__(self) -> Self:
        await self._started(self._begin())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shift = self._shift
        if shift is None:
            return
        await self._ended(shift)
        gave_up = shift.stopping.error
        if gave_up is not None and error is None:
            raise gave_up

    def __repr__(self) -> str:
        stage = "new" if self._shift is None else self._shift.stopping.stage.value
        return f"<Worker of {', '.join(str(source) for source in self.sources) or 'nothing'}, {stage}>"
