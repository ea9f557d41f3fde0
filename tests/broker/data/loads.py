"""The clients of `killing.py`: pika as anybody would use it, and unimq, which connects again by itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import pika
import pika.exceptions

import unimq

from .killing import CLASSIC, DEAD, EXCHANGE, LOOK_S, QUORUM, STOP_MAX_S, Ledger, is_rejected

PUBLISHERS: Final = 3
PREFETCH: Final = 40
HELD: Final = 20  # what a reader takes in hand before he has seen any of it
WINDOW: Final = 200
RETRIES_MAX: Final = 1_000  # a message that was out at every kill is still no dead letter
IDLE_S: Final = 0.05

Channel: TypeAlias = Any  # pika has no types


class Threads:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.publishing_ended = threading.Event()
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def add(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # carried to the test's thread
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop_publishing(self) -> None:
        self.publishing_ended.set()

    def stop(self) -> None:
        self.publishing_ended.set()
        self.ended.set()
        for thread in self._threads:
            thread.join(STOP_MAX_S)
            assert not thread.is_alive(), "a client did not end"
        assert not self.errors, self.errors


def declare(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "fanout", durable=True)
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
        channel.queue_declare(CLASSIC, durable=True, arguments=dead)
        channel.queue_declare(QUORUM, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare(DEAD, durable=True)
        for name in (CLASSIC, QUORUM):
            channel.queue_bind(name, EXCHANGE)


def settle(channel: Channel, queue: str, ledger: Ledger, held: list[tuple[int, int]]) -> None:
    for tag, number in held:
        ledger.see(queue, number)
        if queue == CLASSIC and is_rejected(number):
            channel.basic_reject(tag, requeue=False)
        else:
            channel.basic_ack(tag)


class PikaLoad(Threads):
    def start(self, url: str, ledger: Ledger) -> None:
        declare(url)
        for _ in range(PUBLISHERS):
            self.add(lambda: self._publish(url, ledger))
        for name in ledger.seen:
            self.add(lambda name=name: self._read(url, ledger, name))  # type: ignore[misc]

    def _channels(self, url: str, ended: threading.Event) -> Iterator[Channel]:
        """A new one whenever the last is of no use any more."""
        while not ended.is_set():
            try:
                with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                    yield connection.channel()
            except pika.exceptions.AMQPError:
                ended.wait(LOOK_S)

    def _publish(self, url: str, ledger: Ledger) -> None:
        for channel in self._channels(url, self.publishing_ended):
            try:
                channel.confirm_delivery()
                while not self.publishing_ended.is_set():
                    number = ledger.next_number()
                    channel.basic_publish(EXCHANGE, "", b"%d" % number, pika.BasicProperties(delivery_mode=2))
                    ledger.confirm(number)
            except pika.exceptions.AMQPError:
                continue

    def _read(self, url: str, ledger: Ledger, queue: str) -> None:
        for channel in self._channels(url, self.ended):
            try:
                channel.basic_qos(prefetch_count=PREFETCH)
                held: list[tuple[int, int]] = []
                for method, _, body in channel.consume(queue, inactivity_timeout=IDLE_S):
                    if self.ended.is_set():
                        break
                    if method is not None:
                        held.append((method.delivery_tag, int(body)))
                    if method is None or len(held) == HELD:
                        settle(channel, queue, ledger, held)
                        held = []
            except pika.exceptions.AMQPError:
                continue


class UnimqLoad(Threads):
    """One client; a window of messages under way."""

    def start(self, url: str, ledger: Ledger) -> None:
        declare(url)
        self._client = unimq.connect(url, topology="assume")
        self.add(lambda: self._publish(ledger))
        for name in ledger.seen:
            self.add(lambda name=name: self._read(ledger, name))  # type: ignore[misc]

    def stop(self) -> None:
        super().stop()
        self._client.close()

    def _publish(self, ledger: Ledger) -> None:
        under_way: deque[tuple[int, unimq.Pending]] = deque()
        with self._client.sender(unimq.Topic(EXCHANGE)) as sender:
            while under_way or not self.publishing_ended.is_set():
                if len(under_way) < WINDOW and not self.publishing_ended.is_set():
                    number = ledger.next_number()
                    try:
                        under_way.append((number, sender.submit(unimq.Message(b"%d" % number))))
                    except unimq.UnimqError:  # not sent: nobody waits for it
                        self.publishing_ended.wait(LOOK_S)
                    continue
                number, pending = under_way.popleft()
                try:
                    pending.result(STOP_MAX_S)
                except unimq.UnimqError:  # unknown or refused: it may be lost
                    continue
                ledger.confirm(number)

    def _read(self, ledger: Ledger, queue: str) -> None:
        receiver = self._client.receiver(
            unimq.Queue(queue),
            prefetch=PREFETCH,
            retry=unimq.Retry(immediate=RETRIES_MAX, delayed_s=[]),
            dead_letter=unimq.Queue(DEAD) if queue == CLASSIC else None,
            on_settlement_lost=lambda _: None,
        )
        with receiver:
            while not self.ended.is_set():
                try:
                    found = receiver.receive(PREFETCH, timeout_s=IDLE_S)
                except unimq.ConnectionFailed:  # down; it comes back by itself
                    continue
                for delivery in found:
                    number = int(delivery.body or b"")
                    ledger.see(queue, number)
                    if queue == CLASSIC and is_rejected(number):
                        delivery.dead_letter("rejected", "every seventh")
                    else:
                        delivery.ack()
