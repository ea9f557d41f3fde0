"""Our own headers, and how typed header values travel where only strings do. Shared by adapters.

Rules
- Canonical names have dashes; an adapter whose broker refuses dashes maps `-` to `_` for our own names only.
- They never show in `Delivery.headers`; `split` parts them from the user's.
- `unimq-types` names the headers that are not strings: `name=i` (int) `f` (float) `b` (bool) `x` (bytes, base64),
  joined by `;`, names percent-encoded. A foreign or broken entry leaves the string as it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from .address import HeaderValue

ATTEMPT: Final = "unimq-attempt"
COPIES: Final = "unimq-copies"
CRASHES: Final = "unimq-crashes"
MESSAGE_ID: Final = "unimq-message-id"
CORRELATION_ID: Final = "unimq-correlation-id"
REPLY_TO: Final = "unimq-reply-to"
SUBJECT: Final = "unimq-subject"
KEY: Final = "unimq-key"
TYPES: Final = "unimq-types"
NULL: Final = "unimq-null"
TIMESTAMP_MS: Final = "unimq-timestamp-ms"
TIMESTAMP: Final = "unimq-timestamp"
ORIGIN: Final = "unimq-origin"
GROUP: Final = "unimq-group"
ORIGIN_POSITION: Final = "unimq-origin-position"
NOT_BEFORE: Final = "unimq-not-before"
EXPIRES_MS: Final = "unimq-expires-ms"
HISTORY: Final = "unimq-history"
REASON: Final = "unimq-reason"
DESCRIPTION: Final = "unimq-description"
ERROR_TYPE: Final = "unimq-error-type"
ERROR_MESSAGE: Final = "unimq-error-message"
ERROR_STACK: Final = "unimq-error-stack"
FIRST_FAILED_AT: Final = "unimq-first-failed-at"
DIED_AT: Final = "unimq-died-at"

OURS: Final = frozenset(
    {
        ATTEMPT, COPIES, CRASHES, MESSAGE_ID, CORRELATION_ID, REPLY_TO, SUBJECT, KEY, TYPES, NULL, TIMESTAMP_MS, TIMESTAMP,
        ORIGIN,
        GROUP, ORIGIN_POSITION, NOT_BEFORE, EXPIRES_MS, HISTORY, REASON, DESCRIPTION, ERROR_TYPE, ERROR_MESSAGE, ERROR_STACK,
        FIRST_FAILED_AT, DIED_AT,
    }
)  # fmt: skip

TYPES_MAX_CHARS: Final = 16_384


def is_ours(name: str) -> bool:
    """Whether `name` (canonical, with dashes) is one of our headers."""
    return name.startswith("unimq-")


def text(value: HeaderValue) -> str:
    """A value as the string that `untext` turns back."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return repr(value) if isinstance(value, float) else str(value)


def type_letter(value: HeaderValue) -> str | None:
    """The letter in `unimq-types`; None for a string."""
    if isinstance(value, str):
        return None
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int):
        return "i"
    return "f" if isinstance(value, float) else "x"


def types_of(headers: Mapping[str, HeaderValue], names: Iterable[str] | None = None) -> str | None:
    """The `unimq-types` value for `headers` (only `names` where given); None when all are strings."""
    parts = []
    for name in headers if names is None else names:
        letter = type_letter(headers[name])
        if letter is not None:
            parts.append(f"{quote(name, safe='')}={letter}")
    return ";".join(parts) or None


def letters(types: Any) -> dict[str, str]:
    """`unimq-types` read back: name → letter. What cannot be read is left out."""
    if isinstance(types, bytes):
        types = types.decode("utf-8", "replace")
    if not isinstance(types, str) or len(types) > TYPES_MAX_CHARS:
        return {}
    found: dict[str, str] = {}
    for part in types.split(";"):
        name, equals, letter = part.rpartition("=")
        if equals and letter in ("i", "f", "b", "x"):
            found[unquote(name)] = letter
    return found


def untext(value: str, letter: str | None) -> HeaderValue:
    """The value that `text` made a string of; the string itself where it does not fit its letter."""
    try:
        if letter == "i":
            return int(value)
        if letter == "f":
            return float(value)
        if letter == "b":
            return {"true": True, "false": False}[value]
        if letter == "x":
            return base64.b64decode(value, validate=True)
    except (ValueError, KeyError, binascii.Error):
        return value
    return value


def utf8(value: bytes) -> str | bytes:
    """Foreign bytes as str where they are valid UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
