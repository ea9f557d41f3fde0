"""Each variant of a native broker comes up, lets in who has what it asks for, and nobody else, within seconds.

`UNIMQ_SHORT=1` takes a few that have everything between them. A broker that has ended leaves no key behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest

import unimq
from integration.native import BROKERS, Authority, NativeBroker, make
from integration.native.security import Files, query
from unimq import Queue, UnimqError

SHORT = os.environ.get("UNIMQ_SHORT", "") not in ("", "0")
CONNECT_TIMEOUT_S = 5.0
REFUSED_WITHIN_S = CONNECT_TIMEOUT_S + 3.0
LIMIT_S = 120.0
ALL = [f"{name}+{words}" for name in BROKERS for words in ("tls", "mtls", "login", "tls+login")]
# RabbitMQ's are what all of `rabbitmq/test_security_rabbitmq.py` runs on
FEW = ["kafka+mtls+login", "artemis+mtls+login", "classic+mtls+login"]

pytestmark = pytest.mark.timeout(LIMIT_S, func_only=True)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates of a CA that nobody here trusts."""
    return Authority().equip(tmp_path_factory.mktemp("stranger") / "tls")


@pytest.fixture(params=FEW if SHORT else ALL)
def broker(
    request: pytest.FixtureRequest, authority: Authority, missing: Callable[[str, str], None]
) -> Iterator[NativeBroker]:
    made = make(request.param, authority)
    if reason := made.available():
        missing(made.name, reason)
    with made:
        yield made
        directory = made.directory
    assert not directory.exists()


def test_who_has_what_it_asks_for_comes_in(
    broker: NativeBroker, stranger: Files, unique: Callable[[str], str]
) -> None:
    queue = Queue(unique("variant"))
    with unimq.connect(broker.url, connect_timeout_s=CONNECT_TIMEOUT_S) as mq:
        mq.declare(queue)
        with mq.receiver(queue) as receiver:
            mq.send(queue, b"hello")
            (delivery,) = receiver.receive(timeout_s=20.0)
            assert delivery.body == b"hello"
            delivery.ack()
            receiver.flush()
    if broker.files is not None:
        keys = [broker.directory, broker.files.directory, broker.files.client_key, broker.files.server]
        assert not any(path.stat().st_mode & 0o077 for path in keys), "others can read the keys"
    for what, url in wrong(broker, stranger).items():
        started = time.monotonic()
        with pytest.raises(UnimqError) as caught:
            unimq.connect(url, connect_timeout_s=CONNECT_TIMEOUT_S).close()
        took_s = time.monotonic() - started
        print(f"  {broker.label}, {what}: {type(caught.value).__name__} after {took_s:.2f} s")
        assert took_s < REFUSED_WITHIN_S, what
        assert password_of(broker.url) not in f"{caught.value!r}"


def wrong(broker: NativeBroker, stranger: Files) -> dict[str, str]:
    """What is wrong → the broker's URL with that."""
    url, variant = broker.url, broker.variant
    parts = urlsplit(url)
    found: dict[str, str] = {}
    if variant.tls:
        assert broker.files is not None
        found["an unknown CA"] = url.replace(str(broker.files.ca), str(stranger.ca))
        found["no TLS"] = url.replace("s://", "://", 1).partition("?")[0]
    if variant.mtls:
        assert broker.files is not None
        without = query({"ca": str(broker.files.ca)})
        found["no certificate"] = url.partition("?")[0] + without
        found["a stranger's certificate"] = url.replace(
            str(broker.files.client_certificate), str(stranger.client_certificate)
        ).replace(str(broker.files.client_key), str(stranger.client_key))
    if variant.login:
        found["a wrong password"] = as_user(url, f"{parts.username}:wrong")
        found["the user that everybody knows"] = as_user(
            url, "guest:guest" if broker.name == "rabbitmq" else "admin:admin"
        )
    return found


def as_user(url: str, who: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{who}@{parts.netloc.rpartition('@')[2]}"))


def password_of(url: str) -> str:
    return urlsplit(url).password or "no password in the URL"
