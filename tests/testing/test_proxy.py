"""The fault proxy against an echo server: every cut at its exact byte, nothing lost by silence, nothing left by close."""

from __future__ import annotations

import asyncio
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import pytest

from unimq.testing import proxy as proxy_module
from unimq.testing.proxy import FaultProxy, ProxyError

LIMIT_S = 10.0
QUIET_S = 0.1  # how long "nothing comes" is watched; nothing waits on it


class Server(socketserver.ThreadingTCPServer):
    """Echoes, or with `sink` only receives; remembers what came and how each connection ended."""

    daemon_threads = True
    block_on_close = True
    allow_reuse_address = True

    def __init__(self, *, echo: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.echo = echo
        self.received: list[bytearray] = []
        self.endings: list[str] = []
        self.changed = threading.Condition()
        self.reading = threading.Event()
        self.reading.set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def wait(self, count: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.endings) >= count, LIMIT_S)
            return list(self.endings)


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        got = bytearray()
        with self.server.changed:
            self.server.received.append(got)
        ending = "fin"
        try:
            while True:
                assert self.server.reading.wait(LIMIT_S)
                data = self.request.recv(65536)
                if not data:
                    break
                got += data
                if self.server.echo:
                    self.request.sendall(data)
        except ConnectionError:
            ending = "rst"
        with self.server.changed:
            self.server.endings.append(ending)
            self.server.changed.notify_all()


