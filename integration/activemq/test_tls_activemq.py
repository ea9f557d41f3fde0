"""stomps:// against a TLS end in front of the real broker."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import trustme

from unimq.address import Queue
from unimq.driver import ALL_WELL, ConnectOptions, Op
from unimq.errors import ConnectionFailed
from unimq.message import Message
from unimq.url import parse
from unimq_activemq import ADAPTER

from .rig import LIMIT_S, Rig, ack, bodies, take

Unique = Callable[[str], str]
T = TypeVar("T")


class TlsEnd:
    """Accepts TLS, goes on in plain text. A loop of its own: an SSL object is for one thread at a time."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._target, self._context = (host, port), context
        self._writers: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accepted, "127.0.0.1", 0, ssl=context))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(tasks, timeout=1.0) if tasks else None

    def cut(self) -> None:
        self._do(self._cut())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made, path = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    return made, path


@pytest.fixture
def end(broker: str, authority: tuple[trustme.CA, Path]) -> Iterator[TlsEnd]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("localhost").configure_cert(context)
    target = urlsplit(broker)
    assert target.hostname and target.port
    made = TlsEnd(target.hostname, target.port, context)
    yield made
    made.close()


def url(broker: str, end: TlsEnd, query: str) -> str:
    parts = urlsplit(broker)
    return f"stomps://{parts.username}:{parts.password}@localhost:{end.port}{query}"


def test_send_and_receive_over_tls(
    broker: str, end: TlsEnd, authority: tuple[trustme.CA, Path], unique: Unique
) -> None:
    queue, large = Queue(unique("tls")), bytes(range(256)) * 8192
    with Rig(url(broker, end, f"?ca={authority[1]}")) as rig:
        messages = [Message(large), *(Message(b"%d" % n) for n in range(200))]
        assert rig.send(queue, *messages) is ALL_WELL
        link = rig.receiver(queue)
        for first in (0, 67, 134):
            got = take(link, 67)
            assert bodies(got) == [message.body for message in messages[first : first + 67]]
            ack(link, got)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unimq-activemq")]


def test_the_end_of_a_tls_stream_is_noticed(
    broker: str, end: TlsEnd, authority: tuple[trustme.CA, Path], unique: Unique
) -> None:
    """stomp.py by itself reads nothing for ever, at full speed."""
    with Rig(url(broker, end, f"?ca={authority[1]}")) as rig:
        rig.send(Queue(unique("tls")), b"1")
        end.cut()
        assert isinstance(rig.lost(), OSError)


def test_a_certificate_that_nobody_signed_is_refused(broker: str, end: TlsEnd) -> None:
    with pytest.raises(OSError) as caught:
        ADAPTER.connect(parse(url(broker, end, "")), ConnectOptions(connect_timeout_s=5), lambda event: None)
    fault = ADAPTER.classify(caught.value, op=Op.CONNECT, handed_over=False)
    assert isinstance(fault, ConnectionFailed) and not fault.retryable and "certificate" in str(fault)
    with Rig(url(broker, end, "?verify=false")) as rig:
        assert rig.flavour
