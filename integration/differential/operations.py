"""The operations, and programs of them made from a seed.

Rules
- An operation is a dict with JSON's types only, so that a program can be printed and typed in again.
- Programs name queues q0… and exchanges e0…; the executor puts the run's prefix before them.
- A channel consumes from one queue only: between the deliveries of two queues there is no order that could be compared.
- Where time matters ("short"), a `wait` follows within a few operations: by then everything short is over, and nothing in
  between can tell how fast the machine is. The executor measures that this holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

Op: TypeAlias = dict[str, Any]

SHORT_MS: Final = 500
LONG_MS: Final = 600_000
OPS_BETWEEN_WAITS: Final = 5
QUEUES: Final = ("q0", "q1", "q2", "q3")
EXCHANGES: Final = ("e0", "e1", "e2")
CHANNELS: Final = ("a0", "a1", "b0", "b1")  # letter: connection
KEYS: Final = ("", "k", "a.b", "a.b.c", "b..c", "q0", "q1")
PATTERNS: Final = ("#", "*", "a.*", "a.#", "#.c", "b.*.c", "k", "", "*.b", "a.*.#")
# Built-in exchanges are shared by all programs on a broker: only one that goes by the key is used, and bound by names of the
# run alone.
BUILT_IN: Final = "amq.direct"
BODIES: Final = (0, 0, 0, 5, 30)  # padding bytes


@dataclass
class Making:
    """What a program has so far."""

    random: Random
    quorum: bool
    short: bool
    rude: bool  # also says what no broker takes
    round: bool  # dead letters come back to where they died
    ops: list[Op] = field(default_factory=list)
    queues: dict[str, Op] = field(default_factory=dict)
    exchanges: dict[str, Op] = field(default_factory=dict)
    tags: list[tuple[str, str, str]] = field(default_factory=list)  # channel, tag, queue
    reads: dict[str, str] = field(default_factory=dict)  # channel → the one queue that it consumes from
    holders: list[str] = field(default_factory=list)  # channels that have been given something, probably
    since_wait: int = 0
    made: int = 0
    focus: tuple[str, ...] = ("q0", "q1")  # where most of it happens

    def pick(self, items: Any) -> Any:
        return self.random.choice(list(items))

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def wrong(self, share: float) -> bool:
        return self.rude and self.often(share)

    def queue(self) -> str:
        """One that should be there, mostly."""
        if self.often(0.6):
            return str(self.pick(self.focus))
        return str(self.pick(QUEUES if not self.queues or self.wrong(0.06) else self.queues))

    def exchange(self) -> str:
        if self.often(0.08):
            return BUILT_IN
        return str(self.pick(EXCHANGES if not self.exchanges or self.wrong(0.06) else self.exchanges))

    def channel(self) -> str:
        return str(self.pick(CHANNELS))


def program(seed: int, steps: int) -> list[Op]:
    random = Random(seed)
    making = Making(
        random,
        quorum=random.random() < 0.25,
        short=random.random() < 0.3,
        rude=random.random() < 0.35,
        round=random.random() < 0.3,
    )
    for _ in range(3):
        making.ops.append(declare_queue(making))
    making.focus = tuple(making.queues)[:2]
    making.ops.append(declare_exchange(making))
    making.ops.append(bind_queue(making))
    if random.random() < 0.5:
        making.ops.append(consume(making))
    making.since_wait = len(making.ops)
    while len(making.ops) < steps:
        if making.short and making.since_wait >= OPS_BETWEEN_WAITS:
            making.ops.append({"op": "wait"})
            making.since_wait = 0
            continue
        name = random.choices(list(OPERATIONS), [weight for weight, _ in OPERATIONS.values()])[0]
        made = OPERATIONS[name][1](making)
        if made is not None:
            making.ops.append(made)
            making.since_wait += 1
    if making.short and making.ops[-1]["op"] != "wait":
        making.ops[-1] = {"op": "wait"}
    return making.ops


# -------------------------------------------------------------------------------------------------------- topology
def declare_queue(m: Making) -> Op:
    missing = [q for q in QUEUES if q not in m.queues]
    name = missing[0] if m.round and missing else m.pick(missing or QUEUES)
    op: Op = {
        "op": "declare_queue",
        "ch": m.channel(),
        "queue": name,
        "durable": m.often(0.5),
        "exclusive": m.often(0.03),
        "auto_delete": m.often(0.08),
        "arguments": _arguments(m),
    }
    if op["arguments"].get("x-queue-type") == "quorum" and not m.wrong(0.1):
        op |= {"durable": True, "exclusive": False, "auto_delete": False}
    if name in m.queues and m.often(0.5):
        op = {**m.queues[name], "ch": m.channel()}  # the same again
    m.queues.setdefault(name, op)
    return op


def _arguments(m: Making) -> Op:
    if m.quorum and m.often(0.6):
        found: Op = {"x-queue-type": "quorum"}
        if m.often(0.5):
            found["x-delivery-limit"] = m.pick((0, 1, 2))
        if m.often(0.6):
            found |= _dead_letter(m)
            if m.often(0.3):
                found |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        if m.often(0.15):
            found["x-single-active-consumer"] = True
        if m.often(0.2):
            found["x-max-length"] = m.pick((1, 2, 5))
        if m.short and m.often(0.3):
            found["x-message-ttl"] = SHORT_MS
        return found
    found = {}
    if m.often(0.9 if m.round else 0.45):
        found |= _dead_letter(m)
    if m.often(0.3):
        found["x-max-length"] = m.pick((0, 1, 2, 3))
        if m.often(0.6):
            found["x-overflow"] = m.pick(("drop-head", "reject-publish", "reject-publish-dlx"))
    if m.often(0.08):
        found["x-max-length-bytes"] = m.pick((10, 40, 80))
    if m.often(0.2):
        found["x-max-priority"] = m.pick((1, 3, 10))
    if m.often(0.12):
        found["x-single-active-consumer"] = m.often(0.9)
    if m.often(0.2):
        found["x-message-ttl"] = m.pick((0, LONG_MS, *((SHORT_MS,) * 4 if m.short else ())))
    elif m.short and m.often(0.4):
        found["x-message-ttl"] = SHORT_MS
    if m.short and m.often(0.15):
        found["x-expires"] = SHORT_MS
    if m.wrong(0.15):
        found |= m.pick(BAD_ARGUMENTS)
    if m.often(0.05):
        found["x-unknown"] = "anything"
    return found


def _dead_letter(m: Making) -> Op:
    if m.round:
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": m.pick(("q0", "q1"))}
    if m.often(0.6):
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": m.pick(QUEUES[:3])}
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
    there = m.queues[m.pick(m.queues)]
    arguments = dict(there["arguments"])
    other = m.pick(
        (
            {"durable": not there["durable"]},
            {"auto_delete": not there["auto_delete"]},
            {"exclusive": not there["exclusive"]},
            {"arguments": {**arguments, "x-message-ttl": LONG_MS + 1}},
            {"arguments": {**arguments, "x-max-length": 77}},
            {"arguments": {**arguments, "x-dead-letter-exchange": "other"}},
            {"arguments": {**arguments, "x-queue-type": m.pick(("classic", "quorum"))}},
            {"arguments": {**arguments, "x-unknown": 5}},
            {"arguments": {}},
        )
    )
    return {**there, **other, "op": "declare_otherwise", "ch": m.channel()}


def delete_queue(m: Making) -> Op:
    name = m.queue()
    op = {
        "op": "delete_queue",
        "ch": m.channel(),
        "queue": name,
        "if_unused": m.often(0.4),
        "if_empty": m.often(0.4),
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


# -------------------------------------------------------------------------------------------------------- messages
def publish(m: Making) -> Op:
    m.made += 1
    properties: Op = {}
    if m.often(0.25):
        properties["priority"] = m.pick((0, 1, 2, 5, 9, 255))
    if m.often(0.4):
        properties["delivery_mode"] = m.pick((1, 2))
    if m.often(0.12):
        properties["expiration"] = m.pick(
            ("abc", "-1", "5x")
            if m.wrong(0.3)
            else ("0",) * 4 + (str(LONG_MS),) * 2 + (str(SHORT_MS),) * (4 if m.short else 0)
        )
    elif m.short and m.often(0.3):
        properties["expiration"] = str(SHORT_MS)
    if m.often(0.4):
        headers: Op = {h: m.pick((1, 2, "x", True)) for h in ("h", "i", "x-j") if m.often(0.5)}
        if m.often(0.2):
            headers["CC"] = "q1" if m.wrong(0.2) else m.pick((["q1"], ["k", "q2"], ["q0", "q1", "q0"]))
        if m.often(0.15):
            headers["BCC"] = m.pick((["q2"], ["q0", "a.b"]))
        if m.often(0.08):
            headers["x-death"] = m.pick(
                ("nonsense", [{"queue": "q0", "reason": "expired", "count": 3}], [{"queue": "q1"}])
            )
        properties["headers"] = headers
    if m.often(0.05):
        properties["user_id"] = "somebody" if m.wrong(0.5) else "guest"
    if m.often(0.15):
        properties |= {"content_type": "text/plain", "message_id": f"id{m.made}", "type": "t", "app_id": "a"}
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
        "properties": properties,
    }


def transaction(m: Making) -> Op:
    return {
        "op": "transaction",
        "connection": m.pick("ab"),
        "publishes": [{**publish(m), "count": 1} for _ in range(m.random.randint(1, 3))],
        "get": m.queue() if m.often(0.5) else None,
        "settle": m.pick(("ack", "nack", "reject")),
        "end": m.pick(("commit", "commit", "rollback", "close")),
    }


def get(m: Making) -> Op:
    channel, no_ack = m.channel(), m.often(0.25)
    if not no_ack:
        m.holders.append(channel)
    return {"op": "get", "ch": channel, "queue": m.queue(), "no_ack": no_ack}


def consume(m: Making) -> Op:
    channel = m.channel()
    tag = m.tags[-1][1] if m.tags and m.wrong(0.1) else f"t{len(m.tags)}"
    queue = m.reads.setdefault(channel, m.queue())
    m.tags.append((channel, tag, queue))
    m.holders.append(channel)
    arguments: Op = {}
    if m.often(0.25):
        arguments["x-priority"] = "high" if m.wrong(0.15) else m.pick((-1, 1, 5))
    return {
        "op": "consume",
        "ch": channel,
        "queue": queue,
        "tag": tag,
        "no_ack": m.often(0.15),
        "exclusive": m.often(0.06),
        "prefetch": m.pick((0, 1, 1, 2, 3)),
        "arguments": arguments,
    }


def cancel(m: Making) -> Op | None:
    """Not of a classic queue's single active consumer: while he is full, 3.10.8 serves nobody after him (see
    docs/reference-broker.md)."""
    tags = [
        (channel, tag)
        for channel, tag, queue in m.tags
        if "x-single-active-consumer" not in m.queues.get(queue, {}).get("arguments", ())
        or m.queues[queue]["arguments"].get("x-queue-type") == "quorum"
    ]
    if not tags:
        return None
    channel, tag = m.pick(tags)
    return {"op": "cancel", "ch": channel, "tag": tag}


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
    return {"op": "qos", "ch": m.channel(), "prefetch": m.pick((0, 1, 2, 5)), "whole_channel": m.often(0.3)}


# ----------------------------------------------------------------------------------------------------- connections
def close_channel(m: Making) -> Op:
    return {"op": "close_channel", "ch": m.channel()}


def cut(m: Making) -> Op:
    return {"op": "cut", "connection": m.pick("ab")}


def close_connection(m: Making) -> Op:
    return {"op": "close_connection", "connection": m.pick("ab")}


def wait(m: Making) -> Op | None:
    return None  # only where time matters: `program` puts it


# name → how often, and how one is made
OPERATIONS: Final[dict[str, tuple[float, Callable[[Making], Op | None]]]] = {
    "declare_queue": (4, declare_queue),
    "check_queue": (2, check_queue),
    "declare_otherwise": (0.5, declare_otherwise),
    "delete_queue": (1, delete_queue),
    "purge": (0.8, purge),
    "declare_exchange": (2, declare_exchange),
    "check_exchange": (0.6, check_exchange),
    "delete_exchange": (0.7, delete_exchange),
    "bind_queue": (5, bind_queue),
    "unbind_queue": (1, unbind_queue),
    "bind_exchange": (1.5, bind_exchange),
    "unbind_exchange": (0.7, unbind_exchange),
    "publish": (26, publish),
    "transaction": (2, transaction),
    "get": (9, get),
    "consume": (6, consume),
    "cancel": (1.2, cancel),
    "ack": (4, ack),
    "nack": (7, nack),
    "reject": (6, reject),
    "settle_unknown": (0.5, settle_unknown),
    "recover": (1.2, recover),
    "qos": (0.8, qos),
    "close_channel": (1.2, close_channel),
    "cut": (1.2, cut),
    "close_connection": (0.6, close_connection),
    "wait": (0, wait),
}
