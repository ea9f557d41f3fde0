"""One exchange with the connection cut at one byte, and what must hold afterwards.

Rules
- A *place* is (connection, direction, byte). A clean exchange is measured first; the places are spread over all its bytes.
- A cut in `connect` is `ConnectionFailed` and nothing else. After it, each message is confirmed, `SendOutcomeUnknown`, or
  `SendTimeout`; the confirmed are at the broker exactly once, the timed out are not there, and the unknown at most once.
- A stubborn cut comes again on every new connection, at the same byte: what was never handed over then ends as `SendTimeout`.
- A consumer goes on by itself: no call may raise `ConnectionFailed` while the broker is there. What `flush` returned for is
  gone; what it named as lost comes again, or the broker had taken it and only the answer was lost. A dead letter is at its
  place before its source is gone. No message is nowhere.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.proofs.kit import Hang, World, now, run
from integration.proofs.raw import Raw
from unimq import Message, Queue
from unimq.errors import (
    ConnectionFailed,
    LockLost,
    SendOutcomeUnknown,
    SendTimeout,
    SettlementLost,
)
from unimq.testing.proxy import FaultProxy

PLACE_LIMIT_S = 20.0  # one place, everything included: beyond it something hangs
CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 8.0  # of each call of an exchange: reconnecting takes a fraction of it
STUBBORN_TIMEOUT_S = 0.3  # of each send where every connection is cut
REQUEUE_LIMIT_S = 5.0  # the broker gives back what a dead connection held within this time
QUIET_S = 1.0  # nothing more comes when nothing came for so long
BATCH = 4  # messages of the batch of a send exchange; two more are sent one by one, one is pipelined
RECEIVED = 6  # messages of a receive exchange
BODY_BYTES = 200


@dataclass(frozen=True, slots=True)
class Place:
    connection: int  # 1 is the first that the client opens
    direction: str  # "client": towards the broker; "server": towards the client
    after_bytes: int
    stubborn: bool = False

    def __str__(self) -> str:
        return (
            f"{self.direction} byte {self.after_bytes} of connection {self.connection}"
            f"{', again and again' if self.stubborn else ''}"
        )

    def arm(self, proxy: FaultProxy) -> Any:
        sizes: dict[str, Any] = {f"{self.direction}_bytes": self.after_bytes}
        if self.stubborn:
            return proxy.cut_after(**sizes, times=None)
        return proxy.cut_after(**sizes, connection=self.connection)


@dataclass(slots=True)
class Seen:
    """What a place showed. `findings` is empty where everything held."""

    place: Place | None
    fired: bool = False
    connect_error: BaseException | None = None
    outcomes: dict[bytes, BaseException | None] = field(default_factory=dict)  # None: confirmed
    lost: int = 0  # settlements that were reported as lost
    took_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    def find(self, text: str) -> None:
        self.findings.append(f"{self.place}: {text}")


def spread(sizes: Sequence[tuple[int, str, int]], count: int, least: int = 3) -> list[Place]:
    """`count` places or a few more over (connection, direction, bytes), from the first byte to the last but one."""
    total = sum(size for _, _, size in sizes)
    places: list[Place] = []
    for connection, direction, size in sizes:
        share = max(least, -(-count * size // total))
        places += [Place(connection, direction, (size - 1) * i // max(share - 1, 1)) for i in range(share)]
    return places


def measured(proxy: FaultProxy, before: int) -> list[tuple[int, str, int]]:
    """(connection, direction, bytes) of the connections opened since there were `before` of them."""
    opened = proxy.connections - before
    sizes: list[tuple[int, str, int]] = []
    for number, traffic in enumerate(proxy.traffic[-opened:], 1):
        sizes += [(number, "client", traffic.client_bytes), (number, "server", traffic.server_bytes)]
    return sizes


def body(tag: str, index: int) -> bytes:
    return f"{tag}:{index}:".encode().ljust(BODY_BYTES, b".")


# ------------------------------------------------------------------------------------------------------------ sending
async def _send(world: World, url: str, queue: Queue, tag: str, timeout_s: float, seen: Seen) -> None:
    try:
        mq = await now(world.connect(url, connect_timeout_s=CONNECT_TIMEOUT_S))
    except Exception as error:  # which one it is, is what is being looked at
        seen.connect_error = error
        return
    try:
        batch = [body(tag, index) for index in range(BATCH)]
        report = await now(
            mq.send_many(queue, [Message(b, headers={"place": tag}) for b in batch], timeout_s=timeout_s)
        )
        for index, sent in enumerate(batch):
            seen.outcomes[sent] = report.errors.get(index)
        for index in range(BATCH, BATCH + 2):
            await _outcome(seen, body(tag, index), mq.send, queue, timeout_s)
        sender = mq.sender(queue)
        try:
            pending = await now(sender.submit(body(tag, BATCH + 2), timeout_s=timeout_s))
            await now(pending.result(timeout_s + 1.0))
            seen.outcomes[body(tag, BATCH + 2)] = None
        except Exception as error:  # as above
            seen.outcomes[body(tag, BATCH + 2)] = error
    finally:
        await now(mq.close(2.0))


async def _outcome(seen: Seen, sent: bytes, send: Any, queue: Queue, timeout_s: float) -> None:
    try:
        await now(send(queue, sent, timeout_s=timeout_s))
        seen.outcomes[sent] = None
    except Exception as error:  # as above
        seen.outcomes[sent] = error


def send_at(
    proxy: FaultProxy,
    url: str,
    raw: Raw,
    queue: Queue,
    place: Place | None,
    world: World,
    tag: str,
    limit_s: float = PLACE_LIMIT_S,
) -> Seen:
    """One send exchange, cut at `place` (None: not at all)."""
    seen = Seen(place)
    cut = None if place is None else place.arm(proxy)
    timeout_s = STUBBORN_TIMEOUT_S if place is not None and place.stubborn else CALL_TIMEOUT_S
    started = time.monotonic()
    try:
        run(limit_s, f"{world} send", lambda: _send(world, proxy.url(url), queue, tag, timeout_s, seen))
    except Hang as hang:
        seen.find(str(hang))
    except Exception as error:  # a call that must not raise did
        seen.find(f"the exchange raised {error!r}")
    seen.took_s = time.monotonic() - started
    seen.fired = cut is not None and cut.fired > 0
    proxy.heal()
    there = Counter(raw.take_all(queue.name))
    judge_sends(seen, there)
    return seen


def judge_sends(seen: Seen, there: Counter[bytes]) -> None:
    """What was reported against what is at the broker."""
    error = seen.connect_error
    if error is not None:
        if type(error) is not ConnectionFailed:
            seen.find(f"connect raised {error!r} and not ConnectionFailed")
        if not seen.fired:
            seen.find(f"connect failed without a cut: {error!r}")
    for sent, outcome in seen.outcomes.items():
        count = there[sent]
        name = sent[:40].rstrip(b".").decode()
        if outcome is None:
            if count != 1:
                seen.find(f"{name} was confirmed and is there {count} times")
        elif type(outcome) is SendTimeout:
            if count:
                seen.find(f"{name} is a SendTimeout and is there {count} times: {outcome!r}")
            if outcome.may_have_been_sent:
                seen.find(f"{name} is a SendTimeout that says may_have_been_sent: {outcome!r}")
        elif type(outcome) is SendOutcomeUnknown:
            if count > 1:
                seen.find(f"{name} is unknown and is there {count} times")
        else:
            seen.find(f"{name} ended as {outcome!r}")
    foreign = [b for b in there if b not in seen.outcomes]
    if foreign:
        seen.find(f"{len(foreign)} messages that were not reported are there: {foreign[0][:40]!r}")


# ---------------------------------------------------------------------------------------------------------- receiving
@dataclass(slots=True)
class Books:
    """What a consumer did with each message, by body."""

    handed_out: Counter[bytes] = field(default_factory=Counter)
    settled: dict[bytes, str] = field(default_factory=dict)  # verb; not flushed yet
    gone: dict[bytes, str] = field(default_factory=dict)  # verb; flushed
    # verb; reported as lost: comes again, or the broker had it
    unsure: dict[bytes, str] = field(default_factory=dict)
    released: set[bytes] = field(default_factory=set)


async def _consume(
    world: World, url: str, queue: Queue, bodies: list[bytes], seen: Seen, books: Books
) -> None:
    """Ack four, dead-letter the third, release the last once; flush after each batch; until all are gone."""
    try:
        mq = await now(world.connect(url, connect_timeout_s=CONNECT_TIMEOUT_S))
    except Exception as error:  # which one it is, is what is being looked at
        seen.connect_error = error
        return
    try:
        receiver = mq.receiver(queue, prefetch=4)
        deadline = time.monotonic() + PLACE_LIMIT_S / 2
        while len(books.gone) < len(bodies):
            if time.monotonic() > deadline:
                seen.find(f"the consumer did not get on: {len(books.gone)} of {len(bodies)} are done")
                return
            left = [b for b in bodies if b not in books.gone]
            patience_s = QUIET_S if all(b in books.unsure for b in left) else CALL_TIMEOUT_S / 2
            taken = await now(receiver.receive(10, patience_s))
            if not taken and patience_s == QUIET_S:
                break  # only those are left whose settlement the broker had taken after all
            for delivery in taken:
                _settle(delivery, bodies, seen, books)
            await _flush(receiver, seen, books)
        try:
            await now(receiver.close(2.0))
        except SettlementLost as error:
            seen.find(f"close reported as lost what was flushed before: {error!r}")
    finally:
        await now(mq.close(2.0))


def _settle(delivery: Any, bodies: list[bytes], seen: Seen, books: Books) -> None:
    what = delivery.body
    books.handed_out[what] += 1
    if what in books.gone:
        seen.find(f"{what[:40]!r} came again after {books.gone[what]} and a flush that returned")
    try:
        if what == bodies[2]:
            delivery.dead_letter("why")
            books.settled[what] = "dead_letter"
        elif what == bodies[-1] and what not in books.released:
            delivery.release()
            books.released.add(what)
        else:
            delivery.ack()
            books.settled[what] = "ack"
    except LockLost:
        return  # the link died before the verb: it comes again


async def _flush(receiver: Any, seen: Seen, books: Books) -> None:
    try:
        await now(receiver.flush(CALL_TIMEOUT_S))
    except SettlementLost as error:
        seen.lost += len(error.deliveries)
        for delivery in error.deliveries:
            what = delivery.body or b""
            books.unsure[what] = books.settled.pop(what, "release")
    except SendTimeout as error:
        seen.find(f"flush did not come to an end: {error!r}")
        return
    books.gone.update(books.settled)
    books.settled.clear()


def receive_at(
    proxy: FaultProxy, url: str, raw: Raw, queue: Queue, place: Place | None, world: World, tag: str
) -> Seen:
    """One receive-and-settle exchange, cut at `place` (None: not at all)."""
    seen, books = Seen(place), Books()
    bodies = [body(tag, index) for index in range(RECEIVED)]
    raw.put(queue.name, bodies)
    cut = None if place is None else place.arm(proxy)
    started = time.monotonic()
    try:
        run(
            PLACE_LIMIT_S,
            f"{world} receive",
            lambda: _consume(world, proxy.url(url), queue, bodies, seen, books),
        )
    except Hang as hang:
        seen.find(str(hang))
    except Exception as error:  # a call that must not raise did
        seen.find(f"the exchange raised {error!r}")
    seen.took_s = time.monotonic() - started
    seen.fired = cut is not None and cut.fired > 0
    proxy.heal()
    judge_receives(seen, books, bodies, raw, queue)
    return seen


def judge_receives(seen: Seen, books: Books, bodies: list[bytes], raw: Raw, queue: Queue) -> None:
    error = seen.connect_error
    if error is not None:
        if type(error) is not ConnectionFailed:
            seen.find(f"connect raised {error!r} and not ConnectionFailed")
        if not seen.fired:
            seen.find(f"connect failed without a cut: {error!r}")
    wanted = {b for b in bodies if b not in books.gone and b not in books.unsure}
    left = Counter(raw.take_all(queue.name))
    deadline = time.monotonic() + REQUEUE_LIMIT_S
    while wanted - left.keys() and time.monotonic() < deadline:
        raw.wait(0.02)  # what a dead connection held comes back a moment later
        left += Counter(raw.take_all(queue.name))
    dead = Counter(raw.take_all(f"{queue.name}.dlq"))
    for what in bodies:
        verb = books.gone.get(what)
        name = what[:40].rstrip(b".").decode()
        if verb is not None and left[what]:
            seen.find(f"{name}: {verb} was flushed and it is still there")
        if verb == "dead_letter" and not dead[what]:
            seen.find(f"{name}: dead_letter was flushed and it is not at the dead-letter place")
        if verb is None and not left[what] and not dead[what] and what not in books.unsure | books.settled:
            seen.find(f"{name} is nowhere: neither settled nor at the broker")
        if verb != "dead_letter" and dead[what] and what != bodies[2]:
            seen.find(f"{name} is at the dead-letter place and nobody put it there")
    foreign = [b for b in (*left, *dead) if b not in bodies]
    if foreign:
        seen.find(f"messages of another place are there: {foreign[0][:40]!r}")
