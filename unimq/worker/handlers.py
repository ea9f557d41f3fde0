"""What `@worker.handler(...)` was told, and whether it can work.

Rules
- Registering checks nothing and does nothing: a module with handlers can be imported anywhere. `grouped` checks, at start.
- Handlers of one source share its receiver: its retry policy, dead-letter place and prefetch are said once, or alike.
- One handler without `match` a source at most; among those with one, the first that fits takes the message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._intake import DEFAULT, _Default
from ..address import Address, HeaderValue, Queue, Source, Subscription, Target, Topic
from ..delivery import Delivery
from ..errors import Unsupported
from ..retry import Retry
from .signature import BadHandler, Shape, name_of, read

Match = Callable[[Delivery], bool] | Mapping[str, HeaderValue]
Classes = tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wish:
    """One `handler(...)` call, as it was written."""

    function: Callable[..., Any]
    source: Source
    concurrency: int
    prefetch: int | None
    retry: Retry
    fatal: Classes
    retry_on: Classes
    dead_letter: Address | _Default | None
    timeout_s: float | None
    batch: int | None
    to: Target | None
    match: Match | None
    idempotent: bool | None
    transaction: bool
    lock_renewal_max_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """A wish that can be fulfilled."""

    wish: Wish
    shape: Shape

    @property
    def name(self) -> str:
        return self.shape.name

    def fits(self, delivery: Delivery) -> bool:
        """Whether `match` lets this message through. May raise what the user's predicate raises."""
        match = self.wish.match
        if match is None:
            return True
        if callable(match):
            return bool(match(delivery))
        headers = delivery.headers
        return all(headers.get(name) == value for name, value in match.items())


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The handlers of one source, those with a `match` first."""

    source: Source
    handlers: Sequence[Handler]

    @property
    def first(self) -> Wish:
        return self.handlers[0].wish

    @property
    def concurrency(self) -> int:
        return sum(handler.wish.concurrency for handler in self.handlers)

    def pick(self, delivery: Delivery) -> Handler | None:
        for handler in self.handlers:
            if handler.fits(delivery):
                return handler
        return None

    def prefetch(self, *, locks: bool) -> int:
        """How many are fetched: what was said, or enough to keep everybody busy. Where buffered deliveries hold locks that
        run out, no more than are handled at once."""
        said = self.first.prefetch
        if said is not None:
            return said
        largest = max((handler.wish.batch or 1) * handler.wish.concurrency for handler in self.handlers)
        return max(self.concurrency, largest) if locks else max(10, 2 * self.concurrency, 2 * largest)


def grouped(wishes: Sequence[Wish], *, own_codecs: bool = False) -> list[Group]:
    """Check all wishes and group them by source. Raises `BadHandler`, `Unsupported`."""
    if not wishes:
        raise BadHandler("this worker has no handlers: register some with @worker.handler(Queue(...))")
    by_place: dict[str, list[Handler]] = {}
    for wish in wishes:
        _check(wish)
        shape = read(wish.function, batch=wish.batch is not None, own_codecs=own_codecs)
        by_place.setdefault(_identity(wish.source), []).append(Handler(wish, shape))
    return [_group(handlers) for handlers in by_place.values()]


def _identity(source: Source) -> str:
    return str(source) if getattr(source, "name", None) is not None else f"{source}#{id(source)}"


def _check(wish: Wish) -> None:
    name = name_of(wish.function)
    source: object = wish.source
    if not isinstance(source, Queue | Subscription):
        if isinstance(source, Topic):
            raise BadHandler(f"{name}: a topic is only sent to: handle Subscription({source.name!r}, ...)")
        raise BadHandler(f"{name}: a handler is of a Queue or a Subscription, not of {source!r}")
    if not isinstance(wish.retry, Retry):
        raise BadHandler(f"{name}: retry= is a Retry; without tries: Retry(immediate=0, delayed_s=[])")
    if wish.concurrency < 1 or (wish.prefetch is not None and wish.prefetch < 1):
        raise BadHandler(f"{name}: concurrency= and prefetch= are 1 or more")
    if wish.batch is not None and wish.batch < 1:
        raise BadHandler(f"{name}: batch= is 1 or more")
    if wish.timeout_s is not None and wish.timeout_s <= 0:
        raise BadHandler(f"{name}: timeout_s= is above 0")
    to: object = wish.to
    if to is not None and not isinstance(to, Queue | Topic):
        raise BadHandler(f"{name}: to= is a Queue or a Topic, not {to!r}")
    for what, classes in (("fatal", wish.fatal), ("retry_on", wish.retry_on)):
        if not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
            raise BadHandler(f"{name}: {what}= is a tuple of exception classes, not {classes!r}")
    if wish.transaction:
        raise Unsupported(
            f"{name}: transaction=True is not there yet: without it, what is sent may be sent twice"
        )
    if wish.idempotent is not None:
        raise Unsupported(f"{name}: idempotent= is not there yet: leave it out")


SHARED = ("source", "retry", "dead_letter", "prefetch", "lock_renewal_max_s")


def _group(handlers: Sequence[Handler]) -> Group:
    first = handlers[0].wish
    for handler in handlers[1:]:
        for field in SHARED:
            if getattr(handler.wish, field) != getattr(first, field):
                raise BadHandler(
                    f"{handlers[0].name} and {handler.name} share {first.source} and differ in {field}=: say the same in both"
                )
    defaults = [handler for handler in handlers if handler.wish.match is None]
    if len(defaults) > 1:
        raise BadHandler(
            f"{defaults[0].name} and {defaults[1].name} both take everything of {first.source}: give one of them match="
        )
    return Group(first.source, [*(h for h in handlers if h.wish.match is not None), *defaults])


__all__ = ["DEFAULT", "BadHandler", "Classes", "Group", "Handler", "Match", "Wish", "grouped"]
