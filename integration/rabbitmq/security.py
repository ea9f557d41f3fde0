"""Who comes in and who does not, through `unimq.connect`, on a real RabbitMQ and on the reference broker alike.

Rules
- `Cases` is one set of tests for both; a test module has a class of it, and the fixtures `site` and `figure`.
- Whatever is refused is a typed error within seconds, after one try, and shows no secret.
"""

from __future__ import annotations

import itertools
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import unimq
from integration.native.security import CLIENT_NAME
from integration.proofs.secrets import MARK, Watch, leaks_of
from integration.rabbitmq.sites import HOST, SECOND_NAME, TOKEN_USER, Site, own_files
from unimq import Queue, UnimqError, Worker
from unimq.driver import Password, Token
from unimq.errors import AuthenticationFailed, ConnectionFailed, NotFound
from unimq.testing.proxy import FaultProxy

REFUSED_WITHIN_S = 3.0
PATIENCE_S = 20.0
QUIET_S = 2.0  # that long nothing is tried again
TOKEN_S = 5.0
GAVE_UP = 1  # a worker's exit code

Figure = Callable[[str], None]


def until(check: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        threading.Event().wait(0.02)


Connect = tuple[str, dict[str, Any]]  # a URL and options


def _context(site: Site) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(site.files.ca))


