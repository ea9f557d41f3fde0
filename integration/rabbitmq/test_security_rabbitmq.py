"""TLS, certificates, passwords and tokens on a real RabbitMQ and on the reference broker; the cases are in `security.py`.

`UNIMQ_SHORT=1` leaves the reference broker to `tests/broker/sessions/test_security.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

import unimq
from integration.proofs.kit import SHORT
from integration.rabbitmq.security import Cases, until
from integration.rabbitmq.sites import TOKEN_USER, RealSite, ReferenceSite, Site
from unimq import Queue, UnimqError
from unimq.driver import Token
from unimq.errors import AuthenticationFailed


@pytest.fixture(scope="module", params=["rabbitmq"] if SHORT else ["rabbitmq", "reference"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "reference":
        with ReferenceSite(tmp_path_factory.mktemp("reference")) as reference:
            yield reference
    else:
        yield request.getfixturevalue("real_site")


class TestSecurity(Cases):
    pass


def test_a_token_that_ended_is_said_and_its_links_come_back(
    real_site: RealSite, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ leaves the connection and refuses what is asked on it, until it hears of a new token."""
    monkeypatch.setattr("unimq._supervisor.AUTH_RETRY_S", 0.5)
    ended_at = time.time() + 3.0
    later = threading.Event()

    def credential() -> Token:
        if later.is_set():
            return Token(real_site.token(time.time() + 600), time.time() + 600)
        if time.time() > ended_at - 1.0:
            raise OSError("nobody issues tokens just now")
        return Token(real_site.token(ended_at), ended_at)

    with unimq.connect(real_site.url(f"{TOKEN_USER}:x"), credential=credential) as mq:
        queue = Queue(unique("ended"))
        mq.declare(queue)
        until(lambda: time.time() > ended_at + 2.0, "the token has ended")
        with pytest.raises(AuthenticationFailed, match="token has expired") as caught:
            mq.declare(Queue(unique("refused")))
        assert (caught.value.code, caught.value.retryable) == ("token-expired", True)
        with pytest.raises(UnimqError):
            mq.send(queue, b"refused", timeout_s=1.0)
        later.set()

        def sent() -> bool:
            try:
                mq.send(queue, b"taken", timeout_s=1.0)
            except UnimqError as error:
                if not error.retryable:
                    raise
                return False
            return True

        until(sent, "the link came back with a new token")
