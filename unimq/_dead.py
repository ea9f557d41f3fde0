"""One shape for every dead letter, whoever buried it: our own headers first, else what the broker wrote."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from . import headers as h
from ._emulation import moment
from .delivery import Delivery


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`reason` is one of `unimq.retry.REASONS` or the user's own word; `origin` is where it died, as an address text;
    `place` is where it lies now; `history` is one line per death, oldest first. None where nobody wrote it down."""

    delivery: Delivery
    body: bytes | None
    reason: str | None
    description: str | None
    attempts: int
    error_type: str | None
    first_failed_at: dt.datetime | None
    died_at: dt.datetime | None
    history: Sequence[str]
    origin: str | None
    place: str


def read(delivery: Delivery, place: str) -> DeadLetter:
    """Pure."""
    ours = delivery.metadata.unimq
    native = delivery.native_death()
    reason = _text(ours.get(h.REASON))
    description = _text(ours.get(h.DESCRIPTION)) or _text(ours.get(h.ERROR_MESSAGE))
    attempts = delivery.metadata.attempts
    first, died = moment(ours.get(h.FIRST_FAILED_AT)), moment(ours.get(h.DIED_AT))
    if native is not None:
        reason = reason or native.reason
        description = description or native.description
        attempts = attempts or (native.attempts or 0)
        first, died = first or native.first_at, died or native.at
    return DeadLetter(
        delivery=delivery,
        body=delivery.body,
        reason=reason,
        description=description,
        attempts=attempts,
        error_type=_text(ours.get(h.ERROR_TYPE)),
        first_failed_at=first,
        died_at=died,
        history=tuple(line for line in (_text(ours.get(h.HISTORY)) or "").split("\n") if line),
        origin=_text(ours.get(h.ORIGIN)),
        place=place,
    )


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None or value == "" else str(value)
