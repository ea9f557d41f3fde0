"""What a handler wants, read from its signature once, at start.

Rules
- The first parameter is the body, decoded to its annotation, unless it is annotated `Delivery`: then nothing is decoded.
- Every other parameter is annotated `Delivery`, `Client` or `AsyncClient`, or has a default.
- With `batch=` the first one is `list[T]`, and deliveries come as `list[Delivery]`.
- What cannot work is a `BadHandler` with one sentence that says what to do; nothing is guessed.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import msgspec.inspect

from .._async.client import AsyncClient
from .._sync.client import Client
from ..delivery import Delivery
from ..errors import UnimqError

PLAIN: Final = (bytes, str, dict, list, int, float, bool, Any)


class BadHandler(UnimqError):
    """A handler that cannot work as it is written. Raised at start."""

    code = "bad-handler"


class Part(enum.Enum):
    """What a parameter is given."""

    BODY = "body"
    DELIVERY = "delivery"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Shape:
    """`parts`: parameter → what it is given. `body_optional`: a tombstone comes as None. `placed` and `named` are `parts` again,
    as places in (body, delivery, client): they are read for each message."""

    name: str
    is_async: bool
    parts: Mapping[str, Part]
    placed: Sequence[int]
    named: Sequence[tuple[str, int]]
    body: Any
    body_optional: bool
    batch: bool
    takes_body: bool

    @property
    def wants_client(self) -> bool:
        return Part.CLIENT in self.parts.values()

    def decode(self, delivery: Delivery) -> Any:
        """The body for the handler. Raises `DecodeError`."""
        if delivery.body is None and self.body_optional:
            return None
        return delivery.decode(self.body)

    def arguments(self, body: Any, delivery: Any, client: Any) -> tuple[list[Any], dict[str, Any]]:
        """How the function is called. With `batch`, `body` and `delivery` are lists."""
        given = (body, delivery, client)
        return [given[place] for place in self.placed], {name: given[place] for name, place in self.named}


def read(function: Callable[..., Any], *, batch: bool, own_codecs: bool = False) -> Shape:
    """Raises `BadHandler`. `own_codecs`: the client has some, which may decode what we know nothing of."""
    name = name_of(function)
    if not callable(function):
        raise BadHandler(f"{function!r} is not a handler: give a function")
    inner = _plain(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise BadHandler(
            f"{name} yields: a handler is a plain or an async function; return what goes to `to=`"
        )
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise BadHandler(f"{name} has no signature that can be read: wrap it in a function") from error
    hints = _hints(inner, name)
    parts: dict[str, Part] = {}
    positional: list[str] = []
    body: Any = None
    optional = False
    for index, parameter in enumerate(parameters):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadHandler(
                f"{name} takes {parameter}: name its parameters (the body first, then Delivery or a client)"
            )
        kind = hints.get(parameter.name, parameter.empty)
        part = _part(kind, name, parameter.name, batch=batch)
        if part is None and index == 0:
            body, optional = _body(kind, name, parameter.name, batch=batch, own_codecs=own_codecs)
            part = Part.BODY
        if part is None:
            if parameter.default is not parameter.empty:
                continue
            raise BadHandler(
                f"{name}: the parameter {parameter.name!r} can be given nothing: annotate it Delivery, Client or "
                "AsyncClient, or give it a default"
            )
        parts[parameter.name] = part
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(parameter.name)
    if not parts:
        raise BadHandler(f"{name} takes nothing: its first parameter is the body, or a Delivery")
    is_async = inspect.iscoroutinefunction(inner)
    _check_client(hints, parts, name, is_async=is_async)
    order = list(Part)
    return Shape(
        name=name,
        is_async=is_async,
        parts=parts,
        placed=[order.index(parts[parameter]) for parameter in positional],
        named=[(each, order.index(part)) for each, part in parts.items() if each not in positional],
        body=body,
        body_optional=optional,
        batch=batch,
        takes_body=Part.BODY in parts.values(),
    )


def name_of(function: Any) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__).replace("<locals>.", "")


def _plain(function: Callable[..., Any]) -> Any:
    """The function whose annotations and kind count."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function):
        return inspect.unwrap(function)
    return getattr(type(function), "__call__", function)  # noqa: B004 - the method itself is wanted


