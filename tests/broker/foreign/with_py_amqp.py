"""What py-amqp does with a broker, by itself. Rules as in `with_aio_pika.py`; a scenario is a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import amqp

from tests.broker.foreign.parts import Name, parts

WAIT_MAX_S: Final = 10.0

Scenario: TypeAlias = Callable[[Any, Name], None]


def _queue(channel: Any, name: str, **arguments: Any) -> str:
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    channel.queue_declare(name, exclusive=True, auto_delete=False, arguments=named)
    return name


def _send(channel: Any, queue: str, *bodies: str, **properties: Any) -> None:
    for body in bodies:
        channel.basic_publish_confirm(amqp.Message(body, **properties), routing_key=queue)


def _next(channel: Any, queue: str) -> Any:
    seen: list[Any] = []
    tag = channel.basic_consume(queue, callback=seen.append)
    while not seen:
        channel.connection.drain_events(timeout=WAIT_MAX_S)
    channel.basic_cancel(tag)
    return seen[0]


def _bodies(channel: Any, queue: str) -> list[str]:
    found = []
    while (message := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(message.body)
    return found


def confirmed_consumed_acknowledged(channel: Any, name: Name) -> None:
    queue = _queue(channel, name("q"))
    channel.basic_qos(0, 2, False)
    sent = [str(n) for n in range(5)]
    _send(channel, queue, *sent, application_headers={"n": 7, "text": "ü", "deep": {"list": [1, 2.5, True]}})
    seen: list[Any] = []

    def take(message: Any) -> None:
        seen.append(message)
        channel.basic_ack(message.delivery_tag)

    channel.basic_consume(queue, callback=take)
    while len(seen) < len(sent):
        channel.connection.drain_events(timeout=WAIT_MAX_S)
    assert [message.body for message in seen] == sent
    assert seen[0].headers == {"n": 7, "text": "ü", "deep": {"list": [1, 2.5, True]}}
    assert channel.queue_declare(queue, passive=True).message_count == 0


def rejected_into_the_dead_letter_queue(channel: Any, name: Name) -> None:
    dead = _queue(channel, name("dead"))
    queue = _queue(channel, name("q"), dead_letter_exchange="", dead_letter_routing_key=dead)
    _send(channel, queue, "bad")
    channel.basic_reject(_next(channel, queue).delivery_tag, requeue=False)
    died = _next(channel, dead)
    assert died.body == "bad"
    (death,) = died.headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == (queue, "rejected", 1)


def recovered_and_redelivered(channel: Any, name: Name) -> None:
    queue = _queue(channel, name("q"))
    _send(channel, queue, "again")
    assert not channel.basic_get(queue).delivery_info["redelivered"]
    channel.basic_recover(requeue=True)
    assert _next(channel, queue).delivery_info["redelivered"]


def a_time_to_live_ends(channel: Any, name: Name) -> None:
    dead = _queue(channel, name("dead"))
    queue = _queue(channel, name("q"), dead_letter_exchange="", dead_letter_routing_key=dead)
    _send(channel, queue, "old", expiration="20")
    died = _next(channel, dead)
    (death,) = died.headers["x-death"]
    assert (died.body, death["reason"], death["original-expiration"]) == ("old", "expired", "20")


def topics_are_routed(channel: Any, name: Name) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, "topic", auto_delete=True)
    queues = {pattern: _queue(channel, name(pattern)) for pattern in ("order.*.eu", "order.#")}
    for pattern, queue in queues.items():
        channel.queue_bind(queue, exchange, pattern)
    for key in ("order.new.eu", "order", "other.eu"):
        channel.basic_publish_confirm(amqp.Message(key), exchange, key)
    assert _bodies(channel, queues["order.*.eu"]) == ["order.new.eu"]
    assert _bodies(channel, queues["order.#"]) == ["order.new.eu", "order"]


def headers_are_routed(channel: Any, name: Name) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, "headers", auto_delete=True)
    queues = {match: _queue(channel, name(match)) for match in ("all", "any")}
    for match, queue in queues.items():
        channel.queue_bind(queue, exchange, "", arguments={"x-match": match, "a": 1, "b": "two"})
    for body, headers in (("both", {"a": 1, "b": "two"}), ("one", {"a": 1})):
        channel.basic_publish_confirm(amqp.Message(body, application_headers=headers), exchange, "k")
    assert _bodies(channel, queues["all"]) == ["both"]
    assert _bodies(channel, queues["any"]) == ["both", "one"]


def a_transaction(channel: Any, name: Name) -> None:
    queue = _queue(channel, name("q"))
    channel.tx_select()
    channel.basic_publish(amqp.Message("taken back"), routing_key=queue)
    channel.tx_rollback()
    channel.basic_publish(amqp.Message("kept"), routing_key=queue)
    assert channel.queue_declare(queue, passive=True).message_count == 0
    channel.tx_commit()
    message = channel.basic_get(queue)
    assert message.body == "kept"
    channel.basic_ack(message.delivery_tag)
    channel.tx_rollback()  # so it is not acknowledged
    channel.basic_recover(requeue=True)
    assert _next(channel, queue).delivery_info["redelivered"]


def the_unroutable_is_returned(channel: Any, name: Name) -> None:
    returned: list[Any] = []
    channel.events["basic_return"].add(lambda *args: returned.append(args))
    channel.basic_publish_confirm(amqp.Message("nowhere"), routing_key=name("nobody"), mandatory=True)
    ((error, exchange, key, message),) = returned
    assert (error.reply_code, exchange, key, message.body) == (312, "", name("nobody"), "nowhere")


def a_consumer_is_told_that_its_queue_is_gone(channel: Any, name: Name) -> None:
    queue = _queue(channel, name("q"))
    told: list[str] = []
    tag = channel.basic_consume(queue, on_cancel=told.append)
    channel.connection.channel().queue_delete(queue)
    while not told:
        channel.connection.drain_events(timeout=WAIT_MAX_S)
    assert told == [tag]


SCENARIOS: Final[tuple[Scenario, ...]] = (
    confirmed_consumed_acknowledged,
    rejected_into_the_dead_letter_queue,
    recovered_and_redelivered,
    a_time_to_live_ends,
    topics_are_routed,
    headers_are_routed,
    a_transaction,
    the_unroutable_is_returned,
    a_consumer_is_told_that_its_queue_is_gone,
)


def run(scenario: Scenario, url: str, name: Name) -> None:
    user, password, host = parts(url)
    with amqp.Connection(
        host, user, password, connect_timeout=WAIT_MAX_S, read_timeout=WAIT_MAX_S
    ) as connection:
        channel = connection.channel()
        scenario(channel, name)
