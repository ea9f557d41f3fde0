"""Operations on queues, exchanges and bindings."""

from __future__ import annotations

from typing import Final

from .making import BUILT_IN, EXCHANGES, KEYS, LONG_MS, PATTERNS, QUEUES, SHORT_MS, Making, Op


def declare_queue(m: Making) -> Op:
    missing = [q for q in QUEUES if q not in m.queues]
    name = missing[0] if m.round and missing else m.pick(missing or QUEUES)
    op: Op = {
        "op": "declare_queue",
        "ch": m.channel(),
        "queue": name,
        "durable": m.often(0.5),
        "exclusive": m.often(0.05),
        "auto_delete": m.often(0.08),
        "arguments": _quorum(m, name) if name in m.quorums else _classic(m, name),
    }
    if op["arguments"].get("x-queue-type") == "quorum" and not m.wrong(0.1):
        op |= {"durable": True, "exclusive": False, "auto_delete": False}
    if name in m.queues and m.often(0.5):
        op = {**m.queues[name], "ch": m.channel()}  # the same again
    m.queues.setdefault(name, op)
    return op


def _quorum(m: Making, name: str) -> Op:
    """With reject-publish a bound of 0, between which and 80 % of it there is nothing: see the known differences."""
    found: Op = {"x-queue-type": "quorum"}
    if m.often(0.5):
        found["x-delivery-limit"] = m.pick((0, 1, 2))
    if m.often(0.6):
        found |= _dead_letter(m, name)
        if m.often(0.4):
            found |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    if m.often(0.15):
        found["x-single-active-consumer"] = True
    if m.often(0.2):
        found["x-max-length"] = 0 if "x-overflow" in found else m.pick((1, 2, 5))
    if m.short and m.often(0.3):
        found["x-message-ttl"] = SHORT_MS
    return found


def _classic(m: Making, name: str) -> Op:
    """A priority queue has no time to live: see the known differences of docs/reference-broker.md."""
    found: Op = {}
    if m.often(0.9 if m.round else 0.45):
        found |= _dead_letter(m, name)
    if m.often(0.3):
        found["x-max-length"] = m.pick((0, 1, 2, 3))
        if m.often(0.7):
            found["x-overflow"] = m.pick(("drop-head", "reject-publish", "reject-publish-dlx"))
    if m.often(0.1):
        found["x-max-length-bytes"] = m.pick((10, 40, 80))
    if m.often(0.2):
        found["x-max-priority"] = m.pick((1, 3, 10))
    if m.often(0.15):
        found["x-single-active-consumer"] = m.often(0.9)
    if "x-max-priority" not in found:
        if m.often(0.2):
            found["x-message-ttl"] = m.pick((0, LONG_MS, *((SHORT_MS,) * 4 if m.short else ())))
        elif m.short and m.often(0.4):
            found["x-message-ttl"] = SHORT_MS
    if m.short and m.often(0.2):
        found["x-expires"] = SHORT_MS
    elif m.often(0.05):
        found["x-expires"] = LONG_MS
    if m.wrong(0.15):
        found |= m.pick(BAD_ARGUMENTS)
    if m.often(0.05):
        found["x-unknown"] = "anything"
    return found


def _dead_letter(m: Making, name: str) -> Op:
    if m.round or name != m.by_exchange:
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": m.places[name]}
    found: Op = {"x-dead-letter-exchange": m.pick((*EXCHANGES, BUILT_IN))}
    if m.often(0.4):
        found["x-dead-letter-routing-key"] = m.pick(KEYS)
    return found


BAD_ARGUMENTS: Final[tuple[Op, ...]] = (
    {"x-message-ttl": "5"},
    {"x-message-ttl": -1},
    {"x-expires": 0},
    {"x-expires": True},
    {"x-dead-letter-exchange": 5},
    {"x-dead-letter-routing-key": "k"},
    {"x-max-length": -2},
    {"x-max-length": "x"},
    {"x-max-priority": 256},
    {"x-overflow": "sideways"},
    {"x-overflow": 1},
    {"x-queue-type": "fast"},
    {"x-queue-type": 3},
    {"x-single-active-consumer": "yes"},
    {"x-queue-mode": "slow"},
    {"x-delivery-limit": 3},
    {"x-queue-type": "quorum", "x-max-priority": 3},
    {"x-queue-type": "quorum", "x-message-ttl": None},
    {"x-max-age": "1h"},
)


def check_queue(m: Making) -> Op:
    return {"op": "check_queue", "ch": m.channel(), "queue": m.queue()}


