"""What a copy carries: ids, our headers, the history. Pure functions; no broker is known here.

Rules (§5.4)
- The broker-level id of a copy is `<origin id>#<n>`, n = the number of copies of any kind ever made of this message. It
  is never reset and never inherited: duplicate detection then removes the duplicate of a crash and never a retry.
- Without an origin id the position stands in; without both a fresh one.
- The original id travels in `unimq-message-id` and is what `Delivery.message_id` shows.
"""

from __future__ import annotations

import datetime as dt
import os
import traceback
from collections.abc import Mapping
from typing import Any, Final

from . import headers as h
from .address import HeaderValue
from .delivery import Delivery
from .errors import redact

ERROR_MESSAGE_MAX_CHARS: Final = 1_024
ERROR_STACK_MAX_CHARS: Final = 8_192
HISTORY_MAX_ENTRIES: Final = 10
# what says why it died belongs to one death: a copy back into life does not carry it on
DEATH: Final = frozenset({h.REASON, h.DESCRIPTION, h.ERROR_TYPE, h.ERROR_MESSAGE, h.ERROR_STACK, h.DIED_AT})


def origin_id(delivery: Delivery) -> str:
    """The id that all copies of this message share."""
    meta = delivery.metadata
    known = meta.unimq.get(h.MESSAGE_ID) or meta.message_id
    if isinstance(known, str) and known:
        return known
    position = meta.unimq.get(h.ORIGIN_POSITION) or meta.position
    return f"at:{position}" if position is not None else os.urandom(12).hex()


def copy_id(delivery: Delivery) -> tuple[str, dict[str, HeaderValue]]:
    """(broker-level id, headers every copy carries)."""
    meta = delivery.metadata
    copies = meta.copies + 1
    origin = origin_id(delivery)
    carried: dict[str, HeaderValue] = {h.COPIES: copies, h.MESSAGE_ID: origin}
    if h.ORIGIN not in meta.unimq:
        if delivery.source is not None:
            carried[h.ORIGIN] = str(delivery.source)
        if delivery.group is not None:
            carried[h.GROUP] = delivery.group
        if meta.position is not None:
            carried[h.ORIGIN_POSITION] = str(meta.position)
    return f"{origin}#{copies}", carried


def stamp(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).isoformat(timespec="milliseconds")


def failed_headers(delivery: Delivery, now: dt.datetime) -> dict[str, HeaderValue]:
    """For a copy of a message whose try failed: its count, and when it first failed."""
    carried: dict[str, HeaderValue] = {h.ATTEMPT: delivery.attempt}
    if h.FIRST_FAILED_AT not in delivery.metadata.unimq:
        carried[h.FIRST_FAILED_AT] = stamp(now)
    return carried


def dead_headers(
    delivery: Delivery,
    now: dt.datetime,
    *,
    reason: str,
    description: str,
    error: BaseException | None,
) -> dict[str, HeaderValue]:
    """For a copy into the dead-letter place."""
    carried = failed_headers(delivery, now)
    carried[h.REASON] = reason
    carried[h.DIED_AT] = stamp(now)
    carried[h.HISTORY] = history_with(
        delivery.metadata.unimq, f"{stamp(now)} {reason} attempt={delivery.attempt}"
    )
    if description:
        carried[h.DESCRIPTION] = redact(description)[:ERROR_MESSAGE_MAX_CHARS]
    if error is not None:
        carried[h.ERROR_TYPE] = f"{type(error).__module__}.{type(error).__qualname__}"
        carried[h.ERROR_MESSAGE] = redact(str(error))[:ERROR_MESSAGE_MAX_CHARS]
        stack = "".join(traceback.format_exception(error))
        carried[h.ERROR_STACK] = redact(stack)[-ERROR_STACK_MAX_CHARS:]
    return carried


def history_with(unimq: Mapping[str, Any], entry: str) -> str:
    """The history with one more line, the oldest dropped beyond the limit."""
    lines = [line for line in str(unimq.get(h.HISTORY) or "").split("\n") if line]
    return "\n".join([*lines, entry.replace("\n", " ")][-HISTORY_MAX_ENTRIES:])


def first_failed_at(delivery: Delivery) -> dt.datetime | None:
    return moment(delivery.metadata.unimq.get(h.FIRST_FAILED_AT))


def moment(text: Any) -> dt.datetime | None:
    """A time stamp of ours read back; None for what is not one."""
    try:
        found = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
