"""What a broker can do, one field per promise.

Rules
- A field is NATIVE, EMULATED (with the loss that `losses` and the adapter's page say) or ABSENT.
- Asking for something ABSENT raises `Unsupported` before a message moves, naming what was found and needed.
- `Adapter.capabilities` is the most the adapter can; `Connection.capabilities` is what this broker turned out to have.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import Unsupported


class Support(enum.Enum):
    NATIVE = "native"
    EMULATED = "emulated"
    ABSENT = "absent"

    def __bool__(self) -> bool:
        return self is not Support.ABSENT


NATIVE, EMULATED, ABSENT = Support.NATIVE, Support.EMULATED, Support.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The defaults are the floor: a field that an adapter does not name is absent."""

    # Does a send return only once the broker has the message?
    confirmed_send: Support = ABSENT
    # Does a send to a place that nobody declared fail?
    unroutable: Support = ABSENT
    # Does `flush` return only when the broker has taken every verb before it?
    settlement_confirmed: Support = ABSENT
    # Can one message be settled without its neighbours?
    ack: Support = ABSENT
    # Can a message be handed back, to be tried again now?
    release: Support = ABSENT
    # Can a failed message come back after a delay without blocking others?
    retry_delay: Support = ABSENT
    # Is there a dead-letter place that keeps the reason?
    dead_letter: Support = ABSENT
    # Does a message that kills its process end in the dead letters?
    crash_limit: Support = ABSENT
    # Can a send be delayed?
    send_delay: Support = ABSENT
    # Can a message expire?
    ttl: Support = ABSENT
    # Do messages of higher priority come first?
    priority: Support = ABSENT
    # Is order kept per key across receivers?
    order_per_key: Support = ABSENT
    # Can one receiver own all messages of a session, with its state?
    sessions: Support = ABSENT
    # Can a message be set aside and fetched later by its number?
    defer: Support = ABSENT
    # Can the lock on a delivery be prolonged?
    lock_renewal: Support = ABSENT
    # Can sends and acks be committed together?
    transactions: Support = ABSENT
    # Is a message sent twice with one id delivered once?
    dedup: Support = ABSENT
    # Does a subscription get only what its filter lets through?
    filters: Support = ABSENT
    # Is another filter on an existing subscription noticed?
    filters_verified: Support = ABSENT
    # Can messages be looked at without taking them?
    browse: Support = ABSENT
    # Can a subscription be moved back or forth?
    seek: Support = ABSENT
    # Can a reply come back to the requester?
    request_reply: Support = ABSENT
    # Do header values keep their types?
    typed_headers: Support = ABSENT
    # Can the number of waiting messages be asked?
    stats_depth: Support = ABSENT
    # Can a group's distance to the end be asked?
    stats_lag: Support = ABSENT
    # Can a place be emptied?
    purge: Support = ABSENT
    # Does a topic keep what was sent before a subscription existed (`start="earliest"`)?
    log: Support = ABSENT

    # Largest body in bytes; None = unknown.
    max_message_bytes: int | None = None
    # Largest batch for one `SenderLink.submit`.
    max_batch: int = 256
    # Longest delay of one send or retry, in seconds; None = any.
    max_delay_s: float | None = None
    # field → what the emulation loses, one sentence.
    losses: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    # What was found, name and version, for people.
    found: str = ""

    def require(self, name: str, what: str, *, adapter: str = "") -> None:
        """Raise `Unsupported` unless `name` is there; `what` is what was asked for, in the user's words."""
        if getattr(self, name) is ABSENT:
            raise Unsupported(
                f"{what} needs {name}, which {self.found or adapter or 'this broker'} does not have",
                adapter=adapter,
            )

    def narrowed(self, **changes: object) -> Capabilities:
        """These capabilities with some fields as a connection found them."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


FLAGS: tuple[str, ...] = tuple(
    f.name for f in dataclasses.fields(Capabilities) if f.type == "Support" or f.type is Support
)