def declare_otherwise(m: Making) -> Op | None:
    if not m.queues:
        return None
    name = m.pick(m.queues)
    there = m.queues[name]
    arguments = dict(there["arguments"])
    kind = {key: value for key, value in arguments.items() if key == "x-queue-type"}
    other = m.pick(
        (
            {"durable": not there["durable"]},
            {"auto_delete": not there["auto_delete"]},
            {"exclusive": not there["exclusive"]},
            {"arguments": {**arguments, "x-message-ttl": LONG_MS + 1}},
            {"arguments": {**arguments, "x-max-length": 77}},
            {"arguments": {**arguments, "x-dead-letter-exchange": "other"}},
            {
                "arguments": {
                    **arguments,
                    **({"x-queue-type": m.pick(("classic", "quorum"))} if m.stays(name) else {}),
                }
            },
            {"arguments": {**arguments, "x-unknown": 5}},
            {"arguments": kind},
        )
    )
    return {**there, **other, "op": "declare_otherwise", "ch": m.channel()}


def delete_queue(m: Making) -> Op:
    name = m.queue()
    op = {
        "op": "delete_queue",
        "ch": m.channel(),
        "queue": name,
        "if_unused": m.often(0.5),
        "if_empty": m.often(0.5),
    }
    if not op["if_unused"] and not op["if_empty"]:
        m.queues.pop(name, None)
    return op


def purge(m: Making) -> Op:
    return {"op": "purge", "ch": m.channel(), "queue": m.queue()}


def declare_exchange(m: Making) -> Op:
    name = m.pick([e for e in EXCHANGES if e not in m.exchanges] or EXCHANGES)
    if m.wrong(0.1):
        name = m.pick(("amq.mine", ""))
    arguments: Op = {}
    if m.often(0.25):
        arguments["alternate-exchange"] = 5 if m.wrong(0.2) else m.pick((*EXCHANGES, BUILT_IN))
    op: Op = {
        "op": "declare_exchange",
        "ch": m.channel(),
        "exchange": name,
        "kind": m.pick(("direct", "fanout", "topic", "topic", "headers", "headers")),
        "durable": m.often(0.5),
        "auto_delete": m.often(0.15),
        "internal": m.often(0.04),
        "arguments": arguments,
    }
    if name in m.exchanges and not m.wrong(0.5):
        op = {**m.exchanges[name], "ch": m.channel()}
    if name in EXCHANGES:
        m.exchanges.setdefault(name, op)
    return op


def check_exchange(m: Making) -> Op:
    return {"op": "check_exchange", "ch": m.channel(), "exchange": "" if m.wrong(0.1) else m.exchange()}


def delete_exchange(m: Making) -> Op:
    name = m.pick(("amq.direct", "")) if m.wrong(0.2) else m.exchange()
    if name.startswith("amq.") and not m.rude:
        name = m.pick(EXCHANGES)
    unused = m.often(0.5)
    if not unused:
        m.exchanges.pop(name, None)
    return {"op": "delete_exchange", "ch": m.channel(), "exchange": name, "if_unused": unused}


def _binding(m: Making, exchange: str) -> Op:
    if exchange == BUILT_IN:
        return {"key": m.pick(QUEUES), "arguments": {}}
    kind = m.exchanges.get(exchange, {}).get("kind")
    if kind != "headers":
        return {"key": m.pick(PATTERNS if kind == "topic" else KEYS), "arguments": {}}
    arguments: Op = {h: m.pick((1, 2, "x", True, None)) for h in ("h", "i", "x-j") if m.often(0.5)}
    if m.often(0.8):
        arguments["x-match"] = m.pick(
            ("some", 5) if m.wrong(0.2) else ("all", "any", "all-with-x", "any-with-x")
        )
    return {"key": m.pick(("", "k")), "arguments": arguments}


def bind_queue(m: Making) -> Op:
    exchange = "" if m.wrong(0.05) else m.exchange()
    return {
        "op": "bind_queue",
        "ch": m.channel(),
        "queue": m.queue(),
        "exchange": exchange,
        **_binding(m, exchange),
    }


def unbind_queue(m: Making) -> Op | None:
    bound = [op for op in m.ops if op["op"] == "bind_queue"]
    if bound and not m.often(0.15):
        return {**m.pick(bound), "op": "unbind_queue", "ch": m.channel()}
    return {**bind_queue(m), "op": "unbind_queue"}


def bind_exchange(m: Making) -> Op:
    source = m.exchange()
    return {
        "op": "bind_exchange",
        "ch": m.channel(),
        "source": source,
        "destination": m.exchange(),
        **_binding(m, source),
    }


def unbind_exchange(m: Making) -> Op:
    bound = [op for op in m.ops if op["op"] == "bind_exchange"]
    if bound and not m.often(0.15):
        return {**m.pick(bound), "op": "unbind_exchange", "ch": m.channel()}
    return {**bind_exchange(m), "op": "unbind_exchange"}
