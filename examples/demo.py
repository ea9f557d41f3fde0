"""The same program on every broker: declare, send, receive, settle, retry by hand, dead-letter.

`make demo` runs it on memory://, on the reference broker, and on the broker at UNIMQ_URL if there is one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time

import unimq
import unimq.broker
from unimq import Message, Queue, Retry, Subscription, Topic, Unsupported


def main(url: str) -> None:
    started = time.perf_counter()
    with unimq.connect(url) as mq:
        print(f"{mq.capabilities.found or url.partition('://')[0]}")
        orders = Queue(f"demo.orders.{secrets.token_hex(4)}")
        mq.declare(orders)

        receipt = mq.send(orders, {"id": 1, "what": "tea"})
        print(f"  sent and confirmed     {receipt.message_id}")
        report = mq.send_many(orders, [Message({"id": n}, headers={"n": n}) for n in (2, 3)])
        report.raise_for_errors()
        print(f"  sent many              {report.sent}")

        with mq.receiver(orders, prefetch=10, retry=Retry(immediate=0, delayed_s=[0.5])) as receiver:
            done = 0
            for delivery in receiver:
                order = delivery.decode(dict)
                if order["id"] == 2 and delivery.attempt == 1:
                    delivery.retry(delay_s=0.5)
                    print("  order 2                to be retried after 0.5 s")
                elif order["id"] == 3:
                    delivery.dead_letter("rejected", "nobody drinks this")
                    print("  order 3                dead-lettered")
                    done += 1
                else:
                    delivery.ack()
                    print(f"  order {order['id']}                handled at try {delivery.attempt}")
                    done += 1
                if done == 3:
                    break
            receiver.flush()

        try:
            for letter in mq.dead_letters(orders).browse():
                print(f"  dead letter            {letter.body!r}: {letter.reason}, {letter.description}")
        except Unsupported as refused:
            print(f"  dead letters           cannot be browsed here: {refused}")

        events = Topic(f"demo.events.{secrets.token_hex(4)}")
        try:
            billing = Subscription(events, "billing", subjects=["order.*"])
            mq.declare(events)
            with mq.receiver(billing) as subscriber:
                mq.send(events, Message("paid", subject="order.paid"))
                mq.send(events, Message("hello", subject="chat.said"))
                with subscriber.receive(timeout_s=5)[0] as event:
                    print(f"  billing got            {event.decode(str)!r} ({event.subject})")
        except Unsupported as refused:
            print(f"  topics                 refused before a message moved: {refused}")
        for place in (orders, events):
            with contextlib.suppress(
                Unsupported
            ):  # where the broker has no such command, it tidies up by itself
                mq.delete(place)
    print(f"  all in                 {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main("memory://demo")
    with unimq.broker.run(amqp=0) as embedded:
        print("\nthe reference broker, over its real protocol:")
        main(embedded.urls["amqp"])
    if url := os.environ.get("UNIMQ_URL"):
        print("\nUNIMQ_URL:")
        main(url)