def _hints(inner: Any, name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inner)
    except NameError as error:
        raise BadHandler(
            f"{name}: the annotation {error.name!r} cannot be found: define it at the top of its module"
        ) from error
    except TypeError:
        return {}  # something built in: it has no annotations


def _part(kind: Any, name: str, parameter: str, *, batch: bool) -> Part | None:
    if kind is Client or kind is AsyncClient:
        return Part.CLIENT
    if batch and typing.get_origin(kind) is list and typing.get_args(kind) == (Delivery,):
        return Part.DELIVERY
    if isinstance(kind, type) and issubclass(kind, Delivery):
        if batch:
            raise BadHandler(f"{name} takes batches: annotate {parameter!r} list[Delivery]")
        return Part.DELIVERY
    return None


def _check_client(hints: Mapping[str, Any], parts: Mapping[str, Part], name: str, *, is_async: bool) -> None:
    wanted = AsyncClient if is_async else Client
    for parameter, part in parts.items():
        if part is Part.CLIENT and hints[parameter] is not wanted:
            how = "an async" if is_async else "a plain"
            raise BadHandler(f"{name} is {how} function: annotate {parameter!r} {wanted.__name__}")


def _body(kind: Any, name: str, parameter: str, *, batch: bool, own_codecs: bool) -> tuple[Any, bool]:
    if kind is inspect.Parameter.empty:
        raise BadHandler(
            f"{name}: annotate its first parameter {parameter!r} with what the body is decoded to (bytes, str, dict, a "
            "dataclass, a msgspec Struct, a pydantic model), or with Delivery"
        )
    if batch:
        if typing.get_origin(kind) is not list:
            raise BadHandler(f"{name} takes batches: annotate its first parameter {parameter!r} list[T]")
        (kind,) = typing.get_args(kind)
    kind, optional = _without_none(kind)
    if not _decodable(kind) and not own_codecs:
        raise BadHandler(
            f"{name}: no body can be decoded to {_text(kind)}: annotate {parameter!r} with bytes, str, dict, a dataclass, "
            "a msgspec Struct or a pydantic model"
        )
    return kind, optional


def _without_none(kind: Any) -> tuple[Any, bool]:
    """`T | None` → (T, True)."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        if len(members) < len(typing.get_args(kind)):
            return (members[0] if len(members) == 1 else typing.Union[tuple(members)]), True  # noqa: UP007
    return kind, kind is Any


def _decodable(kind: Any) -> bool:
    if kind in PLAIN or callable(getattr(kind, "model_validate_json", None)):
        return True
    try:
        return not _has_custom(msgspec.inspect.type_info(kind))
    except (TypeError, NameError, AttributeError):
        return False


def _has_custom(info: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether something in a type is none of what JSON decodes to."""
    if isinstance(info, msgspec.inspect.CustomType):
        return info.cls is not object  # anything is an object
    if id(info) in seen:
        return False
    seen |= {id(info)}
    if isinstance(info, tuple | list):
        return any(_has_custom(each, seen) for each in info)
    fields = getattr(info, "__struct_fields__", ()) if isinstance(info, msgspec.Struct) else ()
    return any(
        _has_custom(getattr(info, field), seen)
        for field in fields
        if isinstance(getattr(info, field), msgspec.Struct | tuple | list)
    )


def _text(kind: Any) -> str:
    return str(kind if typing.get_args(kind) else getattr(kind, "__qualname__", kind)).replace(
        "<locals>.", ""
    )


__all__ = ["BadHandler", "Part", "Shape", "name_of", "read"]
