"""From what the user gives to what a batcher takes: one line per place. Plain functions, shared by both facades.

Rules
- Everything local is refused here, before a message moves: a field that is wrong, a capability that is absent.
- Ids are made here, one per send: a process-random prefix and a counter. `Message` is never changed.
- Middleware wraps this step: it sees the message before it is encoded, and may change or refuse it.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from . import codec
from ._batcher import Batcher
from ._links import SenderIntent
from ._pack import Item, Pack
from .address import Address, Queue, Target, Topic
from .capabilities import EMULATED, Capabilities
from .codec import Codecs
from .errors import InvalidMessage, MessageTooLarge, Unsupported
from .message import Message, Receipt, check

_PREFIX: Final = os.urandom(8).hex()
_counter = itertools.count(1)


class Middleware(Protocol):
    """Wraps every send. Return `call_next(message)`, with that message or a changed copy, or raise."""

    def send(self, address: Address, message: Message, call_next: Callable[[Message], Item]) -> Item: ...


def check_target(address: Any) -> Target:
    if isinstance(address, Queue | Topic):
        return address
    if isinstance(address, str):
        raise InvalidMessage(
            f"an address is wanted, not the str {address!r}: Queue({address!r}), or Address.parse('queue:…')"
        )
    raise InvalidMessage(f"messages are sent to a Queue or a Topic, not to {address!r}")


class Line:
    """A sender's half that knows no waiting."""

    __slots__ = (
        "target", "batcher", "intent", "opened", "delay_s", "_capabilities", "_codecs", "_ids", "_middleware", "_adapter",
        "_max_bytes", "_emulated_delay", "quick",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        batcher: Batcher,
        intent: SenderIntent,
        *,
        capabilities: Capabilities,
        codecs: Codecs,
        message_ids: bool,
        middleware: Sequence[Middleware],
        adapter: str,
        delay_s: float | None = None,
    ) -> None:
        self.target = target
        self.batcher = batcher
        self.intent = intent
        self.opened = False
        self.quick = 0  # sends that did not have to wait, for the async facade
        self.delay_s = delay_s  # the one delay of the place behind this line, if it is a delay line
        self._capabilities = capabilities
        self._codecs = codecs
        self._ids = message_ids
        self._middleware = middleware
        self._adapter = adapter
        self._max_bytes = capabilities.max_message_bytes
        self._emulated_delay = capabilities.send_delay is EMULATED

    def prepare(self, given: Any) -> Item:
        """Check, encode, and give an id. Raises local errors."""
        message = given if type(given) is Message or isinstance(given, Message) else Message(given)
        if not self._middleware:
            return self._finish(message)
        step: Callable[[Message], Item] = self._finish
        for middleware in reversed(self._middleware):
            step = _bound(middleware, self.target, step)
        return step(message)

    def _finish(self, message: Message) -> Item:
        check(message)
        if (
            message.priority is not None
            or message.ttl_s is not None
            or message.delay_s is not None
            or message.deliver_at is not None
        ):
            self._check_capabilities(message)
        body, content_type = message.body, message.content_type
        if body is not None and type(body) is not bytes:
            try:
                body, content_type = codec.encode(body, content_type, self._codecs)
            except InvalidMessage as error:
                error.message = message
                raise
        if self._max_bytes is not None and body is not None and len(body) > self._max_bytes:
            raise MessageTooLarge(
                f"{len(body)} bytes to {self.target}: at most {self._max_bytes} are taken; send a reference instead",
                adapter=self._adapter,
                message=message,
            )
        if not self._ids:
            return message, body, content_type, message.message_id
        return message, body, content_type, message.message_id or f"{_PREFIX}-{next(_counter):x}"

    def _check_capabilities(self, message: Message) -> None:
        capabilities, adapter = self._capabilities, self._adapter
        try:
            if message.priority is not None:
                capabilities.require("priority", "priority", adapter=adapter)
            if message.ttl_s is not None:
                capabilities.require("ttl", "ttl_s", adapter=adapter)
            if message.delay_s is not None or message.deliver_at is not None:
                capabilities.require("send_delay", "a delayed send", adapter=adapter)
                if (
                    capabilities.max_delay_s is not None
                    and (wanted_delay_s(message) or 0) > capabilities.max_delay_s
                ):
                    raise Unsupported(
                        f"a delay of {wanted_delay_s(message):g} s: at most {capabilities.max_delay_s:g} s",
                        adapter=adapter,
                    )
        except Unsupported as error:
            error.message = message
            raise

    def emulated_delay(self, given: Any) -> float | None:
        """The delay that needs a line of its own, or None. Looked at before `prepare`."""
        if not self._emulated_delay or self.delay_s is not None or not isinstance(given, Message):
            return None
        if given.delay_s is None and given.deliver_at is None:
            return None
        check(given)
        return wanted_delay_s(given)

    def receipt(self, pack: Pack, index: int) -> Receipt:
        receipt = pack.outcome(index)
        message = pack.messages[index]
        if message.delay_s is not None or message.deliver_at is not None:
            receipt.delay_s = self.delay_s if self.delay_s is not None else wanted_delay_s(message)
        receipt.target = self.target
        return receipt


def wanted_delay_s(message: Message) -> float | None:
    if message.delay_s is not None:
        return message.delay_s
    if message.deliver_at is not None:
        return max((message.deliver_at - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
    return None


def _bound(
    middleware: Middleware, target: Target, step: Callable[[Message], Item]
) -> Callable[[Message], Item]:
    return lambda message: middleware.send(target, message, step)


class PendingBase:
    """A pipelined send: a place in a pack. Read it, or its failure is logged once."""

    __slots__ = ("_line", "_pack", "_index")

    def __init__(self, line: Line, pack: Pack, index: int) -> None:
        self._line = line
        self._pack = pack
        self._index = index

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._pack.is_set


__all__ = ["Line", "Middleware", "PendingBase", "check_target", "wanted_delay_s"]
