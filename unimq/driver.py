"""THE SEAM: what an adapter implements. 15 mandatory methods; everything users see is built above them.

Theory of operation
- A driver is completion-based and batch-first, neither sync nor async. Submit and settle never block and finish through
  a callback. Receive may block with a time-out. Two thin facades sit above.
- A driver does not retry, does not reconnect, makes no ids, encodes no bodies and knows no policy; it reports. Where its
  library retries or reconnects by itself it says so with `Lost(link=None, …)` and `Restored`, and the core does not wrap it.
- A driver raises its library's own errors; `Adapter.classify` turns them into ours, once, in the core.
- Emulations (copies, ladders, retries in hand) live above the driver, made from what `Adapter.plan` says.

Rules for callbacks (`Done`, `sink`, `on_ready`)
- `Done` is called exactly once, from any thread, perhaps before submit/settle returns; never under a lock of the
  driver's; the slot it held is freed first (sending again from inside it works, to any depth: never call one `Done` from
  within another on the same stack without a queue in between). The core wraps it so that it never raises into the driver.
- Inside a callback of ours only `submit forward settle wake` are called; never a method that blocks.

Rules for what is passed
- Sequences passed in are read-only and may be kept until `Done`; the messages in a Batch are the user's own.
- Everything has a limit: a driver holds at most what `submit` accepted and what `prefetch`/`prefetch_bytes` allow.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from .address import HeaderValue, Source, Target
from .capabilities import Capabilities
from .delivery import Delivery, Metadata
from .errors import UnimqError
from .message import Message
from .retry import Retry
from .stats import Stats
from .topology import Declaration, TopologyReport
from .url import Endpoint

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Ack", "Adapter", "Admin", "Batch", "BatchResult", "Blocked", "Cancelled", "ConnectOptions", "Connection", "Copy",
    "CrashJournal", "Credential", "DeadLetterOutcome", "Defer", "Delivery", "Done", "Driven", "Event", "Facts", "Failed", "Fault",
    "Flow", "FlowPaused", "Forget", "IN_HAND", "LockLostEvent", "LockRenewal", "Lost", "Metadata", "NATIVE", "Op", "Outcome",
    "Password", "Place", "Plan", "Prefetching", "ReceiverLink", "ReceiverOptions", "Release", "Restored", "Revoked", "Room",
    "Scheduling", "Seekable", "SenderLink", "SenderOptions", "Sessions", "SettleResult", "Sink", "SupportsGetToken", "Token",
    "Unblocked",
]  # fmt: skip

R = TypeVar("R")
Done: TypeAlias = Callable[[R], None]
Fault: TypeAlias = (
    UnimqError  # what classify answers: typed, with retryable, may_have_been_sent and the cause
)


class Op(enum.Enum):
    """What was being done when an error came up; the same exception means different things."""

    CONNECT = "connect"
    OPEN = "open"
    DECLARE = "declare"
    SEND = "send"
    RECEIVE = "receive"
    SETTLE = "settle"
    ADMIN = "admin"


# ---------------------------------------------------------------------------------------------------- credentials
@dataclass(frozen=True)
class Password:
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Token:
    """`expires_at`: seconds since the epoch, None = it does not."""

    value: str = field(repr=False)
    expires_at: float | None = None


Credential: TypeAlias = Callable[[], "Password | Token"]


class SupportsGetToken(Protocol):
    """A cloud's token credential; only an adapter that knows the form takes it."""

    def get_token(self, *scopes: str, **options: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class ConnectOptions:
    """`native` goes to the client library and is validated by the adapter, before any I/O. `client_name` is for the
    broker's own lists of connections."""

    connect_timeout_s: float = 10.0
    tls: ssl.SSLContext | None = None
    credential: Credential | SupportsGetToken | None = field(default=None, repr=False)
    native: Mapping[str, Any] = field(default_factory=dict, repr=False)
    client_name: str = "unimq"


# ---------------------------------------------------------------------------------------------------------- places
@dataclass(frozen=True, slots=True)
class Place:
    """A place at the broker as a plan names it. `ref` is the driver's own (hashable), `text` is for people; `delay_s` is
    the one delay the place has, None = it takes any (then `Copy.delay_s` says which)."""

    ref: Any
    text: str
    delay_s: float | None = None

    def __str__(self) -> str:
        return self.text


class _How(enum.Enum):
    IN_HAND = "in hand"
    NATIVE = "native"


IN_HAND, NATIVE = _How.IN_HAND, _How.NATIVE


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a connection found out about the broker and the places of one source; see `TopologyReport.facts`."""

    flavour: str = ""
    version: tuple[int, ...] = ()
    partitions: int | None = None
    scheduler: bool | None = None
    places: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where the messages of one source (or target) go. Pure values; the core acts on them.

    - `release`: IN_HAND (the same delivery is handed out again), NATIVE (`settle(Release)`) or a Place to copy to.
    - `retry(delay_s)`: the Place for a retry after at least `delay_s` (0 = now); raises `Unsupported` beyond the longest.
    - `delay(delay_s)`: the Place for a delayed *send* to this address; None where the send itself carries the delay.
    - `dead_write`: NATIVE (`settle(DeadLetterOutcome)`), a Place, or None (`dead_letter=None`).
    - `dead_read`: every place where dead messages of this source may lie. `replay`: where a replayed one goes.
    - `reply`: where replies to this client come, None where there is no request/reply.
    - `also_read`: places the receiver reads besides its source. `topology`: what must exist, for `declare`.
    - `losses`: what the emulations of this plan lose, one sentence each, for `explain`.
    """

    release: _How | Place
    retry: Callable[[float], Place]
    dead_write: _How | Place | None
    dead_read: Sequence[Place] = ()
    replay: Place | None = None
    delay: Callable[[float], Place] | None = None
    reply: Place | None = None
    also_read: Sequence[Place] = ()
    topology: Sequence[Declaration] = ()
    losses: Sequence[str] = ()


# --------------------------------------------------------------------------------------------------------- sending
class Batch:
    """Messages for one `submit`. `messages[i]` is the user's own, read-only; its body on the wire is `bodies[i]` (bytes
    or None), its content type `content_types[i]` where that differs from the message's, its id `ids[i]`.

    `ids` is None when ids are off. The driver begins no item after `deadline` (time.monotonic seconds).
    """

    __slots__ = ("messages", "bodies", "content_types", "ids", "deadline")

    def __init__(
        self,
        messages: Sequence[Message],
        bodies: Sequence[bytes | None],
        content_types: Mapping[int, str] | None,
        ids: Sequence[str] | None,
        deadline: float,
    ) -> None:
        self.messages = messages
        self.bodies = bodies
        self.content_types = content_types
        self.ids = ids
        self.deadline = deadline

    def content_type(self, index: int) -> str | None:
        if self.content_types is not None and index in self.content_types:
            return self.content_types[index]
        return self.messages[index].content_type

    def __len__(self) -> int:
        return len(self.messages)


@dataclass(frozen=True, slots=True)
class Failed:
    """`handed_over`: the item may have reached the broker. False lets the core queue it again until its deadline."""

    error: BaseException
    handed_over: bool


class BatchResult:
    """`failures`: index → Failed, None = all well. `positions`: one per item where the broker tells, else None.
    `ALL_WELL` is the one to use when there is nothing to say."""

    __slots__ = ("failures", "positions")

    def __init__(
        self, failures: Mapping[int, Failed] | None = None, positions: Sequence[Any] | None = None
    ) -> None:
        self.failures = failures
        self.positions = positions


ALL_WELL = BatchResult()


@dataclass(frozen=True, slots=True)
class Copy:
    """A faithful native copy of `delivery` (from memory: its link may be gone). Fields, headers, body as they are, but
    `message_id` is the broker-level id, `set_headers` (canonical names with dashes; values of HeaderValue) are always
    set, `drop_headers` never inherited, nor what §5.4 strips. `ttl_s` None = what remains of the original's.
    `delay_s` only with a Place that takes any delay."""

    delivery: Delivery
    message_id: str
    set_headers: Mapping[str, HeaderValue]
    drop_headers: frozenset[str] = frozenset()
    ttl_s: float | None = None
    delay_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class SenderOptions:
    """`unroutable="error"`: a Topic without subscribers is a failure of the item. `declared_ids` False = no ids."""

    message_ids: bool = True
    unroutable: str | None = None
    compression: str | None = None
    linger_s: float | None = None
    batch_bytes: int | None = None
    native: Mapping[str, Any] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------------- receiving
@dataclass(frozen=True, kw_only=True)
class ReceiverOptions:
    """`mode`: consume | on_receive (settled when handed to the core) | browse (taken by nobody: closing leaves all as it
    was) | dead (as consume, on a dead-letter place) | deferred. `on_ready`: called from any thread, coalesced, when a link
    whose `receive(n, 0)` came back empty has something or died. `start` is a Subscription's; a Queue has none."""

    mode: str = "consume"
    prefetch: int = 100
    prefetch_bytes: int = 64 * 1024 * 1024
    also_read: Sequence[Place] = ()
    session: str | None = None
    start: str = "latest"
    positions: Any = None
    until_end: bool = False
    lock_renewal_max_s: float = 300.0
    on_ready: Callable[[], None] | None = None
    native: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ack:
    """Done with."""


@dataclass(frozen=True)
class Release:
    """Back to the broker, for anybody, now."""


@dataclass(frozen=True)
class DeadLetterOutcome:
    """Native dead-lettering. `headers` are ours: set natively where the broker lets us, else at the end of the description as
    one line of JSON, and read back from there; never dropped."""

    reason: str
    description: str = ""
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Defer:
    """Set aside, to be fetched by its position."""


@dataclass(frozen=True)
class Forget:
    """Drop from the driver's books without a word to the broker (answers `Revoked`; a delivery that lies in no queue)."""


Outcome: TypeAlias = Ack | Release | DeadLetterOutcome | Defer | Forget


class SettleResult:
    """`lost`: the broker did not take these; `held`: recorded behind an older unsettled one, come back after a crash."""

    __slots__ = ("lost", "held")

    def __init__(self, lost: Sequence[Delivery] = (), held: Sequence[Delivery] = ()) -> None:
        self.lost = lost
        self.held = held


ALL_SETTLED = SettleResult()


# ----------------------------------------------------------------------------------------------------------- events
@dataclass(frozen=True)
class Lost:
    """A link, or with None the connection and every link of it, is dead; its open batches and settlements complete."""

    link: SenderLink | ReceiverLink | None
    error: BaseException


@dataclass(frozen=True)
class Restored:
    """The library reconnected by itself. `gap`: deliveries in hand before it are void."""

    link: SenderLink | ReceiverLink | None
    gap: bool = False


@dataclass(frozen=True)
class Room:
    """A link whose `submit` accepted less than all has room again."""

    link: SenderLink


@dataclass(frozen=True)
class Blocked:
    """The broker takes no more sends for now (an alarm, a limit)."""

    reason: str = ""


@dataclass(frozen=True)
class Unblocked:
    pass


@dataclass(frozen=True)
class Cancelled:
    """The broker ended the consumer (its queue was deleted, say) while the connection lives."""

    link: ReceiverLink
    error: BaseException | None = None


@dataclass(frozen=True)
class Revoked:
    """These are about to be somebody else's. The sink returns at once; the core settles or `Forget`s each."""

    link: ReceiverLink
    deliveries: Sequence[Delivery]
    deadline: float


@dataclass(frozen=True)
class LockLostEvent:
    """The locks of these are gone: settling them is of no use."""

    link: ReceiverLink
    deliveries: Sequence[Delivery]


@dataclass(frozen=True)
class FlowPaused:
    """The link stopped fetching because too much is unsettled behind a gap."""

    link: ReceiverLink
    reason: str = ""


Event: TypeAlias = (
    Lost | Restored | Room | Blocked | Unblocked | Cancelled | Revoked | LockLostEvent | FlowPaused
)
Sink: TypeAlias = Callable[[Event], None]


# -------------------------------------------------------------------------------------------------------- mandatory
class Adapter(Protocol):
    """What an entry point of the group `unimq.adapters` names. Importable without its client library."""

    name: str
    extra: str  # pip install 'unimq[extra]'
    schemes: Sequence[str]
    url_options: frozenset[str]  # those of §5.6 that it understands
    capabilities: Capabilities

    def connect(self, endpoint: Endpoint, options: ConnectOptions, sink: Sink) -> Connection:
        """One round over all hosts within `connect_timeout_s`. Blocks; raises the library's own errors, or ours. The
        sink is used from the first byte. A missing client library raises ImportError."""
        ...

    def classify(self, error: BaseException, *, op: Op, handed_over: bool) -> Fault:
        """Pure. The same exception means different outcomes before and after the write. An error of ours comes back as
        it is; what is not known becomes `UnimqError(code="unknown")`, never a guess."""
        ...

    def plan(self, source: Source | Target, policy: Retry | None, facts: Facts) -> Plan:
        """Pure, no connection. `policy` None = `retry=None`."""
        ...


class Connection(Protocol):
    """Every method blocks, may be called from any thread, and raises the library's own errors."""

    capabilities: Capabilities
    facts: Facts

    def sender(self, target: Target | Place, options: SenderOptions) -> SenderLink:
        """A link bound to one place; an unknown place raises (capability `unroutable`). Never creates one."""
        ...

    def receiver(self, source: Source | Place, options: ReceiverOptions) -> ReceiverLink:
        """Returns when the start position is fixed: what is sent after that is received."""
        ...

    def declare(self, topology: Sequence[Declaration], *, verify_only: bool) -> TopologyReport:
        """Make the places; a difference that cannot be made so raises `TopologyMismatch`. With `verify_only` compare, make
        nothing and raise nothing: the report has what is missing and what differs. An option that the broker lacks raises
        `Unsupported` in both."""
        ...

    def close(self, timeout_s: float) -> None:
        """Idempotent; ends every link (their open batches and settlements complete first) and every thread."""
        ...


class SenderLink(Protocol):
    def submit(self, batch: Batch, done: Done[BatchResult]) -> int:
        """Never blocks. Accepts a prefix and returns its length (0 = full: a `Room` event follows); `done` is for that
        prefix. Called under the core's lock for this link, in send order; the wire keeps that order. A dead link accepts
        all and completes them as failed, `handed_over=False`."""
        ...

    def forward(self, copies: Sequence[Copy], done: Done[BatchResult]) -> None:
        """Never blocks, never refuses (bounded by prefetch). Faithful native copies, from memory."""
        ...

    def close(self, timeout_s: float) -> None:
        """Blocks. The unfinished complete, with `handed_over` as it is. Idempotent."""
        ...


class ReceiverLink(Protocol):
    """Polls, heartbeats, renews and commits whether or not anybody is in `receive`."""

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Delivery]:
        """One thread at a time. Returns as soon as there is one or more. `timeout_s` 0 never blocks and does no I/O. []
        is normal. A dead link hands out what it still has no more, and raises."""
        ...

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome, done: Done[SettleResult]) -> None:
        """Never blocks, never refuses, any thread. `done` when the broker has taken it where it can be known cheaply
        (else when it was written: then `flush` is what confirms). A dead link completes at once, all lost."""
        ...

    def flush(self, done: Done[SettleResult]) -> None:
        """Never blocks. `done` when the broker has everything settled before this call (capability
        `settlement_confirmed`). Its result names only what no `SettleResult` of a `settle` has named."""
        ...

    def wake(self) -> None:
        """Sticky, any thread: this or the next `receive` returns within 100 ms."""
        ...

    def close(self, timeout_s: float) -> None:
        """Blocks. Commits what is settled; hands the rest back by closing, never by a copy. Idempotent."""
        ...


