"""The history that RabbitMQ writes into a dead letter, and the cycles that it sees in it.

Rules (rabbit_dead_letter, 3.10.8)
- x-death is a list, the newest first, one table for each {queue, reason}. A first death: count (int64), reason, queue, time,
  exchange, routing-keys, and original-expiration where the message had one; its keys stand in this order.
- Dying again of the same: the table counts up, moves to the front and keeps its first time. Its keys come out sorted, and
  so do those of a second {queue, reason}; the others behind it come out in reverse.
- The first death also leaves x-first-death-reason, -queue and -exchange. Headers come out sorted by name.
- The property `expiration` goes. With a routing key of the queue's own, so does the header CC.
- A message that comes back to a queue with no rejection on the way is in a cycle and goes there no more. As the order above
  can hide one from RabbitMQ, whose queues then hand it on for ever, ours also end it after CYCLE_ROUNDS_MAX deaths of a kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from unimq.wire.amqp091.table import Int64, Table, Timestamp

from .deadletter import EXPIRED, MAX_DELIVERIES, OVERFLOW
from .limits import CYCLE_ROUNDS_MAX, MAX_DEATHS
from .publication import Publication, header_routes, with_headers

# The engine's reasons in RabbitMQ's words; "rejected" is the same in both.
REASONS: Final[Mapping[str, str]] = {EXPIRED: "expired", OVERFLOW: "maxlen", MAX_DELIVERIES: "delivery_limit"}


def dead_letter(
    sent: Publication,
    reason: str,
    queue: str,
    died_at: float,
    exchange: str,
    key: str | None,
    *,
    believes_client: bool = True,
) -> Publication:
    """`sent` as it goes to `exchange`, under `key` or under its own keys."""
    headers = sent.properties.headers
    info: Table = {
        "reason": reason,
        "queue": queue,
        "time": Timestamp(int(died_at)),
        "exchange": sent.exchange,
        "routing-keys": [sent.routing_keys[0], *_routes(headers)],
    }
    expiration = sent.properties.values.get("expiration")
    if expiration is not None:
        info["original-expiration"] = expiration
    known = believes_client or sent.died_here
    changes = _history(info, headers if known else {})
    properties = with_headers(
        sent.properties,
        changes,
        drop=() if key is None else ("CC",),
        gone=() if expiration is None else ("expiration",),
    )
    return Publication(exchange, sent.routing_keys if key is None else (key,), properties, True)


def cycles(headers: Mapping[str, Any], reason: str, queue: str) -> bool:
    """`headers` hold the newest death, for `reason`, and are about to go to `queue`."""
    deaths = headers.get("x-death")
    if reason == "rejected" or not isinstance(deaths, list):
        return False
    if deaths and isinstance(deaths[0], Mapping) and (deaths[0].get("count") or 0) > CYCLE_ROUNDS_MAX:
        return True
    for death in deaths:
        if not isinstance(death, Mapping):
            continue
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == queue:
            return True
    return False


def _history(info: Table, headers: Mapping[str, Any]) -> Table:
    deaths = headers.get("x-death")
    if deaths is None:
        first = {f"x-first-death-{name}": info[name] for name in ("reason", "queue", "exchange")}
        return {"x-death": [{"count": Int64(1), **info}], **first}
    if not isinstance(deaths, list):
        return {"x-death": [{"count": Int64(1), **info}]}
    grouped = _grouped(deaths)
    same = [death for death in grouped if _of(death) == _of(info)]
    others = [death for death in grouped if _of(death) != _of(info)]
    newest = _counted_up(same[0]) if same else {"count": Int64(1), **info}
    return {"x-death": [dict(sorted(newest.items())), *others[: MAX_DEATHS - 1]]}


def _of(death: Mapping[str, Any]) -> tuple[Any, Any]:
    return death.get("queue"), death.get("reason")


def _counted_up(death: Mapping[str, Any]) -> Table:
    count = death.get("count")
    if isinstance(count, int) and not isinstance(count, bool):
        return {**death, "count": Int64(count + 1)}
    return {"count": Int64(1), **death}


def _grouped(deaths: list[Any]) -> list[Mapping[str, Any]]:
    """One table for each {queue, reason}: a client may have sent several. Two or more come out the other way round, as
    RabbitMQ's fold leaves them (group_by_queue_and_reason): d2 d1 becomes, with a third death, d3 d1 d2."""
    tables = [death for death in deaths if isinstance(death, Mapping)]
    if len(tables) < 2:
        return tables
    times = Counter(map(_of, tables))
    first = {_of(death): death for death in reversed(tables)}
    return [
        first[of] if "count" in first[of] else {"count": Int64(times[of]), **first[of]}
        for of in reversed(dict.fromkeys(map(_of, tables)))
    ]


def _routes(headers: Mapping[str, Any]) -> list[str]:
    """CC only: BCC went when the message was published."""
    return header_routes({"CC": headers["CC"]}) if "CC" in headers else []
