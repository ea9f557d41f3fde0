"""`?management=` on a RabbitMQ with the plugin: what is handed out, what is delayed, whose limit refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

import unimq
from integration.rabbitmq.security import until
from integration.rabbitmq.sites import VHOST, RealSite
from unimq import Message, Queue, UnimqError
from unimq.errors import AuthenticationFailed, ConnectionFailed, PermissionDenied, Rejected, ResourceExhausted
from unimq.url import UrlError

REFUSED_WITHIN_S = 3.0
Name = Callable[[str], str]


def connect(site: RealSite, management: str | None = None, **options: Any) -> unimq.Client:
    return unimq.connect(site.url(management=management or site.management_url), **options)


def test_what_is_handed_out_and_what_is_delayed(real_site: RealSite, unique: Name) -> None:
    queue = Queue(unique("managed"))
    with unimq.connect(real_site.url()) as other:
        other.declare(queue)
        for number in range(5):
            other.send(queue, b"%d" % number)
        other.send(queue, Message(b"later", delay_s=600))
        assert other.stats(queue).in_flight is None
        with connect(real_site) as mq, other.receiver(queue, prefetch=3) as receiver:
            taken = [receiver.receive(timeout_s=20.0)[0] for _ in range(3)]
            # the plugin samples; AMQP's own numbers are of now
            until(lambda: mq.stats(queue).in_flight == 3, "3 in flight")
            seen = mq.stats(queue)
            assert (seen.depth, seen.consumers, seen.delayed, seen.dead) == (2, 1, 1, 0)
            for delivery in taken:
                delivery.ack()
            receiver.flush()


def test_a_queue_that_was_never_delayed_has_none(real_site: RealSite, unique: Name) -> None:
    queue = Queue(unique("never"))
    with connect(real_site) as mq:
        mq.declare(queue)
        assert mq.stats(queue).delayed == 0


def test_a_policy_that_limits_is_named_when_it_refuses(real_site: RealSite, unique: Name) -> None:
    queue = Queue(unique("limited"))
    limit = '{"max-length": 1, "overflow": "reject-publish"}'
    real_site.rabbitmqctl(
        "set_policy", "-p", VHOST, queue.name, f"^{queue.name}$", limit, "--apply-to", "queues"
    )
    said: list[str] = []

    def named() -> bool:
        """A queue that was just made is in no sample yet; a sender looks when it opens."""
        with connect(real_site) as mq:
            try:
                for _ in range(20):
                    mq.send(queue, b"x")
            except (ResourceExhausted, Rejected) as error:
                said.append(str(error))
        return "the queue is full" in said[-1]

    try:
        with unimq.connect(real_site.url()) as mq:
            mq.declare(queue, native={"x-queue-type": "classic"})
        until(named, "the policy is known")
        assert f"max-length 1 by the policy '{queue.name}'" in said[-1]
    finally:
        real_site.rabbitmqctl("clear_policy", "-p", VHOST, queue.name)


def test_a_limit_that_somebody_else_declared(real_site: RealSite, unique: Name) -> None:
    queue = Queue(unique("theirs"))
    with unimq.connect(real_site.url()) as other, connect(real_site) as mq:
        other.declare(queue, max_length=1)
        with pytest.raises(ResourceExhausted, match="max-length 1"):
            for _ in range(20):
                mq.send(queue, b"x")


@pytest.mark.parametrize(
    ("who", "error"), [("{user}:wrong", AuthenticationFailed), ("{second}:{password}", PermissionDenied)]
)
def test_a_login_of_its_own(real_site: RealSite, unique: Name, who: str, error: type[UnimqError]) -> None:
    second, password = unique("no-tag"), "marked-secret"
    real_site.rabbitmqctl("add_user", second, password)
    login = who.format(user=quote(real_site.user.name), second=second, password=password)
    queue = Queue(unique("own"))
    with connect(real_site, real_site.management_url.replace("//", f"//{login}@")) as mq:
        mq.declare(queue)
        mq.send(queue, b"sending goes on")
        started = time.monotonic()
        with pytest.raises(error) as caught:
            mq.stats(queue)
        assert time.monotonic() - started < REFUSED_WITHIN_S
        assert "marked-secret" not in f"{caught.value!r} {caught.value.cause!r} {mq!r}"


def test_nobody_there_and_nothing_that_could_be_there(real_site: RealSite, unique: Name) -> None:
    queue = Queue(unique("nobody"))
    with connect(real_site, "http://127.0.0.1:1") as mq:
        mq.declare(queue)
        mq.send(queue, b"sending goes on")
        with pytest.raises(ConnectionFailed, match="management"):
            mq.stats(queue)
    for wrong in ("ftp://127.0.0.1", "broker.example", "http://"):
        with pytest.raises(UrlError, match="management"):
            connect(real_site, wrong)
    with pytest.raises(UrlError, match="login of its own"):
        unimq.connect(real_site.external(management=real_site.management_url))