# --------------------------------------------------------------------------------------------------------- optional
@runtime_checkable
class Driven(Protocol):
    """A connection whose completions need a thread of ours. One thread at a time."""

    def drive(self, timeout_s: float) -> None: ...


@runtime_checkable
class Flow(Protocol):
    """On a ReceiverLink: that more comes can be stopped while it is open, where a smaller prefetch does not do that at once."""

    def pause(self, done: Callable[[], None]) -> None:
        """Never blocks, any thread. `done` when nothing more comes than `receive(n, 0)` has, or it cannot be stopped here."""
        ...

    def resume(self) -> None:
        """Never blocks, any thread."""
        ...


@runtime_checkable
class Prefetching(Protocol):
    """On a ReceiverLink: how many may be in hand can be changed while it is open. `prefetch_keeps_order`: also where order
    counts; else another receiver could pass what is in hand here."""

    prefetch_keeps_order: bool

    def set_prefetch(self, count: int) -> None:
        """Never blocks, any thread. What is in hand stays there."""
        ...


@runtime_checkable
class CrashJournal(Protocol):
    """On a ReceiverLink whose broker does not count deliveries, but keeps a note for the next owner. What may have been in
    hand when the last one died comes as redelivered, its `delivery_count` being that death and the tries noted since."""

    def note(self, deliveries: Sequence[Delivery], done: Done[SettleResult]) -> None:
        """Their handlers are about to begin. Never blocks; `done` when the broker has it. `lost`: they are somebody else's."""
        ...


@runtime_checkable
class Admin(Protocol):
    """On a Connection. Each may raise `Unsupported`."""

    def stats(self, place: Source | Target | Place) -> Stats: ...
    def purge(self, place: Source | Place) -> int | None: ...
    def delete(self, place: Source | Target | Place) -> None: ...


@runtime_checkable
class LockRenewal(Protocol):
    """On a ReceiverLink."""

    def renew(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Blocks; returns those that were lost; sets `locked_until` of the others."""
        ...


@runtime_checkable
class Seekable(Protocol):
    """On a Connection."""

    def seek(self, source: Source, to: Any) -> None: ...


@runtime_checkable
class Scheduling(Protocol):
    """On a Connection."""

    def cancel(self, target: Target | Place, position: Any) -> bool: ...


@runtime_checkable
class Sessions(Protocol):
    """On a ReceiverLink."""

    session_id: str | None

    def get_state(self) -> bytes | None: ...
    def set_state(self, state: bytes | None) -> None: ...
