"""Exchanges, queues, bindings and virtual hosts of a broker that was killed; what was not durable, or was deleted, stays gone."""

from __future__ import annotations

from tests.broker.engine.amqp_kit import drained, queue, send, taken
from unimq.wire.amqp091.table import Int8, Int64, Timestamp, encode_table

from .kit import PERSISTENT, Lives


def test_exchanges_queues_and_bindings_are_as_they_were(lives: Lives) -> None:
    on = lives.vhost
    arguments = {
        "x-message-ttl": Int64(60_000),
        "x-max-priority": Int8(5),
        "x-überflüssig": [True, None, 1.5],
    }
    queue(on, "q", arguments, durable=True)
    on.declare_exchange("other", "fanout", durable=True)
    on.declare_exchange(
        "e", "headers", durable=True, auto_delete=True, arguments={"alternate-exchange": "other"}
    )
    on.bind_queue("q", "e", "k", {"x-match": "any", "a": Int64(1), "when": Timestamp(5)})
    on.bind_exchange("e", "amq.topic", "#.x")
    on.bind_queue("q", "amq.topic", "gone")
    on.unbind_queue("q", "amq.topic", "gone")
    on = lives.end()
    assert encode_table(on.queues["q"].arguments) == encode_table(arguments)
    assert on.queues["q"].durable
    assert on.queues["q"].core.options.max_priority == 5
    found = on.exchanges["e"]
    assert (found.kind, found.durable, found.auto_delete, found.alternate) == ("headers", True, True, "other")
    (bound,) = found.bindings.values()
    assert bound.destination == ("queue", "q") and bound.key == "k"
    assert encode_table(bound.arguments) == encode_table(
        {"x-match": "any", "a": Int64(1), "when": Timestamp(5)}
    )
    assert [each.key for each in on.exchanges["amq.topic"].bindings.values()] == ["#.x"]
    # the same again is the same
    queue(on, "q", arguments, durable=True)


def test_what_is_not_durable_is_gone(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "transient")
    queue(on, "mine", durable=True, exclusive=True, connection="c")
    queue(on, "durable", durable=True)
    on.declare_exchange("e")
    on.declare_exchange("d", durable=True)
    on.bind_queue("durable", "e", "k")
    on.bind_queue("transient", "d", "k")
    on = lives.end()
    assert set(on.queues) == {"durable"}
    assert "e" not in on.exchanges and not on.exchanges["d"].bindings


def test_what_was_deleted_does_not_come_back(lives: Lives) -> None:
    on = lives.vhost
    for name in ("kept", "deleted"):
        queue(on, name, durable=True)
        on.declare_exchange(name, durable=True)
        on.bind_queue(name, "amq.direct", name)
        on.bind_exchange(name, "amq.fanout", "")
        send(on, name, name, **PERSISTENT)
    on = lives.end()
    on.delete_queue("deleted")
    on.delete_exchange("deleted")
    on = lives.end()
    assert set(on.queues) == {"kept"}
    assert drained(on, "kept") == ["kept"]
    assert [each.destination for each in on.exchanges["amq.direct"].bindings.values()] == [("queue", "kept")]
    assert [each.destination for each in on.exchanges["amq.fanout"].bindings.values()] == [
        ("exchange", "kept")
    ]
    assert "deleted" not in on.exchanges


def test_a_binding_is_unbound_with_its_arguments_in_another_order(lives: Lives) -> None:
    on = lives.vhost
    queue(on, "q", durable=True)
    on.bind_queue("q", "amq.headers", "", {"a": 1, "b": 2})
    lives.end().unbind_queue("q", "amq.headers", "", {"b": 2, "a": 1})
    assert not lives.end().exchanges["amq.headers"].bindings


def test_deleted_and_declared_again_between_two_commits(lives: Lives) -> None:
    queue(lives.vhost, "q", durable=True)
    send(lives.vhost, "q", "old", **PERSISTENT)
    on = lives.end()
    send(on, "q", "of the same turn", **PERSISTENT)
    on.delete_queue("q")
    queue(on, "q", {"x-max-length": 10}, durable=True)
    send(on, "q", "new", **PERSISTENT)
    on = lives.end()
    assert drained(on) == ["new"]
    assert on.queues["q"].arguments == {"x-max-length": 10}


def test_names_that_are_no_text(lives: Lives) -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    queue(lives.vhost, name, durable=True)
    lives.vhost.declare_exchange(name, "direct", durable=True)
    lives.vhost.bind_queue(name, name, name)
    send(lives.vhost, name, "m", name, **PERSISTENT)
    on = lives.end()
    entry = taken(on, name)
    assert (entry.stored.meta.exchange, entry.stored.meta.routing_keys) == (name, (name,))


def test_virtual_hosts_come_back_with_what_is_in_them(lives: Lives) -> None:
    other = lives.now.add_vhost("other")
    for on in (lives.vhost, other):
        queue(on, "q", durable=True)
        send(on, "q", on.name, **PERSISTENT)
    lives.end()
    assert [drained(lives.now.vhosts[name]) for name in ("/", "other")] == [["/"], ["other"]]
