"""Fields ↔ STOMP headers (§5.2). Pure.

Rules
- STOMP carries strings: `unimq_types` names what is not one. Our own names have `_` for `-`; users' names pass as they are.
- A body of text or JSON that is UTF-8 without NUL goes without `content-length`, which makes a JMS TextMessage; anything
  else goes with it, a BytesMessage.
- The key is `JMSXGroupID` and `unimq_key`: Classic never shows the first to a STOMP consumer.
- STOMP's own header names are not the users'. Names are escaped as values are: neither broker unescapes a name, but they
  give it back as it came and stomp.py unescapes it; JMS readers see the escapes.
- Artemis shows a sender's `receipt`, `destination-type` and more to the receiver: never a user's header.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from unimq import headers as ours
from unimq.address import Address, HeaderValue, Queue, Topic
from unimq.delivery import Delivery, Metadata, NativeDeath
from unimq.driver import Copy
from unimq.errors import InvalidMessage
from unimq.message import Message

from . import names

ADAPTER: Final = "activemq"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# Header names that STOMP or the brokers own: on a message they say something else than a user's header would.
FRAME: Final = frozenset(
    {
        "destination", "receipt", "receipt-id", "id", "ack", "subscription", "transaction", "message-id",
        "content-length", "content-type", "persistent", "priority", "expires", "timestamp", "reply-to",
        "correlation-id", "redelivered", "destination-type", "subscription-type", "selector", "browser",
        "transformation", "transformation-error", "original-destination", "originalExpiration",
        "dlqDeliveryFailureCause", "JMSXGroupID", "JMSXGroupSeq", "JMSXDeliveryCount", "JMSXUserID",
        "scheduledJobId",
    }
)  # fmt: skip
_BROKERS_PREFIXES: Final = ("AMQ_SCHEDULED_", "_AMQ_", "JMS_AMQP_")
# Not inherited by a copy (§5.4); what a copy has of these it gets anew.
STRIPPED: Final = frozenset(
    {
        "destination", "receipt", "receipt-id", "id", "ack", "subscription", "transaction", "message-id",
        "content-length", "persistent", "expires", "timestamp", "redelivered", "destination-type",
        "subscription-type", "original-destination", "originalExpiration", "dlqDeliveryFailureCause",
        "scheduledJobId", "JMSXGroupID", "JMSXDeliveryCount", "JMSXUserID", "unimq_types", "unimq_null",
    }
)  # fmt: skip
DELAY: Final = "AMQ_SCHEDULED_DELAY"
HEADER_BYTES: Final = 24  # of a header beside its value

_SPECIAL = re.compile(r"[\\\n\r:]")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}


def escaped(value: str) -> str:
    """A header value as STOMP 1.2 writes it."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], value) if _SPECIAL.search(value) else value


def encode(command: str, headers: Mapping[str, str], *, escape: bool = True) -> bytes:
    """A frame without a body. CONNECT alone is not escaped (STOMP 1.2)."""
    lines = [command, "\n"]
    for name, value in headers.items():
        lines += (name, ":", escaped(value) if escape else value, "\n")
    lines.append("\n\0")
    return "".join(lines).encode()


def own(name: str) -> str:
    """Our canonical header name as STOMP has it."""
    return name.replace("-", "_")


def is_own(name: str) -> bool:
    return name.startswith("unimq_")


def is_brokers(name: str) -> bool:
    return name in FRAME or name.startswith(_BROKERS_PREFIXES)


def millis(when: dt.datetime) -> int:
    return (when - _EPOCH) // dt.timedelta(milliseconds=1)


def _when(text: str | None) -> dt.datetime | None:
    try:
        return None if not text or int(text) <= 0 else _EPOCH + dt.timedelta(milliseconds=int(text))
    except (ValueError, OverflowError):
        return None


def is_text(body: bytes, content_type: str | None) -> bool:
    """Whether a body goes as text."""
    if content_type is None:
        return False
    bare = content_type.partition(";")[0].strip().lower()
    if (
        not (bare.startswith("text/") or bare == "application/json" or bare.endswith("+json"))
        or b"\0" in body
    ):
        return False
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def head_of(place: names.Native) -> str:
    """The first lines of every SEND to a place."""
    routing = "" if place.routing is None else f"destination-type:{place.routing}\n"
    return f"SEND\ndestination:{escaped(place.destination)}\npersistent:true\n{routing}receipt:"


def native_reply_to(address: Address | str, flavour: str) -> str:
    return address if isinstance(address, str) else names.native(names.ref_of(address), flavour).destination


