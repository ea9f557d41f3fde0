"""Operations on messages, consumers and connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .making import BODIES, KEYS, LONG_MS, SHORT_MS, Making, Op


def publish(m: Making) -> Op:
    m.made += 1
    if m.often(0.65):
        exchange, key = "", m.queue()
    else:
        exchange, key = m.exchange(), m.pick(KEYS)
    return {
        "op": "publish",
        "ch": m.channel(),
        "exchange": exchange,
        "key": key,
        "body": f"m{m.made}" + "." * m.pick(BODIES),
        "count": m.pick((1, 1, 2, 3)),
        "mandatory": m.often(0.4),
        "properties": _properties(m),
    }


def _properties(m: Making) -> Op:
    found: Op = {}
    if m.often(0.12):
        found["expiration"] = m.pick(
            ("abc", "-1", "5x")
            if m.wrong(0.3)
            else ("0",) * 4 + (str(LONG_MS),) * 2 + (str(SHORT_MS),) * (4 if m.short else 0)
        )
    elif m.short and m.often(0.3):
        found["expiration"] = str(SHORT_MS)
    elif m.often(0.25):
        # never with an expiration: see the known differences of docs/reference-broker.md
        found["priority"] = m.pick((0, 1, 2, 5, 9, 255))
    if m.often(0.4):
        found["delivery_mode"] = m.pick((1, 2))
    if m.often(0.4):
        found["headers"] = _headers(m)
    if m.often(0.05):
        found["user_id"] = "somebody" if m.wrong(0.5) else "guest"
    if m.often(0.15):
        found |= {"content_type": "text/plain", "message_id": f"id{m.made}", "type": "t", "app_id": "a"}
    return found


def _headers(m: Making) -> Op:
    found: Op = {h: m.pick((1, 2, "x", True)) for h in ("h", "i", "x-j") if m.often(0.5)}
    if m.often(0.2):
        found["CC"] = "q1" if m.wrong(0.2) else m.pick((["q1"], ["k", "q2"], ["q0", "q1", "q0"]))
    if m.often(0.15):
        found["BCC"] = m.pick((["q2"], ["q0", "a.b"]))
    if m.often(0.08):
        found["x-death"] = m.pick(
            ("nonsense", [{"queue": "q0", "reason": "expired", "count": 3}], [{"queue": "q1"}])
        )
    return found


def transaction(m: Making) -> Op:
    """A quorum queue refuses what comes after it has said that it is full, and puts what is published behind what is settled
    at the same time, mostly: there a transaction publishes one message or settles one."""
    got = m.queue() if m.often(0.5) else None
    publishes = m.random.randint(1, 3) if not m.quorum else int(got is None)
    return {
        "op": "transaction",
        "connection": m.pick("ab"),
        "publishes": [{**publish(m), "count": 1} for _ in range(publishes)],
        "get": got,
        "settle": m.pick(("ack", "nack", "reject")),
        "end": m.pick(("commit", "commit", "rollback", "close")),
    }


def get(m: Making) -> Op:
    channel, no_ack = m.channel(), m.often(0.25)
    if not no_ack:
        m.holders.append(channel)
    return {"op": "get", "ch": channel, "queue": m.queue(), "no_ack": no_ack}


def consume(m: Making) -> Op | None:
    """From one queue only on each channel: between the deliveries of two there is no order that could be compared. Nor is there
    between those to two consumers of a quorum queue: see the known differences."""
    channel = m.channel()
    if m.reads.get(channel) in m.quorums:
        return None
    again = bool(m.consumes) and m.wrong(0.1)
    queue = m.reads.setdefault(channel, m.queue())
    limited = (
        m.argument(queue, "x-delivery-limit") is not None
    )  # its prefetch grows: see the known differences
    arguments: Op = {}
    if m.often(0.25):
        arguments["x-priority"] = "high" if m.wrong(0.15) else m.pick((-1, 1, 5))
    op: Op = {
        "op": "consume",
        "ch": channel,
        "queue": queue,
        "tag": m.consumes[-1]["tag"] if again else f"t{len(m.consumes)}",
        "no_ack": m.often(0.15),
        "exclusive": m.often(0.09),
        "prefetch": 0 if limited else m.pick((0, 1, 1, 2, 3)),
        "arguments": arguments,
    }
    m.consumes.append(op)
    m.holders.append(channel)
    return op


def cancel(m: Making) -> Op | None:
    found = [op for op in m.consumes if not _cancel_stops_the_queue(m, op)]
    if not found:
        return None
    op = m.pick(found)
    return {"op": "cancel", "ch": op["ch"], "tag": op["tag"]}


def _cancel_stops_the_queue(m: Making, consumed: Op) -> bool:
    """A single active consumer of a classic queue that may be full: see the known differences of
    docs/reference-broker.md."""
    queue = consumed["queue"]
    if not m.argument(queue, "x-single-active-consumer") or m.argument(queue, "x-queue-type") == "quorum":
        return False
    whole = any(op["op"] == "qos" and op["whole_channel"] and op["ch"] == consumed["ch"] for op in m.ops)
    return whole or bool(consumed["prefetch"] and not consumed["no_ack"])


def _settle(name: str, **fields: Callable[[Making], Any]) -> Callable[[Making], Op]:
    def make(m: Making) -> Op:
        return {
            "op": name,
            "ch": m.pick(m.holders) if m.holders and not m.often(0.1) else m.channel(),
            "which": m.random.randint(0, 3),
            **{field: of(m) for field, of in fields.items()},
        }

    return make


ack = _settle("ack", multiple=lambda m: m.often(0.3))
nack = _settle("nack", multiple=lambda m: m.often(0.3), requeue=lambda m: m.often(0.2 if m.round else 0.6))
reject = _settle("reject", requeue=lambda m: m.often(0.1 if m.round else 0.5))


def settle_unknown(m: Making) -> Op:
    return {"op": "settle_unknown", "ch": m.channel(), "verb": m.pick(("ack", "nack", "reject"))}


def recover(m: Making) -> Op:
    return {"op": "recover", "ch": m.channel(), "requeue": m.often(0.9)}


def qos(m: Making) -> Op:
    return {"op": "qos", "ch": m.channel(), "prefetch": m.pick((0, 1, 2, 5)), "whole_channel": m.often(0.5)}


# ----------------------------------------------------------------------------------------------------- connections
def close_channel(m: Making) -> Op:
    return {"op": "close_channel", "ch": m.channel()}


def cut(m: Making) -> Op:
    return {"op": "cut", "connection": m.pick("ab")}


def close_connection(m: Making) -> Op:
    return {"op": "close_connection", "connection": m.pick("ab")}
