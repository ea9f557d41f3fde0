"""Proof 6, the second half, on memory: bad input gives one clear typed error at once each, and no message is lost."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import unimq
from integration.proofs import bad_input
from integration.proofs.kit import WORLDS, World, now, run, within
from unimq import Queue
from unimq.errors import AdapterMissing, ConnectionFailed, Unsupported
from unimq.url import UrlError

LIMIT_S = 40
CONNECT_TIMEOUT_S = 0.5
CONNECT_GRACE_S = 1.0  # what a driver may take beyond it to give up on its library


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_each_ends_with_its_error_and_nothing_is_lost(
    world: World, url: str, unique: Callable[[str], str], figure: Callable[[str], None]
) -> None:
    queue, missing = Queue(unique("bad")), Queue(unique("missing"))
    findings, rows = run(LIMIT_S, "bad input", lambda: bad_input.broken_messages(world, url, queue, missing))
    figure(f"bad input on memory, {world}: {rows} rows, {len(findings)} findings")
    assert findings == []


@pytest.mark.timeout(bad_input.CHILD_TIMEOUT_S + 10)
def test_a_client_from_before_a_fork_is_closed_in_the_child(unique: Callable[[str], str]) -> None:
    assert bad_input.forked(f"memory://{unique('fork')}", Queue("forked")) == []


WRONG_URLS: list[tuple[Any, type[BaseException], str]] = [
    ("", UrlError, "URL"),
    ("not a url", UrlError, "SCHEME://"),
    (7, UrlError, "str"),
    ("memory://", UrlError, "name"),
    ("memory://x?no_such=1", UrlError, "no_such"),
    ("memory://x?max_message_bytes=1&max_message_bytes=2", UrlError, "twice"),
    ("memory://x?max_message_bytes=many", UrlError, "max_message_bytes"),
    ("amqp://h:99999/", UrlError, "port"),
    ("amqp://h:port/", UrlError, "port"),
    ("amqp://,/", UrlError, "empty"),
    ("amqp://h/?heartbeat=often", UrlError, "heartbeat"),
    ("amqp://h/?no_such=1", UrlError, "no_such"),
    ("kafka://h?no_such=1", UrlError, "no_such"),
    ("stomp://h?no_such=1", UrlError, "no_such"),
    ("sb://h?no_such=1", UrlError, "no_such"),
    ("Endpoint=sb://h;nothing", UrlError, "KEY=VALUE"),
    ("nosuch://h", AdapterMissing, "memory"),
    ("http://h", AdapterMissing, "amqp"),
]


@pytest.mark.parametrize("world", WORLDS, ids=str)
@pytest.mark.parametrize(("where", "wanted", "word"), WRONG_URLS, ids=[str(row[0]) for row in WRONG_URLS])
def test_a_wrong_url_is_refused_at_once(
    where: Any, wanted: type[BaseException], word: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNIMQ_URL", raising=False)
    started = time.monotonic()
    with pytest.raises(wanted) as caught:
        within(LIMIT_S, "connect", lambda: asyncio.run(_connect(world, where)))
    assert type(caught.value) is wanted
    assert word in str(caught.value)
    assert time.monotonic() - started < bad_input.AT_ONCE_S + 1.0  # the first one imports a client library


async def _connect(world: World, where: Any, **options: Any) -> None:
    await now((await now(world.connect(where, **options))).close())


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_wrong_options_of_connect_are_refused(world: World, url: str) -> None:
    for options, wanted, word in (
        ({"topology": "guess"}, ValueError, "guess"),
        ({"require": ["no_such"]}, ValueError, "no_such"),
        ({"require": ["log"]}, Unsupported, "log"),
        ({"native": {"no_such": 1}}, Unsupported, "no_such"),
        ({"no_such": 1}, TypeError, "no_such"),
    ):
        with pytest.raises(wanted, match=word):
            asyncio.run(_connect(world, url, **options))


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("scheme", ["amqp", "stomp", "kafka"])
def test_a_host_that_is_not_there_is_given_up(scheme: str, silent: bool) -> None:
    for world in WORLDS:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            if silent:
                held.listen(8)
            where = f"{scheme}://127.0.0.1:{held.getsockname()[1]}"
            started = time.monotonic()
            with pytest.raises(ConnectionFailed) as caught:
                within(
                    LIMIT_S,
                    "connect",
                    partial(asyncio.run, _connect(world, where, connect_timeout_s=CONNECT_TIMEOUT_S)),
                )
            assert type(caught.value) is ConnectionFailed
            assert caught.value.retryable
            assert time.monotonic() - started < CONNECT_TIMEOUT_S + CONNECT_GRACE_S + 1.0


def test_a_client_that_was_never_connected_says_so() -> None:
    with pytest.raises(unimq.Closed, match="not connected"):
        unimq.AsyncClient("memory://never").sender(Queue("q"))
