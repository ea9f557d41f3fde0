"""Dead letters as RabbitMQ writes them: x-death to the order of its keys, cycles, at least once."""

from __future__ import annotations

from typing import Any

from unimq.broker.engine.dialect import DIALECT_4
from unimq.broker.engine.limits import AT_LEAST_ONCE_RETRY_S
from unimq.wire.amqp091.table import Int64, Timestamp

from .amqp_kit import drained, headers, queue, quorum, refused, send, taken, vhost

TO_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def deaths(of: Any) -> list[list[tuple[str, Any]]]:
    return [list(death.items()) for death in headers(of)["x-death"]]


def test_the_first_death() -> None:
    on, clock = vhost()
    queue(on, "q", {**TO_DEAD})
    queue(on, "dead")
    send(on, "q", headers={"z": 1, "CC": ["more"], "a": 2}, expiration="1500", delivery_mode=2, priority=3)
    clock.advance(2)
    on.engine.tick()
    entry = taken(on, "dead")
    assert deaths(entry) == [
        [
            ("count", 1),
            ("reason", "expired"),
            ("queue", "q"),
            ("time", int(clock.now())),
            ("exchange", ""),
            ("routing-keys", ["q", "more"]),
            ("original-expiration", "1500"),
        ]
    ]
    first_death = [f"x-first-death-{name}" for name in ("exchange", "queue", "reason")]
    assert list(headers(entry)) == ["a", "x-death", *first_death, "z"]
    first = headers(entry)["x-death"][0]
    assert type(first["count"]) is Int64
    assert type(first["time"]) is Timestamp
    values = entry.stored.meta.properties.values
    assert "expiration" not in values
    assert (values["delivery_mode"], values["priority"]) == (2, 3)
    assert (entry.stored.meta.exchange, entry.stored.meta.routing_keys) == ("", ("dead",))


def test_its_own_keys_when_the_queue_names_none() -> None:
    on, _ = vhost()
    queue(on, "q", {"x-dead-letter-exchange": "dlx"})
    on.declare_exchange("dlx", "direct")
    for name in ("one", "two"):
        queue(on, name)
        on.bind_queue(name, "dlx", name)
    on.declare_exchange("e", "fanout")
    on.bind_queue("q", "e", "")
    send(on, "one", exchange="e", headers={"BCC": ["two"]})
    on.reject(on.find_queue("q"), [taken(on)])
    assert drained(on, "one") == ["m"]
    entry = taken(on, "two")
    assert headers(entry)["x-death"][0]["routing-keys"] == ["one"]  # BCC is nobody's business
    assert headers(entry)["x-first-death-exchange"] == "e"


def test_dying_again_counts_up_in_front_with_sorted_keys() -> None:
    on, _ = vhost()
    names = ("a", "b", "c")
    for name, following in zip(names, (*names[1:], names[0]), strict=True):
        queue(on, name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": following})
    send(on, "a")
    for name in names:
        on.reject(on.find_queue(name), [taken(on, name)])
    # three deaths: the two behind the newest have been turned round, as RabbitMQ's fold does it
    entry = taken(on, "a")
    assert [(death["queue"], death["count"]) for death in headers(entry)["x-death"]] == [
        ("c", 1),
        ("a", 1),
        ("b", 1),
    ]
    on.reject(on.find_queue("a"), [entry])
    entry = taken(on, "b")
    assert [(death["queue"], death["count"]) for death in headers(entry)["x-death"]] == [
        ("a", 2),
        ("b", 1),
        ("c", 1),
    ]
    assert list(headers(entry)["x-death"][0]) == [
        "count",
        "exchange",
        "queue",
        "reason",
        "routing-keys",
        "time",
    ]
    assert headers(entry)["x-first-death-queue"] == "a"


def test_what_a_client_says_of_deaths() -> None:
    said = [{"queue": "q", "reason": "rejected", "count": Int64(7)}]
    for dialect, count in ((None, 8), (DIALECT_4, 1)):
        on, _ = vhost() if dialect is None else vhost(dialect)
        queue(on, "q", TO_DEAD, durable=True)
        queue(on, "dead", durable=True)
        send(on, "q", headers={"x-death": said})
        on.reject(on.find_queue("q"), [taken(on)])
        assert headers(taken(on, "dead"))["x-death"][0]["count"] == count
    on, _ = vhost()
    queue(on, "q", TO_DEAD)
    queue(on, "dead")
    send(on, "q", headers={"x-death": "nonsense"})
    on.reject(on.find_queue("q"), [taken(on)])
    entry = taken(on, "dead")
    assert len(headers(entry)["x-death"]) == 1
    assert "x-first-death-queue" not in headers(entry)


def test_a_cycle_without_a_rejection_ends() -> None:
    on, clock = vhost()
    queue(on, "q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-message-ttl": 1000})
    send(on, "q")
    clock.advance(1.5)
    on.engine.tick()
    assert drained(on) == []
    assert on.engine.budget.held_bytes == 0
    send(on, "q")
    on.reject(on.find_queue("q"), [taken(on)])
    clock.advance(0.5)
    assert len(drained(on)) == 1  # a rejection is somebody's wish


