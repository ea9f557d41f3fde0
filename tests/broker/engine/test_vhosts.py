"""Virtual hosts of one engine share nothing: the same names mean different things in each."""

from __future__ import annotations

import pytest

from unimq.broker.engine import Engine, ManualClock
from unimq.broker.engine.limits import AT_LEAST_ONCE_RETRY_S
from unimq.broker.engine.vhost import VHost

from .amqp_kit import Reader, drained, headers, queue, quorum, refused, send, taken

Hosts = tuple[VHost, VHost, VHost]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hosts(clock: ManualClock) -> Hosts:
    engine = Engine(clock, seed=1)
    return VHost(engine, "/"), VHost(engine, "a"), VHost(engine, "a/b")


def test_one_name_three_queues(hosts: Hosts) -> None:
    for number, host in enumerate(hosts):
        assert queue(host, "q", {"x-max-length": 10 + number}).name == "q"
        send(host, "q", host.name)
    assert [drained(host) for host in hosts] == [["/"], ["a"], ["a/b"]]
    hosts[1].delete_queue("q")
    send(hosts[0], "q", "still there")
    assert drained(hosts[0]) == ["still there"]
    with refused(404, "no queue 'q' in vhost 'a'"):
        hosts[1].find_queue("q")


def test_no_name_leads_into_another_vhost(hosts: Hosts) -> None:
    root, a, _ = hosts
    queue(a, "q")
    queue(root, "a\nq")  # loses its line feed
    queue(root, "a/q")
    queue(root, "a\0q")
    assert set(root.queues) == {"aq", "a/q", "a\0q"}
    for name in ("a\nq", "a/q", "a\0q"):
        send(root, name, "m")
    assert drained(a) == []


def test_what_is_not_the_same_is_compared_in_its_own_vhost(hosts: Hosts) -> None:
    root, a, _ = hosts
    queue(root, "q", durable=True)
    queue(a, "q")
    with refused(
        406, "inequivalent arg 'durable' for queue 'q' in vhost 'a': received 'true' but current is 'false'"
    ):
        queue(a, "q", durable=True)


def test_exclusive(hosts: Hosts) -> None:
    root, a, _ = hosts
    queue(root, "q", exclusive=True, connection="of root")
    queue(a, "q", exclusive=True, connection="of a")
    a.drop_connection("of a")
    assert "q" not in a.queues
    assert root.find_queue("q", connection="of root").name == "q"


def test_auto_delete_and_expiry(hosts: Hosts, clock: ManualClock) -> None:
    root, a, _ = hosts
    for host in (root, a):
        queue(host, "auto", auto_delete=True)
        queue(host, "expires", {"x-expires": 60_000})
    reader = Reader()
    a.consume("auto", reader)
    a.cancel(reader)
    clock.advance(30)
    root.counts(root.queues["expires"])
    clock.advance(30)
    root.engine.tick()
    assert set(a.queues) == set()
    assert set(root.queues) == {"auto", "expires"}


def test_dead_letters_stay_in_their_vhost(hosts: Hosts) -> None:
    root, a, _ = hosts
    for host in (root, a):
        queue(host, "q", {"x-dead-letter-exchange": "dlx", "x-message-ttl": 1000})
        queue(host, "dead")
        host.declare_exchange("dlx", "fanout")
        host.bind_queue("dead", "dlx", "")
    send(a, "q", "m")
    a.reject(a.queues["q"], [taken(a)])
    assert drained(root, "dead") == []
    entry = taken(a, "dead")
    (death,) = headers(entry)["x-death"]
    assert (death["queue"], headers(entry)["x-first-death-queue"]) == ("q", "q")


def test_a_cycle_and_an_at_least_once_dead_letter_in_a_vhost(hosts: Hosts, clock: ManualClock) -> None:
    _, a, _ = hosts
    queue(
        a,
        "round",
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "round", "x-message-ttl": 1000},
    )
    send(a, "round", "m")
    clock.advance(2)
    a.engine.tick()
    assert drained(a, "round") == []  # seen as a cycle
    dead_letter = {"dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}
    quorum(a, "q", dead_letter_exchange="", dead_letter_routing_key="dead", **dead_letter)
    send(a, "q", "m")
    a.reject(a.queues["q"], [taken(a)])
    queue(a, "dead")
    clock.advance(AT_LEAST_ONCE_RETRY_S)
    a.engine.tick()
    assert drained(a, "dead") == ["m"]


def test_alternate_exchange_and_bindings(hosts: Hosts) -> None:
    root, a, _ = hosts
    for host in (root, a):
        host.declare_exchange("e", "direct", arguments={"alternate-exchange": "other"})
        host.declare_exchange("other", "fanout")
        queue(host, "q")
        host.bind_queue("q", "other", "")
    send(a, "nowhere", "m", "e")
    assert (drained(root), drained(a)) == ([], ["m"])


def test_replies_go_to_the_vhost_that_waits_for_them(hosts: Hosts) -> None:
    root, a, _ = hosts
    got: list[bytes | None] = []
    a.reply_to["amq.rabbitmq.reply-to.x"] = lambda stored: got.append(stored.body)
    send(root, "amq.rabbitmq.reply-to.x", "lost")
    send(a, "amq.rabbitmq.reply-to.x", "answer")
    assert got == [b"answer"]
