"""What kombu does with a broker, by itself. Rules as in `with_aio_pika.py`; a scenario is a function over a connection.

Queues expire: what kombu calls exclusive would go with its first consumer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from kombu import Connection, Consumer, Exchange, Producer, Queue

from tests.broker.foreign.parts import Name

WAIT_MAX_S: Final = 10.0
UNUSED_MAX_S: Final = 60

Scenario: TypeAlias = Callable[[Any, Name], None]


def _queue(connection: Any, name: str, exchange: Any = None, key: str = "", **options: Any) -> Any:
    queue = Queue(name, exchange, key, expires=UNUSED_MAX_S, **options)
    queue(connection.default_channel).declare()
    return queue


def _send(connection: Any, queue: Any, *bodies: Any, **options: Any) -> None:
    producer = Producer(connection.default_channel)
    for body in bodies:
        producer.publish(body, routing_key=queue.name, **options)


def _take(connection: Any, queue: Any, count: int) -> list[Any]:
    seen: list[Any] = []
    with Consumer(connection.default_channel, [queue], on_message=seen.append):
        while len(seen) < count:
            connection.drain_events(timeout=WAIT_MAX_S)
    return seen


def _next(connection: Any, queue: Any) -> Any:
    return _take(connection, queue, 1)[0]


def _bodies(connection: Any, queue: Any) -> list[Any]:
    found = []
    while (message := queue(connection.default_channel).get(no_ack=True)) is not None:
        found.append(message.decode())
    return found


def confirmed_consumed_acknowledged(connection: Any, name: Name) -> None:
    queue = _queue(connection, name("q"))
    _send(connection, queue, *({"n": n} for n in range(5)), headers={"text": "ü"}, delivery_mode=2)
    seen: list[Any] = []

    def take(body: Any, message: Any) -> None:
        assert message.headers["text"] == "ü"
        seen.append(body)
        message.ack()

    with Consumer(connection.default_channel, [queue], callbacks=[take], prefetch_count=2):
        while len(seen) < 5:
            connection.drain_events(timeout=WAIT_MAX_S)
    assert seen == [{"n": n} for n in range(5)]
    assert queue(connection.default_channel).queue_declare(passive=True).message_count == 0


def rejected_into_the_dead_letter_queue(connection: Any, name: Name) -> None:
    dead = _queue(connection, name("dead"))
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name}
    queue = _queue(connection, name("q"), queue_arguments=arguments)
    _send(connection, queue, "bad")
    _next(connection, queue).reject()
    died = _next(connection, dead)
    assert died.decode() == "bad"
    assert died.headers["x-death"][0]["reason"] == "rejected"
    died.ack()


def released_and_redelivered(connection: Any, name: Name) -> None:
    queue = _queue(connection, name("q"))
    _send(connection, queue, "again")
    _next(connection, queue).requeue()
    assert _next(connection, queue).delivery_info["redelivered"]


def a_time_to_live_ends(connection: Any, name: Name) -> None:
    dead = _queue(connection, name("dead"))
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name}
    by_queue = _queue(connection, name("by-queue"), message_ttl=0.02, queue_arguments=arguments)
    by_message = _queue(connection, name("by-message"), queue_arguments=arguments)
    _send(connection, by_queue, "of the queue")
    _send(connection, by_message, "of the message", expiration=0.02)
    died = _take(connection, dead, 2)
    assert {message.decode() for message in died} == {"of the queue", "of the message"}
    assert {message.headers["x-death"][0]["reason"] for message in died} == {"expired"}


def topics_are_routed(connection: Any, name: Name) -> None:
    exchange = Exchange(name("x"), "topic", durable=False, auto_delete=True)
    queues = {key: _queue(connection, name(key), exchange, key) for key in ("order.*.eu", "order.#")}
    producer = Producer(connection.default_channel, exchange)
    for key in ("order.new.eu", "order", "other.eu"):
        producer.publish(key, routing_key=key)
    assert _bodies(connection, queues["order.*.eu"]) == ["order.new.eu"]
    assert _bodies(connection, queues["order.#"]) == ["order.new.eu", "order"]


def headers_are_routed(connection: Any, name: Name) -> None:
    exchange = Exchange(name("x"), "headers", durable=False, auto_delete=True)
    wanted = {"a": 1, "b": "two"}
    every, some = (
        _queue(connection, name(match), exchange, binding_arguments={"x-match": match, **wanted})
        for match in ("all", "any")
    )
    producer = Producer(connection.default_channel, exchange)
    producer.publish("both", headers=wanted)
    producer.publish("one", headers={"a": 1})
    assert _bodies(connection, every) == ["both"]
    assert _bodies(connection, some) == ["both", "one"]


def the_unroutable_is_returned(connection: Any, name: Name) -> None:
    returned: list[Any] = []
    producer = Producer(connection.default_channel, on_return=lambda *args: returned.append(args))
    producer.publish("nowhere", routing_key=name("nobody"), mandatory=True)
    while not returned:
        connection.drain_events(timeout=WAIT_MAX_S)
    ((error, _, key, _message),) = returned
    assert (error.reply_code, key) == (312, name("nobody"))


def a_consumer_is_told_that_its_queue_is_gone(connection: Any, name: Name) -> None:
    queue = _queue(connection, name("q"))
    consumer = Consumer(connection.default_channel, [queue], on_message=print)
    consumer.consume()
    try:
        queue(connection.channel()).delete()  # the client may hear of it in here, or later
        connection.drain_events(timeout=WAIT_MAX_S)
    except connection.connection_errors as error:
        assert type(error).__name__ == "ConsumerCancelled"
    else:
        raise AssertionError("the consumer was not told")


SCENARIOS: Final[tuple[Scenario, ...]] = (
    confirmed_consumed_acknowledged,
    rejected_into_the_dead_letter_queue,
    released_and_redelivered,
    a_time_to_live_ends,
    topics_are_routed,
    headers_are_routed,
    the_unroutable_is_returned,
    a_consumer_is_told_that_its_queue_is_gone,
)


def run(scenario: Scenario, url: str, name: Name) -> None:
    with Connection(
        url, transport_options={"confirm_publish": True}, connect_timeout=WAIT_MAX_S
    ) as connection:
        scenario(connection, name)
