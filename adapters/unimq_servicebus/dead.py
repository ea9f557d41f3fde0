"""The words of a dead letter. Pure.

Rules
- Native dead-lettering adds no properties, only a reason and a description: our headers travel as one line of JSON at the
  end of the description. A reader who is not us sees the description and one more line.
- What is too long loses its history first, then the error; the description is cut last, never the line in its middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from unimq import headers as h
from unimq.address import HeaderValue
from unimq.driver import DeadLetterOutcome

DESCRIPTION_MAX_BYTES: Final = 4_096  # of a reason, too
TRAILER: Final = "\nunimq "
TRAILER_MAX_BYTES: Final = 2_048
_TRAILER_DROPS: Final = (h.HISTORY, h.ERROR_MESSAGE, h.ERROR_TYPE)  # in this order, where it is too long
_TRAILER_NEVER: Final = frozenset({h.REASON, h.DESCRIPTION, h.ERROR_STACK})
# what the broker writes as reason → the word of ours; anything else is an application's own
REASONS: Final = {
    "MaxDeliveryCountExceeded": "max-delivery",
    "TTLExpiredException": "expired",
    "HeaderSizeExceeded": "rejected",
    "Session ID is null": "rejected",
    "MaxTransferHopCountExceeded": "unroutable",
}


def description(outcome: DeadLetterOutcome) -> str:
    """What `headers` reads back: the description, and our headers as its last line, where they are any."""
    ours = {
        name: value
        for name, value in outcome.headers.items()
        if name not in _TRAILER_NEVER
        and value != outcome.description
        and isinstance(value, str | int | float)
    }
    trailer = _trailer(ours)
    for name in _TRAILER_DROPS:
        if len(trailer) <= TRAILER_MAX_BYTES:
            break
        ours.pop(name, None)
        trailer = _trailer(ours)
    if len(trailer) > TRAILER_MAX_BYTES:
        trailer = b""
    return cut(outcome.description, DESCRIPTION_MAX_BYTES - len(trailer)) + trailer.decode()


def _trailer(ours: Mapping[str, HeaderValue]) -> bytes:
    return TRAILER.encode() + msgspec.json.encode(ours) if ours else b""


def cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def headers(written: str | None) -> tuple[str, dict[str, Any]]:
    """The description alone, and the headers of ours that came with it."""
    text, mark, line = (written or "").rpartition(TRAILER)
    if mark:
        try:
            ours = msgspec.json.decode(line, type=dict[str, str | int | float | bool])
        except (msgspec.DecodeError, UnicodeError):
            ours = {}
        if ours and all(h.is_ours(name) for name in ours):
            return text, ours
    return written or "", {}
