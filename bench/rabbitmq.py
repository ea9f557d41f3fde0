"""The rows for RabbitMQ.

Rules
- Both sides use one durable *classic* queue, persistent messages, mandatory, 1 KB. A quorum queue is what unimq creates by
  itself; here it would measure the broker's log and its disk, in bursts, and hide the client that is to be measured.
- The queue is emptied, or filled with what a run takes, before each run and outside of the clock. It ends with the session.
- After each run the broker is asked how many messages there are: all of them, or none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pika

from bench import others, ours
from bench.machine import version
from bench.raw import pika_blocking, pika_consume, pika_publish
from bench.session import BenchFailed, Row
from bench.stats import Run, Target
from unimq import Queue

BODY: Final = bytes(range(256)) * 4
HEADERS: Final = {"source": "bench", "try": 1}
PREFETCH: Final = 200
LEAD: Final = 1_000  # messages received before the clock starts
WINDOW: Final = pika_publish.WINDOW
UNUSED_MAX_S: Final = 4 * 3600  # then the broker deletes a queue whose session was killed
COUNT_LIMIT_S: Final = 5.0  # a queue counts what was just confirmed or acked a moment later
CONNECTS: Final = 10
IMPORTS: Final = 1
RECEIVERS: Final = 10
DISTRIBUTIONS: Final = ("pika", "faststream", "aio-pika", "kombu", "amqp")
STRANGERS: Final = ("pika", "confluent_kafka", "stomp", "azure.servicebus")


@contextmanager
def rows(url: str) -> Iterator[list[Row]]:
    """The rows, on a queue that lives as long as this."""
    name = f"unimq-bench-{secrets.token_hex(4)}"
    with Place(url, name) as place:
        yield _rows(url, place)


class Place:
    """The queue of a session, and what is done to it between runs."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.queue = Queue(name)

    def _with_channel(self, work: Callable[[Any], object]) -> None:
        # A connection for each: one that stays would miss its heartbeats while nobody drives it.
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            work(connection.channel())

    def __enter__(self) -> Place:
        arguments = {"x-queue-type": "classic", "x-expires": UNUSED_MAX_S * 1000}
        self._with_channel(
            lambda channel: channel.queue_declare(self.name, durable=True, arguments=arguments)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._with_channel(lambda channel: channel.queue_delete(self.name))

    def empty(self) -> None:
        self._with_channel(lambda channel: channel.queue_purge(self.name))

    def fill(self, count: int) -> None:
        self.empty()
        pika_publish.publish(self.url, self.name, BODY, count)

    def _holds(self, count: int) -> None:
        """The broker's own count, after the links are closed: what a client says of itself is not believed."""
        deadline = time.monotonic() + COUNT_LIMIT_S
        found: list[int] = [-1]

        def look(channel: Any) -> None:
            answer = channel.queue_declare(self.name, passive=True)
            found[0] = answer.method.message_count

        while found[0] != count:
            if time.monotonic() > deadline:
                raise BenchFailed(f"the queue holds {found[0]} messages, not {count}")
            self._with_channel(look)

    def emptied(self, work: Callable[[int], Run]) -> Callable[[int], Run]:
        def contender(count: int) -> Run:
            self.empty()
            run = work(count)
            self._holds(count)
            return run

        return contender

    def filled(self, work: Callable[[int], Run]) -> Callable[[int], Run]:
        def contender(count: int) -> Run:
            self.fill(LEAD + count)
            run = work(count)
            self._holds(0)
            return run

        return contender


def _rows(url: str, place: Place) -> list[Row]:
    name, queue = place.name, place.queue
    size = len(BODY)
    publish = place.emptied(lambda n: pika_publish.publish(url, name, BODY, n))
    publish_headers = place.emptied(lambda n: pika_publish.publish(url, name, BODY, n, HEADERS))
    publish_each = place.emptied(lambda n: pika_blocking.publish_each(url, name, BODY, n))

    def consume(ack_every: int = 1) -> Callable[[int], Run]:
        return place.filled(
            lambda n: pika_consume.consume(
                url, name, LEAD, n, prefetch=PREFETCH, body_bytes=size, ack_every=ack_every
            )
        )

    def receive(many: bool) -> Callable[[int], Run]:
        return place.filled(
            lambda n: ours.receive_and_ack(url, queue, LEAD, n, prefetch=PREFETCH, body_bytes=size, many=many)
        )

    def worker(is_async: bool) -> Callable[[int], Run]:
        return place.filled(
            lambda n: ours.work(url, queue, LEAD, n, prefetch=PREFETCH, body_bytes=size, is_async=is_async)
        )

    gathered = place.emptied(lambda n: ours.gathered_sends(url, queue, BODY, n, WINDOW))
    select_publish = f"SelectConnection, confirms pipelined, window {WINDOW:,}"
    select_consume = f"SelectConnection, prefetch {PREFETCH}, an ack per message"
    found = [
        Row(
            "send_many",
            "send_many",
            select_publish,
            place.emptied(lambda n: ours.send_many(url, queue, BODY, n)),
            publish,
            Target(ratio_min=0.95),
        ),
        Row(
            "send_many_headers",
            "send_many, two headers on each message",
            f"{select_publish}, the same headers",
            place.emptied(lambda n: ours.send_many(url, queue, BODY, n, HEADERS)),
            publish_headers,
            Target(ratio_min=0.95),
        ),
        Row(
            "submit",
            f"submit, window {WINDOW:,}, each outcome read",
            select_publish,
            place.emptied(lambda n: ours.submit(url, queue, BODY, n)),
            publish,
            Target(ratio_min=0.95),
        ),
        Row(
            "receive_ack",
            f"receive and ack of each, prefetch {PREFETCH}",
            select_consume,
            receive(many=False),
            consume(),
            Target(ratio_min=0.95),
        ),
        Row(
            "ack_many",
            f"receive and receiver.ack(list), prefetch {PREFETCH}",
            select_consume,
            receive(many=True),
            consume(),
            Target(ratio_min=1.05),
        ),
        Row(
            "ack_many_multiple",
            f"receive and receiver.ack(list), prefetch {PREFETCH}",
            f"SelectConnection, prefetch {PREFETCH}, one ack(multiple) for each {ours.PER_RECEIVE}; for comparison only",
            receive(many=True),
            consume(ours.PER_RECEIVE),
        ),
        Row(
            "send_each",
            "one send at a time",
            "BlockingConnection, confirm_delivery",
            place.emptied(lambda n: ours.send_each(url, queue, BODY, n)),
            publish_each,
            Target(ratio_min=0.9),
            slow=True,
        ),
        Row(
            "async_send",
            f"async, {WINDOW:,} awaited sends gathered, a task each",
            select_publish,
            gathered,
            publish,
            Target(ratio_min=0.85),
        ),
        Row(
            "async_receive_1",
            f"async, await receive(1) and ack, prefetch {PREFETCH}",
            select_consume,
            place.filled(lambda n: ours.receive_one_async(url, queue, LEAD, n, prefetch=PREFETCH)),
            consume(),
            Target(per_s_min=20_000),
            facts=lambda: ours.threads_per_receiver(url, queue, RECEIVERS),
        ),
        Row(
            "worker",
            f"a worker's handler that does nothing, sync, concurrency 1, prefetch {PREFETCH}",
            select_consume,
            worker(is_async=False),
            consume(),
        ),
        Row(
            "worker_async",
            f"a worker's handler that does nothing, async, concurrency 1, prefetch {PREFETCH}",
            select_consume,
            worker(is_async=True),
            consume(),
        ),
        Row(
            "connect",
            "connect() and the first confirmed send",
            "BlockingConnection, confirm_delivery, one basic_publish",
            place.emptied(lambda n: ours.connect_and_send(url, queue, BODY, n)),
            place.emptied(lambda n: pika_blocking.connect_and_publish(url, name, BODY, n)),
            Target(ratio_min=1 / 1.3),
            count=CONNECTS,
        ),
        Row(
            "import",
            "import unimq, no client library loaded",
            "import pika",
            lambda n: ours.import_time("unimq", n, STRANGERS),
            lambda n: ours.import_time("pika", n),
            Target(wall_max_s=0.080),
            count=IMPORTS,
        ),
    ]
    if others.installed("faststream.rabbit"):
        found.append(
            Row(
                "async_send_faststream",
                f"async, {WINDOW:,} awaited sends gathered, a task each",
                f"FastStream {version('faststream')} on aio-pika {version('aio-pika')}, the same",
                gathered,
                place.emptied(lambda n: others.faststream_gathered(url, name, BODY, n, WINDOW)),
                Target(ratio_min=3.0),
                slow=True,
            )
        )
        found.append(
            Row(
                "worker_faststream",
                f"a worker's handler that does nothing, async, concurrency 1, prefetch {PREFETCH}",
                f"FastStream {version('faststream')} on aio-pika {version('aio-pika')}, a subscriber that does nothing",
                worker(is_async=True),
                place.filled(
                    lambda n: others.faststream_consume(
                        url, name, LEAD, n, prefetch=PREFETCH, body_bytes=size
                    )
                ),
                slow=True,
            )
        )
    if others.installed("kombu"):
        found.append(
            Row(
                "send_each_kombu",
                "one send at a time",
                f"Kombu {version('kombu')} on py-amqp {version('amqp')}, confirm_publish; for comparison only",
                place.emptied(lambda n: ours.send_each(url, queue, BODY, n)),
                place.emptied(lambda n: others.kombu_each(url, name, BODY, n)),
                slow=True,
            )
        )
    return found


LEFT_OUT: Final = {
    "async_send_faststream": "faststream[rabbit]",
    "worker_faststream": "faststream[rabbit]",
    "send_each_kombu": "kombu",
}
