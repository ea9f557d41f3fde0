"""The fixed list of operations, and programs of them made from a seed.

Rules
- A program follows from its seed and its length alone.
- Where time matters ("short"), a `wait` follows within a few operations: by then everything short is over, and nothing in
  between can tell how fast the machine is. The executor measures that this holds.
- What the programs keep away from is in the known differences of docs/reference-broker.md, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from . import messages, topology
from .making import Making, Op

OPS_BETWEEN_WAITS: Final = 5


def wait(m: Making) -> Op | None:
    return None  # only where time matters: `program` puts it


# name → how often, and how one is made
OPERATIONS: Final[dict[str, tuple[float, Callable[[Making], Op | None]]]] = {
    "declare_queue": (4, topology.declare_queue),
    "check_queue": (2, topology.check_queue),
    "declare_otherwise": (0.7, topology.declare_otherwise),
    "delete_queue": (1.3, topology.delete_queue),
    "purge": (0.8, topology.purge),
    "declare_exchange": (2, topology.declare_exchange),
    "check_exchange": (0.6, topology.check_exchange),
    "delete_exchange": (0.7, topology.delete_exchange),
    "bind_queue": (5, topology.bind_queue),
    "unbind_queue": (1, topology.unbind_queue),
    "bind_exchange": (1.5, topology.bind_exchange),
    "unbind_exchange": (0.7, topology.unbind_exchange),
    "publish": (26, messages.publish),
    "transaction": (2.5, messages.transaction),
    "get": (9, messages.get),
    "consume": (6, messages.consume),
    "cancel": (1.2, messages.cancel),
    "ack": (4, messages.ack),
    "nack": (7, messages.nack),
    "reject": (6, messages.reject),
    "settle_unknown": (0.6, messages.settle_unknown),
    "recover": (1.2, messages.recover),
    "qos": (1.2, messages.qos),
    "close_channel": (1.2, messages.close_channel),
    "cut": (1.2, messages.cut),
    "close_connection": (0.6, messages.close_connection),
    "wait": (0, wait),
}


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
        making.ops.append(topology.declare_queue(making))
    making.focus = tuple(making.queues)[:2]
    making.ops.append(topology.declare_exchange(making))
    making.ops.append(topology.bind_queue(making))
    if random.random() < 0.5 and (first := messages.consume(making)) is not None:
        making.ops.append(first)
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