def delay_ms(message: Message, now: dt.datetime) -> int:
    if message.delay_s is not None:
        return round(message.delay_s * 1000)
    return 0 if message.deliver_at is None else max(millis(message.deliver_at) - millis(now), 0)


def _checked(name: str, value: str) -> str:
    if "\0" in value:
        raise InvalidMessage(f"header {name!r}: STOMP carries no NUL in a header", adapter=ADAPTER)
    return escaped(value)


def send_frame(
    head: str,
    receipt: str,
    message: Message,
    body: bytes | None,
    content_type: str | None,
    message_id: str | None,
    flavour: str,
    now: dt.datetime,
    delay: int,
) -> bytes:
    """A SEND. `InvalidMessage` for what STOMP cannot carry."""
    lines = [head, receipt]

    def add(name: str, value: str) -> None:
        lines.append(f"\n{name}:{_checked(name, value)}")

    if message_id is not None:
        add("unimq_message_id", message_id)
        if flavour == names.ARTEMIS:
            add("_AMQ_DUPL_ID", message_id)
    if content_type is not None:
        add("content-type", content_type)
    if message.headers:
        _user_headers(lines, message.headers)
    if message.key is not None:
        add("JMSXGroupID", message.key)
        add("unimq_key", message.key)
    if message.subject is not None:
        add("unimq_subject", message.subject)
    if message.correlation_id is not None:
        add("correlation-id", message.correlation_id)
    if message.reply_to is not None:
        add("reply-to", native_reply_to(message.reply_to, flavour))
        if isinstance(message.reply_to, Queue | Topic):
            add("unimq_reply_to", str(message.reply_to))
    if message.priority is not None:
        lines.append(f"\npriority:{message.priority}")
    if message.ttl_s is not None:
        lines.append(f"\nexpires:{millis(now) + max(round(message.ttl_s * 1000), 1)}")
    if message.timestamp is not None:
        lines.append(f"\nunimq_timestamp:{millis(message.timestamp)}")
    if delay > 0:
        lines.append(f"\n{DELAY}:{delay}")
    return _finished(lines, body, body is not None and is_text(body, content_type))


def _user_headers(lines: list[str], headers: Mapping[str, HeaderValue]) -> None:
    typed = False
    for name, value in headers.items():
        if is_brokers(name):
            raise InvalidMessage(
                f"header {name!r} is STOMP's or the broker's own: use the message's field, or another name",
                adapter=ADAPTER,
            )
        if not isinstance(value, str):
            typed, value = True, ours.text(value)
        lines.append(f"\n{_checked(name, name)}:{_checked(name, value)}")
    if typed and (types := ours.types_of(headers)) is not None:
        lines.append(f"\nunimq_types:{escaped(types)}")


def _finished(lines: list[str], body: bytes | None, text: bool) -> bytes:
    if body is None:
        lines.append("\nunimq_null:1")
    elif not text:
        lines.append(f"\ncontent-length:{len(body)}")
    lines.append("\n\n")
    return b"".join(("".join(lines).encode(), body or b"", b"\0"))


# ------------------------------------------------------------------------------------------------------- receiving
class StompDelivery(Delivery):
    """`raw` is stomp.py's frame."""

    __slots__ = ()

    def _read(self) -> Metadata:
        return read(self.raw.headers)

    def native_death(self) -> NativeDeath | None:
        return native_death(self.raw.headers)

    @property
    def size(self) -> int:
        """About what it takes of Artemis' window: it counts its own encoding, with an overhead."""
        headers = self.raw.headers
        return len(self.raw.body) + sum(map(len, headers.values())) + HEADER_BYTES * len(headers)


def read(raw: Mapping[str, str]) -> Metadata:
    """Metadata of a MESSAGE frame's headers."""
    letters = ours.letters(raw.get("unimq_types"))
    users: dict[str, HeaderValue] = {}
    mine: dict[str, Any] = {}
    for name, value in raw.items():
        if is_own(name):
            canonical = name.replace("_", "-")
            mine[canonical] = ours.untext(value, letters.get(canonical))
        elif not is_brokers(name):
            users[name] = ours.untext(value, letters.get(name)) if letters else value
    reply_to: Address | str | None = raw.get("reply-to")
    if (said := raw.get("unimq_reply_to")) is not None:
        try:
            reply_to = Address.parse(said)
        except ValueError:
            reply_to = said
    try:
        priority: int | None = int(raw["priority"])
    except (KeyError, ValueError):
        priority = None
    broker_id = raw.get("message-id")
    key = raw.get("unimq_key") or raw.get("_AMQ_GROUP_ID") or raw.get("JMSXGroupID")
    return Metadata(
        key=key,
        subject=raw.get("unimq_subject"),
        headers=users,
        headers_raw=tuple(raw.items()),
        content_type=raw.get("content-type"),
        message_id=raw.get("unimq_message_id"),
        correlation_id=raw.get("correlation-id"),
        reply_to=reply_to,
        priority=priority,
        timestamp=_when(raw.get("unimq_timestamp")) or _when(raw.get("timestamp")),
        expires_at=_when(raw.get("expires")),
        position=broker_id,
        redelivered=raw.get("redelivered") == "true",
        broker_message_id=broker_id,
        unimq=mine,
    )


