"""What wraps a handler.

Rules
- A middleware is an object with `handle(delivery, call_next)`, or such a function. It returns what `call_next(delivery)`
  returned, or something else, or raises. With `batch=` it is given the list.
- Around async handlers `handle` is `async def` and awaits `call_next`; one that is used around both kinds has `handle` for the
  sync ones and `handle_async` for the async ones. The first one given is the outermost.
- One that has `send` too (`unimq.Middleware`) wraps the sends of the worker's client.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .signature import BadHandler

Step = Callable[[Any], Any]
Wrap = Callable[[bool, Step], Step]


def wrapper(middleware: Sequence[Any]) -> Wrap:
    """(is the handler async, innermost step) → the outermost step."""

    def wrap(is_async: bool, step: Step) -> Step:
        for each in reversed(middleware):
            around = _around(each, is_async)
            if around is not None:
                step = _bound(around, step)
        return step

    return wrap


def check(middleware: Sequence[Any], *, has_sync: bool, has_async: bool) -> None:
    """Raises `BadHandler`."""
    for each in middleware:
        if not (
            hasattr(each, "handle")
            or hasattr(each, "handle_async")
            or hasattr(each, "send")
            or callable(each)
        ):
            raise BadHandler(f"{each!r} is no middleware: it has no handle(delivery, call_next)")
        sync, asynchronous = _around(each, False), _around(each, True)
        one_sided = hasattr(each, "handle_async") and not hasattr(each, "handle")
        name = type(each).__qualname__ if not inspect.isfunction(each) else each.__qualname__
        if has_sync and (one_sided or (sync is not None and inspect.iscoroutinefunction(sync))):
            raise BadHandler(
                f"the middleware {name} is async, and a handler is not: give it a plain `handle` too"
            )
        if has_async and asynchronous is not None and not inspect.iscoroutinefunction(asynchronous):
            raise BadHandler(
                f"the middleware {name} is plain, and a handler is async: give it `async def handle_async` too"
            )


def _around(middleware: Any, is_async: bool) -> Callable[[Any, Step], Any] | None:
    found: Callable[[Any, Step], Any] | None
    if is_async and hasattr(middleware, "handle_async"):
        found = middleware.handle_async
    elif hasattr(middleware, "handle"):
        found = middleware.handle
    elif hasattr(middleware, "send") or hasattr(middleware, "handle_async"):
        found = None  # it wraps sends only, or the other kind of handlers
    else:
        found = middleware
    return found


def _bound(around: Callable[[Any, Step], Any], step: Step) -> Step:
    return lambda given: around(given, step)
