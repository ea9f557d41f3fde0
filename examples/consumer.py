"""A plain consumer process: two handlers, retries, a dead-letter place, a health probe, a graceful stop.

    UNIMQ_URL=amqp://guest:guest@localhost/ python examples/consumer.py

SIGTERM finishes what is in hand; a second one hurries. The same file runs on every broker: only the URL differs.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass

from unimq import Delivery, Queue, Retry, Subscription, Topic, Worker

ORDERS = Queue("orders")
EVENTS = Topic("events")
AUDIT = Subscription(EVENTS, "audit", subjects=["order.#"])


@dataclass
class Order:
    id: int
    item: str


class OutOfStock(Exception):
    """Nobody can deliver that: trying again is of no use."""


worker = Worker(
    declare=[ORDERS, EVENTS],
    health_port=os.environ.get("HEALTH_PORT"),  # "127.0.0.1:8081", or none
)


@worker.handler(
    ORDERS,
    concurrency=8,
    retry=Retry(immediate=2, delayed_s=[5, 30, 300]),
    fatal=OutOfStock,
    timeout_s=30,
    to=EVENTS,
)
def on_order(order: Order, delivery: Delivery) -> dict[str, object]:
    """What is returned is sent to EVENTS, and confirmed, before the order is acknowledged."""
    if order.item == "unicorn":
        raise OutOfStock(order.item)
    print(f"order {order.id}: {order.item} (try {delivery.attempt})", flush=True)
    return {"order": order.id, "state": "accepted"}


@worker.handler(AUDIT)
async def on_event(event: dict[str, object]) -> None:
    print(f"audit: {event}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    sys.exit(worker.run())
