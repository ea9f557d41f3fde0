"""One handler at work: decode, middleware, the function, `to=`, and the verdict. Sync in threads, async in tasks.

Rules
- The order is always: the function returns, what it returned is sent and confirmed, then the ack.
- A failed try in hand is repeated here, by the same thread or task: the order of a lane is kept and nothing waits.
- What the handler settled itself is left alone. A link that died meanwhile only means that the message comes again.
- An async handler beyond `timeout_s` is cancelled: a failed try. A sync one cannot be: it is *stuck* until it returns, and
  then its outcome counts as if it had been in time: its message is settled once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .. import retry
from .._async.client import AsyncClient
from .._settlement import Desk
from .._sync.client import Client
from ..delivery import Delivery
from ..errors import AlreadySettled, LockLost, Unsupported
from ..message import Message
from .handlers import Handler
from .outcomes import Ledger, Outcome, Verb

if TYPE_CHECKING:
    from .middleware import Wrap

SEND_TIMEOUT_S: Final = 30.0
_log = logging.getLogger("unimq.worker")


class HandlerStopped(Exception):
    """The handler's task was cancelled by somebody else than the worker: a failed try."""


class Post:
    """Handles deliveries of one handler. `desk` is the receiver's; `over` is told of each delivery that left our hands."""

    def __init__(
        self,
        handler: Handler,
        *,
        desk: Callable[[], Desk],
        over: Callable[[Delivery], None],
        ledger: Ledger,
        client: AsyncClient,
        sync_client: Client | None,
        wrap: Wrap,
    ) -> None:
        self.handler = handler
        self.shape = handler.shape
        self._wish = handler.wish
        self._desk = desk
        self._over = over
        self._ledger = ledger
        self._client = client
        self._injected = client if handler.shape.is_async else sync_client
        self._loop = asyncio.get_running_loop()
        self._call = wrap(handler.shape.is_async, self._invoke)

    # ------------------------------------------------------------------------------------------------ one by one
    def handle(self, delivery: Delivery) -> None:
        """A sync handler's thread."""
        try:
            while self._still(delivery):
                error: Exception | None = None
                try:
                    result = self._call(self._given(delivery))
                    if self._wish.to is not None and result is not None:
                        self._send_from_thread(self._results(result))
                except Exception as failure:  # whatever the handler raises is judged by the policy
                    error = failure
                if not self.conclude(delivery, error):
                    return
        finally:
            self._over(delivery)

    async def handle_async(self, delivery: Delivery) -> None:
        try:
            while self._still(delivery):
                error: Exception | None = None
                try:
                    result = await self._limited(self._given(delivery))
                    if self._wish.to is not None and result is not None:
                        await self._send(self._results(result))
                except Exception as failure:
                    error = failure
                if not self.conclude(delivery, error):
                    return
        finally:
            self._over(delivery)

    def _given(self, delivery: Delivery) -> Any:
        return [delivery] if self.shape.batch else delivery

    # --------------------------------------------------------------------------------------------------- batches
    def handle_batch(self, deliveries: Sequence[Delivery]) -> None:
        good = self._decodable(deliveries)
        if not good:
            return
        try:
            result = self._call(good)
            if self._wish.to is not None and result is not None:
                self._send_from_thread(self._results(result))
        except Exception as error:
            self._one_by_one(good, error)
            for delivery in good:
                self.handle(delivery)
            return
        self._ack_all(good)

    async def handle_batch_async(self, deliveries: Sequence[Delivery]) -> None:
        good = self._decodable(deliveries)
        if not good:
            return
        try:
            result = await self._limited(good)
            if self._wish.to is not None and result is not None:
                await self._send(self._results(result))
        except Exception as error:
            self._one_by_one(good, error)
            for delivery in good:
                await self.handle_async(delivery)
            return
        self._ack_all(good)

    def _decodable(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of a batch that can be given to the handler; the others are dead."""
        good: list[Delivery] = []
        for delivery in deliveries:
            try:
                if not self._still(delivery):
                    raise LockLost("its link is gone")
                if self.shape.takes_body:
                    self.shape.decode(delivery)
            except LockLost:
                self._over(delivery)
            except Exception as error:  # as in `handle`
                self.conclude(delivery, error)
                self._over(delivery)
            else:
                good.append(delivery)
        return good

    def _one_by_one(self, deliveries: Sequence[Delivery], error: Exception) -> None:
        _log.warning(
            "%s: a batch of %d failed, each is tried alone: %s",
            self.handler.name,
            len(deliveries),
            error,
            exc_info=error,
        )

    def _ack_all(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.conclude(delivery, None)
            self._over(delivery)

    # --------------------------------------------------------------------------------------------------- calling
    def _invoke(self, given: Any) -> Any:
        """The innermost step: decode and call. For an async handler what comes back is awaited by the caller."""
        shape = self.shape
        body: Any = None
        if shape.takes_body:
            body = [shape.decode(each) for each in given] if shape.batch else shape.decode(given)
        positional, named = shape.arguments(body, given, self._injected)
        return self._wish.function(*positional, **named)

    async def _limited(self, given: Any) -> Any:
        limit_s = self._wish.timeout_s
        try:
            if limit_s is None:
                return await _awaited(self._call(given))
            try:
                async with asyncio.timeout(limit_s) as limit:
                    return await _awaited(self._call(given))
            except TimeoutError as error:
                if limit.expired():
                    raise TimeoutError(f"{self.handler.name} took longer than {limit_s:g} s") from error
                raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the worker stops
            raise HandlerStopped(f"{self.handler.name} was cancelled from inside") from error

    # ------------------------------------------------------------------------------------------------------- to=
    def _results(self, result: Any) -> list[Any]:
        """What goes to `to=`: of a batch handler each item of what it returned."""
        if self.shape.batch and isinstance(result, Sequence) and not isinstance(result, str | bytes):
            return list(result)
        return [result]

    async def _send(self, results: list[Any]) -> None:
        assert self._wish.to is not None
        if len(results) == 1:
            await self._client.send(self._wish.to, _message(results[0]), timeout_s=SEND_TIMEOUT_S)
        else:
            report = await self._client.send_many(
                self._wish.to, [_message(each) for each in results], timeout_s=SEND_TIMEOUT_S
            )
            report.raise_for_errors()

    def _send_from_thread(self, results: list[Any]) -> None:
        asyncio.run_coroutine_threadsafe(self._send(results), self._loop).result()

    # --------------------------------------------------------------------------------------------------- verdict
    def _still(self, delivery: Delivery) -> bool:
        """Whether it is still ours to handle."""
        if self._desk().is_open(delivery):
            return True
        self._write(Verb.LOST, delivery)
        return False

    def conclude(self, delivery: Delivery, error: Exception | None) -> bool:
        """Settle what came of one try. True: try it again now."""
        attempt = delivery.attempt
        try:
            verb, reason = self._verdict(delivery, error)
        except (LockLost, AlreadySettled):
            _log.info(
                "%s: %r was lost with its link while it was handled; it comes again",
                self.handler.name,
                delivery,
            )
            verb, reason = Verb.LOST, ""
        self._write(verb, delivery, attempt=attempt, reason=reason, error=error)
        return verb is Verb.IN_HAND

    def _verdict(self, delivery: Delivery, error: Exception | None) -> tuple[Verb, str]:
        desk = self._desk()
        if not desk.is_open(delivery):
            if error is not None:
                _log.warning(
                    "%s failed after %r was settled: %s", self.handler.name, delivery, error, exc_info=error
                )
            return (Verb.LOST if delivery.lock_lost else Verb.SETTLED), ""
        if error is None:
            desk.ack(delivery)
            return Verb.ACKED, ""
        _log.warning(
            "%s: try %d of %r failed: %s",
            self.handler.name,
            delivery.attempt,
            delivery,
            error,
            exc_info=error,
        )
        return settle_failed(desk, delivery, error, fatal=self._wish.fatal, retry_on=self._wish.retry_on)

    def _write(
        self,
        verb: Verb,
        delivery: Delivery,
        *,
        attempt: int = 1,
        reason: str = "",
        error: Exception | None = None,
    ) -> None:
        if not self._ledger.watchers:
            self._ledger.count(verb)
            return
        source = self._wish.source
        self._ledger.write(Outcome(verb, source, self.handler.name, delivery, attempt, reason, error))


def settle_failed(
    desk: Desk,
    delivery: Delivery,
    error: Exception,
    *,
    fatal: tuple[type[Exception], ...] = (),
    retry_on: tuple[type[Exception], ...] = (Exception,),
) -> tuple[Verb, str]:
    """Apply the policy, and what `dead_letter=None` means: a message that would be dead is dropped, loudly."""
    try:
        decision = desk.failed(delivery, error, fatal=fatal, retry_on=retry_on, hold=True)
    except Unsupported as refused:
        if isinstance(error, retry.RetryLater):  # a delay that this source has no place for: like any failure
            return settle_failed(desk, delivery, refused)
        if desk.plan.dead_write is not None:
            raise
        desk.ack(delivery)
        _log.error("%r is dropped: it failed for good, and dead_letter=None was written: %s", delivery, error)
        return Verb.DROPPED, str(refused)
    if isinstance(decision, retry.InHand):
        return Verb.IN_HAND, ""
    if isinstance(decision, retry.Later):
        return Verb.RETRIED, ""
    return Verb.DEAD, decision.reason


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _message(result: Any) -> Message:
    return result if isinstance(result, Message) else Message(result)