def test_reasons_and_bounds() -> None:
    on, _ = vhost()
    queue(on, "dead")
    queue(on, "q", {**TO_DEAD, "x-max-length": 1})
    send(on, "q", "1")
    send(on, "q", "2")
    assert headers(taken(on, "dead"))["x-first-death-reason"] == "maxlen"
    queue(on, "full", {**TO_DEAD, "x-max-length": 1, "x-overflow": "reject-publish-dlx"})
    assert not send(on, "full", "1").refused
    assert send(on, "full", "2").refused
    assert headers(taken(on, "dead"))["x-first-death-queue"] == "full"
    quorum(on, "limited", dead_letter_exchange="", dead_letter_routing_key="dead", delivery_limit=1)
    send(on, "limited")
    limited = on.find_queue("limited")
    on.requeue(limited, [taken(on, "limited")])
    again = taken(on, "limited")
    assert limited.content(again).properties.headers == {"x-delivery-count": 1}
    on.requeue(limited, [again])
    entry = taken(on, "dead")
    assert headers(entry)["x-first-death-reason"] == "delivery_limit"
    assert "x-delivery-count" not in headers(entry)


def test_bytes_count_bodies_only() -> None:
    on, _ = vhost()
    queue(on, "q", {"x-max-length-bytes": 10})
    for body in ("12345", "67890", "x"):
        send(on, "q", body, headers={"long": "h" * 100})
    assert drained(on) == ["67890", "x"]


def test_a_missing_exchange_loses_it_at_most_once_and_keeps_it_at_least_once() -> None:
    on, clock = vhost()
    queue(on, "q", {"x-dead-letter-exchange": "none"})
    send(on, "q")
    on.reject(on.find_queue("q"), [taken(on)])
    assert on.find_queue("q").core.depth().total == 0
    safe = quorum(
        on,
        "safe",
        dead_letter_exchange="dlx",
        dead_letter_strategy="at-least-once",
        overflow="reject-publish",
    )
    send(on, "safe")
    on.reject(safe, [taken(on, "safe")])
    assert safe.core.depth().dead == 1
    on.declare_exchange("dlx", "fanout")
    clock.advance(AT_LEAST_ONCE_RETRY_S)
    on.engine.tick()
    assert safe.core.depth().dead == 1  # nowhere to go yet
    queue(on, "one")
    on.bind_queue("one", "dlx", "")
    queue(on, "two", {"x-max-length": 0, "x-overflow": "reject-publish"})
    on.bind_queue("two", "dlx", "")
    clock.advance(AT_LEAST_ONCE_RETRY_S)
    on.engine.tick()
    assert safe.core.depth().dead == 1  # one of two has it
    on.delete_queue("two")
    clock.advance(AT_LEAST_ONCE_RETRY_S)
    on.engine.tick()
    assert safe.core.depth().dead == 0
    assert drained(on, "one") == ["m"]  # and it has it once


def test_bad_expirations() -> None:
    on, _ = vhost()
    queue(on)
    for text, wrong in (
        ("abc", "no_integer"),
        ("5x", '{leftover_string,"x"}'),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ):
        with refused(406, f"invalid expiration '{text}': {wrong}"):
            send(on, "q", expiration=text)
    with refused(406, "user_id property set to 'somebody' but authenticated user was 'guest'"):
        send(on, "q", user_id="somebody")
    assert drained(on) == []