@contextmanager
def serving(*, echo: bool = True) -> Iterator[Server]:
    with Server(echo=echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(LIMIT_S)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


@contextmanager
def dial(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection((proxy.host, proxy.port), LIMIT_S) as sock:
        yield sock


def read(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = sock.recv(count - len(got))
        if not data:
            break
        got += data
    return got


def read_to_reset(sock: socket.socket) -> bytes:
    """Everything until the connection is reset; a clean end is a failure."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionResetError:
        return got
    raise AssertionError("ended by FIN, not by RST")


def exchange(proxy: FaultProxy, payload: bytes) -> bytes:
    """Sends and reads until the reset, which may come as early as in the connect or the send."""
    try:
        with dial(proxy) as sock:
            sock.sendall(payload)
            return read_to_reset(sock)
    except ConnectionError:
        return b""


def hears_nothing(sock: socket.socket) -> bool:
    sock.settimeout(QUIET_S)
    try:
        return sock.recv(1) == b"never"
    except TimeoutError:
        return True
    finally:
        sock.settimeout(LIMIT_S)


def refused(proxy: FaultProxy) -> bool:
    try:
        socket.create_connection((proxy.host, proxy.port), LIMIT_S).close()
    except ConnectionRefusedError:
        return True
    return False


# -- forwarding -------------------------------------------------------------------------------------------------------


def test_forwards_and_counts(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        sock.sendall(b"hello")
        assert read(sock, 5) == b"hello"
        proxy.wait_for(connections=1, client_bytes=5, server_bytes=5, open_connections=1)
    proxy.wait_for(open_connections=0)
    assert [(t.client_bytes, t.server_bytes) for t in proxy.traffic] == [(5, 5)]


def test_half_close_passes_and_the_rest_still_comes(proxy: FaultProxy, server: Server) -> None:
    payload = os.urandom(300_000)
    with dial(proxy) as sock:

        def write() -> None:
            sock.sendall(payload)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        assert read(sock, len(payload) + 1) == payload
        writer.join(LIMIT_S)
    assert server.wait(1) == ["fin"]


def test_a_reset_by_the_client_is_passed_on_after_its_bytes(proxy: FaultProxy, server: Server) -> None:
    with dial(proxy) as sock:
        sock.sendall(b"last words")
        proxy.wait_for(client_bytes=10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert server.wait(1) == ["rst"]
    assert bytes(server.received[0]) == b"last words"


def test_a_broker_that_is_not_there_resets_the_client(proxy: FaultProxy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultProxy("127.0.0.1", unused.getsockname()[1]) as nowhere:
            assert exchange(nowhere, b"") == b""


# -- cuts -------------------------------------------------------------------------------------------------------------


def test_cut_resets_both_sides_and_new_connections_are_taken(proxy: FaultProxy, server: Server) -> None:
    with dial(proxy) as one, dial(proxy) as two:
        for sock in (one, two):
            sock.sendall(b"x")
            assert read(sock, 1) == b"x"
        assert proxy.cut() == 2
        assert read_to_reset(one) == read_to_reset(two) == b""
    assert server.wait(2) == ["rst", "rst"]
    with dial(proxy) as sock:
        sock.sendall(b"y")
        assert read(sock, 1) == b"y"


@pytest.mark.parametrize("at", [0, 1, 2, 7, 99, 100])
def test_cut_after_client_bytes_is_exact(at: int) -> None:
    with serving(echo=False) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        cut = proxy.cut_after(client_bytes=at)
        assert exchange(proxy, bytes(range(100))) == b""
        assert cut.wait(LIMIT_S)
        assert server.wait(1) == ["rst"]
        assert bytes(server.received[0]) == bytes(range(100))[:at]
        assert proxy.client_bytes == at


@pytest.mark.parametrize("at", [0, 1, 50, 100])
def test_cut_after_server_bytes_is_exact(proxy: FaultProxy, at: int) -> None:
    proxy.cut_after(server_bytes=at)
    assert exchange(proxy, bytes(range(100))) == bytes(range(100))[:at]
    assert proxy.server_bytes == at


def test_a_cut_in_the_middle_of_a_flood_is_exact() -> None:
    at = 3_000_001  # more than the proxy holds and more than one read
    with serving(echo=False) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        cut = proxy.cut_after(client_bytes=at)
        with dial(proxy) as sock:
            with pytest.raises(ConnectionError):
                sock.sendall(bytes(30_000_000))
            assert cut.wait(LIMIT_S)
        assert server.wait(1) == ["rst"]
        assert len(server.received[0]) == at


def test_a_cut_is_one_shot_and_says_when_it_fired(proxy: FaultProxy) -> None:
    cut = proxy.cut_after(client_bytes=3)
    with dial(proxy) as sock:
        sock.sendall(b"abc")
        read_to_reset(sock)
    assert cut.wait(LIMIT_S)
    assert cut.fired == 1
    with dial(proxy) as sock:
        sock.sendall(b"abcdef")
        assert read(sock, 6) == b"abcdef"
    assert cut.fired == 1


def test_a_cut_can_be_told_how_often(proxy: FaultProxy) -> None:
    cut = proxy.cut_after(client_bytes=1, times=None)
    for _ in range(3):
        with dial(proxy) as sock:
            sock.sendall(b"a")
            read_to_reset(sock)
    assert cut.fired == 3


def test_a_cut_takes_the_nth_connection(proxy: FaultProxy) -> None:
    with dial(proxy) as before:
        proxy.cut_after(client_bytes=2, connection=2)
        with dial(proxy) as first, dial(proxy) as second:
            for sock in (before, first):
                sock.sendall(b"abcd")
                assert read(sock, 4) == b"abcd"
            second.sendall(b"abcd")
            read_to_reset(second)
    assert [t.client_bytes for t in proxy.traffic] == [4, 4, 2]


def test_an_open_connection_is_cut_only_with_live_and_counted_from_now(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        sock.sendall(b"12345")
        assert read(sock, 5) == b"12345"
        not_this = proxy.cut_after(client_bytes=2)
        sock.sendall(b"678")
        assert read(sock, 3) == b"678"
        proxy.cut_after(client_bytes=2, live=True)
        sock.sendall(b"abc")
        read_to_reset(sock)
        assert not_this.fired == 0
    assert proxy.client_bytes == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"client_bytes": 1, "server_bytes": 1},
        {"client_bytes": -1},
        {"client_bytes": 1, "connection": 0},
        {"client_bytes": 1, "times": 0},
        {"client_bytes": 1, "connection": 1, "live": True},
    ],
)
def test_a_cut_that_means_nothing_is_refused(proxy: FaultProxy, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        proxy.cut_after(**wrong)  # type: ignore[arg-type]


# -- silence, refusal, delay ------------------------------------------------------------------------------------------


def test_silence_keeps_connections_open_takes_new_ones_and_loses_nothing(proxy: FaultProxy) -> None:
    with dial(proxy) as old:
        old.sendall(b"a")
        assert read(old, 1) == b"a"
        proxy.silence()
        with dial(proxy) as new:
            old.sendall(b"b")
            new.sendall(b"c")
            assert hears_nothing(old)
            assert hears_nothing(new)
            assert proxy.client_bytes == 1
            proxy.heal()
            assert read(old, 1) == b"b"
            assert read(new, 1) == b"c"


def test_silence_of_the_client(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        proxy.silence_client()
        sock.sendall(b"a")
        assert hears_nothing(sock)
        assert (proxy.client_bytes, proxy.server_bytes) == (0, 0)
        proxy.heal()
        assert read(sock, 1) == b"a"


def test_silence_of_the_server(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        proxy.silence_server()
        sock.sendall(b"a")
        proxy.wait_for(client_bytes=1)
        assert hears_nothing(sock)
        assert proxy.server_bytes == 0
        proxy.heal()
        assert read(sock, 1) == b"a"


def test_cut_works_in_silence(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        proxy.silence()
        assert proxy.cut() == 1
        read_to_reset(sock)


def test_refuse_keeps_the_port_and_the_open_connections(proxy: FaultProxy) -> None:
    port = proxy.port
    with dial(proxy) as old:
        old.sendall(b"a")
        assert read(old, 1) == b"a"
        proxy.refuse()
        proxy.refuse()
        assert refused(proxy)
        old.sendall(b"b")
        assert read(old, 1) == b"b"
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind((proxy.host, port))
        proxy.heal()
        assert proxy.port == port
        assert not refused(proxy)


def test_delay(proxy: FaultProxy) -> None:
    proxy.delay(0.05)
    with dial(proxy) as sock:
        began = time.monotonic()
        sock.sendall(b"ab")
        assert read(sock, 2) == b"ab"
        assert time.monotonic() - began >= 0.1
        proxy.delay(0)
        sock.sendall(b"c" * 1000)
        assert read(sock, 1000) == b"c" * 1000


def test_heal_disarms_cuts(proxy: FaultProxy) -> None:
    with dial(proxy) as sock:
        cut = proxy.cut_after(client_bytes=1, live=True)
        proxy.heal()
        sock.sendall(b"abc")
        assert read(sock, 3) == b"abc"
        assert cut.fired == 0


# -- bounds and ends --------------------------------------------------------------------------------------------------


def test_what_it_holds_is_bounded() -> None:
    with serving(echo=False) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        server.reading.clear()
        with dial(proxy) as sock:
            sock.setblocking(False)
            sent, full_since = 0, None
            chunk = bytes(65536)
            deadline = time.monotonic() + LIMIT_S
            while full_since is None or time.monotonic() - full_since < QUIET_S:
                assert time.monotonic() < deadline
                try:
                    sent += sock.send(chunk)
                    full_since = None
                except BlockingIOError:
                    full_since = full_since or time.monotonic()
            (link,) = proxy._links
            assert link.client.held >= proxy_module.BUFFER_BYTES - proxy_module.READ_BYTES
            assert link.client.held <= proxy_module.BUFFER_BYTES
            sock.setblocking(True)
            server.reading.set()
            proxy.wait_for(client_bytes=sent, timeout_s=LIMIT_S)
        server.wait(1)
        assert len(server.received[0]) == sent


def test_nothing_is_left_after_close(server: Server) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def round_trip() -> None:
        with FaultProxy("127.0.0.1", server.port) as proxy, dial(proxy) as sock:
            sock.sendall(b"a")
            assert read(sock, 1) == b"a"
            proxy.refuse()
            proxy.silence()

    round_trip()
    server.wait(1)
    threads = set(threading.enumerate())
    before = descriptors() if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        round_trip()
    server.wait(21)
    left = {t for t in set(threading.enumerate()) - threads if t.name.startswith("unimq-fault-proxy")}
    assert not left
    if before:
        # The echo server's own threads close theirs a moment after they have said so.
        deadline = time.monotonic() + LIMIT_S
        while descriptors() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert descriptors() <= before


def test_closed_and_not_started_say_so(server: Server) -> None:
    proxy = FaultProxy("127.0.0.1", server.port)
    with pytest.raises(ProxyError, match="not running"):
        proxy.cut()
    proxy.start()
    with pytest.raises(ProxyError, match="started already"):
        proxy.start()
    proxy.close()
    proxy.close()
    assert refused(proxy)
    with pytest.raises(ProxyError, match="not running"):
        proxy.silence()


def test_wait_for_has_a_limit_and_tells_the_counters(proxy: FaultProxy) -> None:
    with pytest.raises(TimeoutError, match="0 connections"):
        proxy.wait_for(connections=1, timeout_s=0.01)


def test_control_from_many_threads_while_traffic_flows(proxy: FaultProxy) -> None:
    stop = threading.Event()
    trips = [0] * 4

    def traffic(index: int) -> None:
        while not stop.is_set():
            try:
                with dial(proxy) as sock:
                    for _ in range(20):
                        sock.sendall(b"z" * 100)
                        if read(sock, 100) != b"z" * 100:
                            break
                        trips[index] += 1
            except OSError:
                continue

    def control() -> None:
        for _ in range(50):
            proxy.cut()
            proxy.silence()
            proxy.heal()
            proxy.refuse()
            proxy.cut_after(client_bytes=150)
            proxy.heal()

    users = [threading.Thread(target=traffic, args=(i,)) for i in range(len(trips))]
    controllers = [threading.Thread(target=control) for _ in range(3)]
    for thread in chain(users, controllers):
        thread.start()
    for thread in controllers:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    proxy.heal()
    stop.set()
    for thread in users:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert sum(trips) > 0
    proxy.wait_for(open_connections=0)


async def _over_asyncio(proxy: FaultProxy) -> bytes:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    proxy.cut_after(server_bytes=4, live=True)
    writer.write(b"abcdef")
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            got += await asyncio.wait_for(reader.readexactly(1), LIMIT_S)
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
    return got


def test_from_asyncio(proxy: FaultProxy) -> None:
    # asyncio may see the reset before the last bytes, so they are counted at the proxy.
    asyncio.run(_over_asyncio(proxy))
    assert proxy.server_bytes == 4


@pytest.mark.parametrize(
    ("url", "rewritten"),
    [
        ("amqp://guest:guest@broker:5672/", "amqp://guest:guest@127.0.0.1:{port}/"),
        ("amqp://u:p%40ss@broker/%2F?heartbeat=5", "amqp://u:p%40ss@127.0.0.1:{port}/%2F?heartbeat=5"),
        ("kafka://h1:9092,h2:9092", "kafka://127.0.0.1:{port}"),
        ("stomp://[2001:db8::7]:61613", "stomp://127.0.0.1:{port}"),
        (
            "Endpoint=sb://broker:5672;SharedAccessKey=a/b=;UseDevelopmentEmulator=true",
            "Endpoint=sb://127.0.0.1:{port};SharedAccessKey=a/b=;UseDevelopmentEmulator=true",
        ),
    ],
)
def test_url(proxy: FaultProxy, url: str, rewritten: str) -> None:
    assert proxy.url(url) == rewritten.format(port=proxy.port)


def test_url_without_a_host_is_refused(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="scheme"):
        proxy.url("localhost")
