"""Proof 6: a marked password, driven through every error path that needs no broker, for every scheme, shows nowhere.

`integration/proofs/test_secrets_real.py` does the same with a password that a real broker takes. The last tests show that
the watch sees what it should.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import unimq
from integration.proofs import secrets
from integration.proofs.kit import WORLDS, World, now, within
from integration.proofs.secrets import ENCODED, MARK, PASSWORD, USER, Watch, leaks_of
from unimq import registry, url
from unimq.driver import ConnectOptions, Password, Token
from unimq.errors import AdapterMissing, UnimqError

CONNECT_TIMEOUT_S = 0.3
LIMIT_S = 30
SCHEMES = ("kafka", "kafkas", "eventhubs", "amqp", "amqps", "stomp", "stomps", "activemq", "sb", "memory")
LIBRARIES = {
    "kafka": ("confluent_kafka", "kafka"),
    "amqp": ("pika", "rabbitmq"),
    "stomp": ("stomp", "activemq"),
    "sb": ("azure.servicebus", "servicebus"),
}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def at(scheme: str, host: str, tail: str = "") -> str:
    if scheme == "sb":
        key = f"SharedAccessKeyName={USER};SharedAccessKey={PASSWORD.replace(';', '')}"
        return f"Endpoint=sb://{host};{key};UseDevelopmentEmulator=true{tail.replace('?', ';')}"
    return f"{scheme}://{USER}:{ENCODED}@{host}/{tail}"


@contextmanager
def refusing() -> Iterator[str]:
    """A port that is taken and does not listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(16)
        yield f"127.0.0.1:{held.getsockname()[1]}"


async def failing(world: World, where: Any, **options: Any) -> BaseException | None:
    try:
        mq = await now(world.connect(where, connect_timeout_s=CONNECT_TIMEOUT_S, **options))
    except Exception as error:  # any of them is to be looked at
        return error
    await now(mq.close(1.0))
    return None


def ways(scheme: str, refused: str, quiet: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(what, URL, options of connect): each of them fails."""
    raw = f"{USER}:{PASSWORD}"
    return [
        ("refused", at(scheme, refused), {}),
        ("silent", at(scheme, quiet), {}),
        ("unknown option", at(scheme, refused, "?no_such_option=1"), {}),
        ("option twice", at(scheme, refused, "?group=a&group=b"), {}),
        ("bad port", f"{scheme}://{USER}:{ENCODED}@127.0.0.1:port/", {}),
        ("no host", f"{scheme}://{USER}:{ENCODED}@/", {}),
        ("not escaped", f"{scheme}://{raw}@{refused}/", {}),
        ("not escaped, several hosts", f"{scheme}://{raw}@{refused},{refused}/", {}),
        ("not escaped, a port and a path", f"{scheme}://{USER}:12/{MARK}@{refused}/", {}),
        ("not escaped, a port and an option", f"{scheme}://{USER}:12?{MARK}@{refused}/", {}),
        ("not escaped, an option's name", f"{scheme}://{USER}:12?{MARK}=1@{refused}/", {}),
        ("not escaped, a fragment", f"{scheme}://{USER}:{MARK}#{MARK}@{refused}/", {}),
        ("no scheme", f"{USER}:{ENCODED}@{refused}", {}),
        ("another scheme", f"nosuch{scheme}://{USER}:{ENCODED}@{refused}/", {}),
        ("unknown native key", at(scheme, refused), {"native": {"no_such_key": 1}}),
        ("required", at(scheme, refused), {"require": ["sessions", "log", "transactions"]}),
        ("bad limit", at(scheme, refused, "?max_message_bytes=many"), {}),
        ("credential", f"{scheme}://{refused}/", {"credential": lambda: Password(USER, PASSWORD)}),
        ("token", f"{scheme}://{refused}/", {"credential": lambda: Token(PASSWORD)}),
    ]  # fmt: skip


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_password_shows_nowhere(scheme: str, figure: Callable[[str], None]) -> None:
    leaks: list[str] = []
    errors: list[str] = []
    with refusing() as refused, silent() as quiet, Watch() as watch:
        for number, (what, where, options) in enumerate(ways(scheme, refused, quiet)):
            world = WORLDS[number % 2]
            error = within(LIMIT_S, what, partial(asyncio.run, failing(world, where, **options)))
            if error is None:
                continue
            errors.append(type(error).__name__)
            if not isinstance(error, UnimqError | ValueError):
                leaks.append(f"{what}: not one of unimq's errors: {error!r}")
            leaks += leaks_of(f"{what} ({world})", error)
        leaks += leaks_of("explain", *_explained(at(scheme, refused)))
    figure(
        f"secrets, {scheme}: {len(errors)} errors, {watch.count} log records, {len(leaks + watch.leaks)} leaks"
    )
    assert leaks + watch.leaks == []
    assert len(errors) >= 8


def _explained(where: str) -> list[Any]:
    try:
        return [unimq.explain(where, unimq.Queue("q"), connect=False)]
    except Exception as error:  # what it raises is looked at as well
        return [error]


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "memory"])
def test_no_repr_shows_a_password(scheme: str) -> None:
    endpoint = url.parse(at(scheme, "127.0.0.1"))
    options = ConnectOptions(
        connect_timeout_s=1.0,
        tls=None,
        credential=lambda: Password(USER, PASSWORD),
        native={},
    )
    client = unimq.connect_async(at(scheme, "127.0.0.1"))
    shown = [
        endpoint,
        options,
        client,
        client._supervisor,
        Password(USER, PASSWORD),
        Token(PASSWORD),
        client.health(),
    ]
    assert leaks_of(scheme, *shown) == []
    client._ticker.close()


@pytest.mark.parametrize("scheme", LIBRARIES)
def test_a_missing_extra_says_what_to_install(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, extra = LIBRARIES[scheme]
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(f"unimq_{extra}.")]:
        monkeypatch.delitem(sys.modules, name)  # modules of the adapter that hold the library already
    monkeypatch.delitem(sys.modules, f"unimq_{extra}", raising=False)
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setitem(sys.modules, library, None)
    for world in WORLDS:
        with refusing() as refused:
            where = at(scheme, refused)
            error = within(LIMIT_S, scheme, partial(asyncio.run, failing(world, where)))
        assert isinstance(error, AdapterMissing), repr(error)
        assert f"pip install 'unimq[{extra}]'" in str(error)
        assert leaks_of(scheme, error) == []


# ------------------------------------------------------------------------------------------------- it can fail
def test_the_watch_sees_what_it_should() -> None:
    with Watch() as watch:
        logging.getLogger("unimq.some").debug("connecting with %s", {"password": PASSWORD})
        try:
            raise ValueError(f"cannot log in to x://{USER}:{ENCODED}@h")
        except ValueError as error:
            logging.getLogger("pika.some").debug("failed", exc_info=True)
            assert leaks_of("error", error)
            chained = UnimqError("plain", cause=error)
    assert len(watch.leaks) == 2
    assert leaks_of("cause", chained)
    assert leaks_of("repr", {"key": PASSWORD})
    assert not leaks_of("redacted", UnimqError(f"x://{USER}:{ENCODED}@h"))
    assert secrets.shows(f"Basic {__import__('base64').b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}")