def native_death(raw: Mapping[str, str]) -> NativeDeath | None:
    """What the broker wrote when it dead-lettered or expired a message by itself. Classic says why in a text ("Message
    Expired", "Exceeded redelivery policy limit"), Artemis only where it was, and when it expired."""
    cause = raw.get("dlqDeliveryFailureCause")
    if cause is not None:
        where = raw.get("original-destination", "?")
        reason = (
            "expired"
            if "expired" in cause.lower()
            else "max-delivery"
            if "limit" in cause.lower()
            else "rejected"
        )
        return NativeDeath(reason, f"the broker dead-lettered it from {where}: {cause}")
    if "_AMQ_ORIG_QUEUE" not in raw:
        return None
    where = raw["_AMQ_ORIG_QUEUE"]
    expired = _when(raw.get("_AMQ_ACTUAL_EXPIRY"))
    if expired is not None:
        return NativeDeath("expired", f"the broker expired it in {where}", at=expired)
    return NativeDeath("max-delivery", f"the broker dead-lettered it from {where}")


# ---------------------------------------------------------------------------------------------------------- copies
def copy_frame(
    head: str, receipt: str, copy: Copy, flavour: str, now: dt.datetime, *, dead: bool, group: str | None
) -> bytes:
    """A SEND of the delivery as it came (§5.4). A copy to a dead-letter place never expires there.

    Artemis looks for duplicates by address, and the groups of a topic share one: the id of a copy to a `group` (its
    queue) says whose it is, or the second group's copy would be confirmed and dropped.
    """
    raw: Mapping[str, str] = copy.delivery.raw.headers
    body = copy.delivery.body
    dropped = copy.drop_headers
    fields = {
        name: value
        for name, value in raw.items()
        if name not in STRIPPED
        and not name.startswith(_BROKERS_PREFIXES)
        and name not in dropped
        and not (is_own(name) and name.replace("_", "-") in dropped)
    }
    key = raw.get("_AMQ_GROUP_ID") or raw.get("unimq_key") or raw.get("JMSXGroupID")
    if key is not None:
        fields["JMSXGroupID"] = key
    if "unimq_timestamp" not in raw and (sent := raw.get("timestamp")):
        fields["unimq_timestamp"] = sent
    letters = ours.letters(raw.get("unimq_types"))
    for name, value in copy.set_headers.items():
        fields[own(name)] = ours.text(value)
        letter = ours.type_letter(value)
        if letter is None:
            letters.pop(name, None)
        else:
            letters[name] = letter
    kept = {name: letter for name, letter in letters.items() if name in fields or own(name) in fields}
    if kept:
        fields["unimq_types"] = ";".join(f"{quote(name, safe='')}={letter}" for name, letter in kept.items())
    if flavour == names.ARTEMIS:
        fields["_AMQ_DUPL_ID"] = copy.message_id if group is None else f"{copy.message_id}@{group}"
    if not dead and (expires := _expiry(raw, copy.ttl_s, now)) is not None:
        fields["expires"] = str(expires)
    delay = round((copy.delay_s or 0.0) * 1000)
    if delay > 0:
        fields[DELAY] = str(delay)
    lines = [head, receipt]
    for name, value in fields.items():
        lines.append(f"\n{_checked(name, name)}:{_checked(name, value)}")
    text = body is not None and _was_text(raw, body, flavour)
    return _finished(lines, body, text)


def _was_text(raw: Mapping[str, str], body: bytes, flavour: str) -> bool:
    """Classic tells a TextMessage by the missing content-length; Artemis always sends one, so there the rule of a send
    decides, and a foreign text without a content type becomes bytes in its copy."""
    if flavour == names.CLASSIC:
        return "content-length" not in raw and b"\0" not in body
    return is_text(body, raw.get("content-type"))


def _expiry(raw: Mapping[str, str], ttl_s: float | None, now: dt.datetime) -> int | None:
    if ttl_s is not None:
        return millis(now) + max(round(ttl_s * 1000), 1)
    expires = _when(raw.get("expires"))
    return None if expires is None else millis(expires)