LET_IN: dict[str, Callable[[Site], Connect]] = {
    "a password": lambda s: (s.url(), {}),
    "a certificate": lambda s: (s.external(), {}),
    "a password, and a certificate beside it": lambda s: (
        s.url(cert=s.files.client_certificate, key=s.files.client_key),
        {},
    ),
    "a credential": lambda s: (
        s.url(""),
        {"credential": lambda: Password(s.user.name, s.user.password)},
    ),
    "a context": lambda s: (s.url(ca=s.stranger.ca), {"tls": _context(s)}),
    "no verification, if asked for": lambda s: (s.url(ca=s.stranger.ca, verify="false"), {}),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    how: Callable[[Site], Connect]
    error: tuple[type[UnimqError], ...]
    says: str
    retryable: bool | None = False  # None: either

    def __post_init__(self) -> None:
        assert self.error


def _wrong_password(s: Site) -> Connect:
    return s.url(f"{s.user.name}:{MARK}"), {}


REFUSED: dict[str, Refusal] = {
    "a CA that did not sign it": Refusal(
        lambda s: (s.url(ca=s.stranger.ca), {}), (ConnectionFailed,), "certificate verify failed"
    ),
    "no CA": Refusal(
        lambda s: (s.url().partition("?")[0], {}), (ConnectionFailed,), "certificate verify failed"
    ),
    "a CA file that is not there": Refusal(
        lambda s: (s.url(ca=Path("/nowhere/ca.pem")), {}), (ConnectionFailed,), r"\?ca=.*/nowhere/ca.pem"
    ),
    "a key of another certificate": Refusal(
        lambda s: (s.url(cert=s.files.client_certificate, key=s.stranger.client_key), {}),
        (ConnectionFailed,),
        r"\?cert=.*mismatch",
    ),
    "TLS to a port without": Refusal(
        lambda s: (s.url(port=s.plain_port), {}), (ConnectionFailed,), "does not speak TLS"
    ),
    "no TLS to a port with it": Refusal(
        lambda s: (s.url(tls=False), {}), (ConnectionFailed,), "perhaps its port speaks TLS", True
    ),
    "EXTERNAL without a certificate": Refusal(
        lambda s: (s.url("", mechanism="EXTERNAL"), {}), (AuthenticationFailed,), "EXTERNAL"
    ),
    "a certificate of another CA": Refusal(
        lambda s: (s.external(s.stranger), {}),
        # a broker in Python ends the line without saying why
        (AuthenticationFailed, ConnectionFailed),
        "certificate",
        None,
    ),
    "a wrong password": Refusal(_wrong_password, (AuthenticationFailed,), "403"),
    "a wrong password from a credential": Refusal(
        lambda s: (s.url(""), {"credential": lambda: Password(s.user.name, MARK)}),
        (AuthenticationFailed,),
        "403",
    ),
    "a user that is not there": Refusal(
        lambda s: (s.url(f"nobody:{MARK}"), {}), (AuthenticationFailed,), "403"
    ),
    "the user that everybody knows": Refusal(
        lambda s: (s.url("guest:guest"), {}), (AuthenticationFailed,), "403"
    ),
    "a token that has ended": Refusal(
        lambda s: (s.url(f"{TOKEN_USER}:x"), {"credential": lambda: Token(s.token(time.time() - 2.0))}),
        (AuthenticationFailed,),
        "403",
    ),
    "a token that is none": Refusal(
        lambda s: (s.url(f"{TOKEN_USER}:x"), {"credential": lambda: Token(MARK)}),
        (AuthenticationFailed,),
        "403",
    ),
    "a vhost that is not there": Refusal(lambda s: (s.url(vhost="nowhere"), {}), (NotFound,), "nowhere"),
}


class Cases:
    """The tests. `site` and `figure` are fixtures of the module that has a class of this."""

    @pytest.mark.parametrize("what", LET_IN)
    def test_let_in(self, site: Site, what: str, unique: Callable[[str], str]) -> None:
        url, options = LET_IN[what](site)
        queue = Queue(unique("secure"))
        with unimq.connect(url, **options) as mq:
            mq.declare(queue)
            with mq.receiver(queue) as receiver:  # over a second connection
                mq.send(queue, b"hello")
                (delivery,) = receiver.receive(timeout_s=PATIENCE_S)
                delivery.ack()
                receiver.flush()
            assert delivery.body == b"hello"

    @pytest.mark.parametrize("what", REFUSED)
    def test_refused(self, site: Site, what: str, figure: Figure) -> None:
        case = REFUSED[what]
        self._refused(site, what, case, case.how(site), figure)

    @pytest.mark.parametrize(
        ("what", "names", "says"),
        [
            ("an expired certificate", (), "expired"),
            ("a certificate for another host", ("elsewhere.example",), "not valid for '127.0.0.1'"),
        ],
    )
    def test_the_brokers_certificate(
        self, site: Site, what: str, names: tuple[str, ...], says: str, figure: Figure
    ) -> None:
        with site.serving(*names, expired=not names) as port:
            case = Refusal(lambda s: (s.url(port=port), {}), (ConnectionFailed,), says)
            self._refused(site, what, case, case.how(site), figure)

    @pytest.mark.parametrize(
        ("what", "name", "expired"),
        [("an expired certificate", CLIENT_NAME, True), ("a certificate for no user", "nobody", False)],
    )
    def test_the_clients_certificate(
        self, site: Site, what: str, name: str, expired: bool, tmp_path: Path, figure: Figure
    ) -> None:
        mine = own_files(site, tmp_path, name, expired=expired)
        errors = (AuthenticationFailed, ConnectionFailed) if expired else (AuthenticationFailed,)
        case = Refusal(lambda s: (s.external(mine), {}), errors, "certificate|403", None)
        self._refused(site, f"the client has {what}", case, case.how(site), figure)

    def _refused(self, site: Site, what: str, case: Refusal, how: Connect, figure: Figure) -> None:
        url, options = how
        with Watch() as watch:
            started = time.monotonic()
            with pytest.raises(UnimqError, match=f"(?s){case.says}") as caught:
                unimq.connect(url, **options)
            took_s = time.monotonic() - started
        error = caught.value
        assert type(error) in case.error
        assert case.retryable in (None, error.retryable)
        assert took_s < REFUSED_WITHIN_S
        assert leaks_of(what, error) + watch.leaks == []
        assert site.user.password not in f"{error!r} {error.cause!r}"
        figure(f"{site.label}: {what}: {type(error).__name__} after {took_s:.2f} s")

    def test_a_wrong_password_is_tried_once(self, site: Site) -> None:
        with FaultProxy(HOST, site.tls_port) as proxy:
            with pytest.raises(AuthenticationFailed):
                unimq.connect(site.url(f"{site.user.name}:{MARK}", port=proxy.port))
            assert proxy.connections == 1

    def test_a_login_refused_while_reconnecting_is_no_loop_and_ends_a_worker(
        self, site: Site, unique: Callable[[str], str], figure: Figure
    ) -> None:
        password, codes = [site.user.password], list[int]()
        queue = Queue(unique("grace"))

        def credential() -> Password:
            return Password(site.user.name, password[0])

        with FaultProxy(HOST, site.tls_port) as proxy, Watch() as watch:
            url = site.url("", port=proxy.port)
            with unimq.connect(url, credential=credential, health_after_s=0.0) as mq:
                mq.declare(queue)
                worker = Worker(mq, auth_grace_s=QUIET_S)

                @worker.handler(queue)
                def work(body: bytes) -> None: ...

                running = threading.Thread(target=lambda: codes.append(worker.run()), daemon=True)
                running.start()
                until(lambda: worker.health().ok, "the worker runs")
                password[0] = MARK
                before = proxy.connections
                proxy.cut()
                started = time.monotonic()
                until(lambda: isinstance(mq._supervisor.last_error, AuthenticationFailed), "refused")
                assert not mq.health().ok
                until(lambda: codes == [GAVE_UP], "the worker gave up")
                took_s = time.monotonic() - started
                assert proxy.connections == before + 1, "one try"
                running.join(PATIENCE_S)
        assert watch.leaks == []
        figure(
            f"{site.label}: refused while reconnecting: 1 try; auth_grace_s={QUIET_S:g}: ended after {took_s:.1f} s"
        )

    def test_certificates_are_read_again_at_each_connect(
        self, site: Site, tmp_path: Path, unique: Callable[[str], str], figure: Figure
    ) -> None:
        mine = own_files(site, tmp_path, CLIENT_NAME)
        queue = Queue(unique("rotated"))
        with FaultProxy(HOST, site.tls_port) as proxy:
            with unimq.connect(site.external(mine, ca=mine.ca, port=proxy.port)) as mq:
                mq.declare(queue)
                assert CLIENT_NAME in site.logged_in()
                site.authority.issue_client(mine, SECOND_NAME)
                mine.ca.write_bytes(site.stranger.ca.read_bytes())
                proxy.cut()
                until(lambda: "verify failed" in str(mq._supervisor.last_error), "the CA was read again")
                assert SECOND_NAME not in site.logged_in()
                mine.ca.write_bytes(site.files.ca.read_bytes())
                started = time.monotonic()
                mq.send(queue, b"again")
                took_s = time.monotonic() - started
                assert SECOND_NAME in site.logged_in()
        figure(
            f"{site.label}: certificate, key and CA renewed under a living client: back after {took_s:.2f} s"
        )

    def test_a_token_is_renewed_before_it_ends(
        self, site: Site, unique: Callable[[str], str], figure: Figure
    ) -> None:
        asked: list[float] = []
        queue = Queue(unique("token"))

        def credential() -> Token:
            now = time.time()
            asked.append(now)
            return Token(site.token(now + TOKEN_S), now + TOKEN_S)

        with FaultProxy(HOST, site.tls_port) as proxy:
            with unimq.connect(
                site.url(f"{TOKEN_USER}:x", port=proxy.port), credential=credential, health_after_s=0.0
            ) as mq:
                mq.declare(queue)
                started, sent = time.time(), 0
                while time.time() < started + TOKEN_S * 1.4:
                    mq.send(queue, b"%d" % sent)
                    sent += 1
                    threading.Event().wait(0.1)
                assert proxy.connections == 1, "no token ended"
                gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
                assert gaps and max(gaps) < TOKEN_S
                proxy.cut()
                until(lambda: proxy.connections > 1 and mq.health().ok, "connected again")
                mq.send(queue, b"after a reconnect")
                assert mq.stats(queue).depth == sent + 1
        figure(
            f"{site.label}: a token of {TOKEN_S:g} s: {sent} sends in {TOKEN_S * 1.4:g} s, no reconnect, "
            f"asked for every {min(gaps):.1f} to {max(gaps):.1f} s"
        )
