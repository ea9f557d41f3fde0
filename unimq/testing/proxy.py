"""A TCP proxy that fails on command, between a client and a broker.

    with FaultProxy("127.0.0.1", port_of_the_broker) as proxy:
        mq = unimq.connect(proxy.url(url_of_the_broker))
        fault = proxy.cut_after(client_bytes=1234)
        ...

Rules
- One background thread. Control calls may come from any thread or task; each has taken effect when it returns.
- "client" is the direction client to broker, "server" the direction broker to client.
- A cut is a reset (RST) of both sides. What was forwarded before it has reached the peer's kernel; what was not is lost.
- Silence reads nothing and writes nothing: connections stay open, the sender fills its own buffers, `heal()` loses no byte.
- A direction holds at most `BUFFER_BYTES`; then the proxy stops reading, and the sender feels it.
- After `close()` no thread and no file descriptor is left.
"""

from __future__ import annotations

import array
import re
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ._proxy_link import Cut, Link, Pipe, Traffic

HOST = "127.0.0.1"
BUFFER_BYTES = 1 << 20
READ_BYTES = 1 << 16
CONTROL_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 1.0  # how long a cut waits for the last forwarded bytes to reach the peer's kernel
TRAFFIC_KEPT = 1000
_BACKLOG = 128
_DRAIN_INTERVAL_S = 0.001
_SIOCOUTQNSD = 0x894B  # Linux: bytes written and not sent yet
_AUTHORITY = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>[^/@;?]*@)?(?P<hosts>[^/;?]*)")


class ProxyError(RuntimeError):
    """The proxy itself could not do what was asked."""


class FaultProxy:
    def __init__(self, target_host: str, target_port: int, *, listen_port: int = 0) -> None:
        self.host = HOST
        self.port = listen_port
        self.connections = 0
        self.client_bytes = 0
        self.server_bytes = 0
        self._target = (target_host, target_port)
        self._traffic: deque[Traffic] = deque(maxlen=TRAFFIC_KEPT)
        self._links: dict[Link, None] = {}
        self._silent: set[str] = set()
        self._delay_s = 0.0
        self._cuts: list[Cut] = []
        self._commands: deque[tuple[Callable[[], None], threading.Event, list[BaseException]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False  # the thread is to end, or has ended
        self._closed = False
        self._thread: threading.Thread | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        if self._thread is not None:
            raise ProxyError("the proxy was started already")
        self._listener = self._bound(self.port)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"unimq-fault-proxy-{self.port}", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Resets all connections and ends the thread. Safe to call twice."""
        if self._thread is None or self._closed:
            return
        self._closed = self._stopping = True
        self._wake()
        self._thread.join(CONTROL_TIMEOUT_S)
        if self._thread.is_alive():
            raise ProxyError(f"the proxy's thread did not end within {CONTROL_TIMEOUT_S:g} s")
        self._waker.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FaultProxy {self.host}:{self.port} to {self._target[0]}:{self._target[1]}>"

    def url(self, url: str) -> str:
        """The same URL or connection string through the proxy; several hosts become this one."""
        rewritten, found = _AUTHORITY.subn(
            lambda match: f"{match['scheme']}{match['user'] or ''}{self.host}:{self.port}", url, count=1
        )
        if not found:
            raise ValueError("no scheme://host in this URL")
        return rewritten

    # -- faults -------------------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Resets all open connections; returns how many. New ones are taken."""
        cut = 0

        def act() -> None:
            nonlocal cut
            for link in list(self._links):
                self._abort(link)
                cut += 1

        self._do(act)
        return cut

    def cut_after(
        self,
        *,
        client_bytes: int | None = None,
        server_bytes: int | None = None,
        connection: int | None = None,
        live: bool = False,
        times: int | None = 1,
    ) -> Cut:
        """Cuts a connection when exactly this many bytes were forwarded in one direction.

        Counted from the start of each connection opened from now on; `connection=n` takes only the n-th of these (1 is the
        next). `live=True` takes those open now as well, counted from now. `times=None` cuts every one that gets there.
        """
        if (client_bytes is None) == (server_bytes is None):
            raise ValueError("give client_bytes or server_bytes, one of them")
        direction, after = ("client", client_bytes) if client_bytes is not None else ("server", server_bytes)
        assert after is not None
        if after < 0 or (connection is not None and connection < 1) or (times is not None and times < 1):
            raise ValueError("bytes start at 0, connection and times at 1")
        if live and connection is not None:
            raise ValueError("connection= counts those opened from now on; live=True is for the open ones")
        cut = Cut(direction, after, connection, times)

        def act() -> None:
            self._cuts.append(cut)
            if live:
                for link in self._links:
                    pipe = link.client if direction == "client" else link.server
                    pipe.cuts.append((cut, pipe.forwarded + after))
                self._touch_all()

        self._do(act)
        return cut

    def silence(self) -> None:
        """Half open: connections are accepted and stay, and nothing goes through in either direction."""
        self._do(lambda: self._set_silent({"client", "server"}))

    def silence_client(self) -> None:
        """What the client sends does not arrive; the broker is still heard."""
        self._do(lambda: self._set_silent(self._silent | {"client"}))

    def silence_server(self) -> None:
        """What the broker sends does not arrive; the client is still heard."""
        self._do(lambda: self._set_silent(self._silent | {"server"}))

    def delay(self, seconds: float) -> None:
        """Everything read from now on takes this much longer, in each direction; 0 ends it."""
        if seconds < 0:
            raise ValueError("a delay is not negative")

        def act() -> None:
            self._delay_s = seconds

        self._do(act)

    def refuse(self) -> None:
        """New connections are refused; open ones stay. The port is kept."""
        self._do(self._refuse)

    def heal(self) -> None:
        """Ends silence, refusal and delay and disarms every cut. What was held back goes on."""

        def act() -> None:
            self._delay_s = 0.0
            self._cuts.clear()
            for link in self._links:
                for pipe in link.pipes:
                    pipe.cuts.clear()
            self._listen()
            self._set_silent(set())

        self._do(act)

    # -- what went through --------------------------------------------------------------------------------------------

    @property
    def open_connections(self) -> int:
        return len(self._links)

    @property
    def traffic(self) -> list[Traffic]:
        """Per connection in the order of opening, the last 1000."""
        return list(self._traffic)

    def wait_for(
        self,
        *,
        connections: int = 0,
        client_bytes: int = 0,
        server_bytes: int = 0,
        open_connections: int | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Returns when the counters have got this far (`open_connections`: are exactly this); else `TimeoutError`."""

        def there() -> bool:
            return (
                self.connections >= connections
                and self.client_bytes >= client_bytes
                and self.server_bytes >= server_bytes
                and open_connections in (None, len(self._links))
            )

        with self._changed:
            if not self._changed.wait_for(there, timeout_s):
                raise TimeoutError(
                    f"after {timeout_s:g} s: {self.connections} connections, {len(self._links)} open, "
                    f"{self.client_bytes} client bytes, {self.server_bytes} server bytes"
                )

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _do(self, command: Callable[[], None]) -> None:
        if self._thread is None or self._stopping:
            raise ProxyError("the proxy is not running")
        done, errors = threading.Event(), list[BaseException]()
        self._commands.append((command, done, errors))
        self._wake()
        if not done.wait(CONTROL_TIMEOUT_S):
            raise ProxyError(f"the proxy did not answer within {CONTROL_TIMEOUT_S:g} s")
        if errors:
            raise errors[0]

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except (BlockingIOError, BrokenPipeError):
            pass  # full of wake-ups already, or the thread has just ended

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, events in self._selector.select(self._pause_s()):
                    self._handle(key, events)
                now = time.monotonic()
                for link in list(self._links):
                    if link.dies_at is not None or self._delay_s or any(p.chunks for p in link.pipes):
                        self._advance(link, now)
                with self._changed:
                    self._changed.notify_all()
        finally:
            self._stopping = True
            for link in list(self._links):
                self._abort(link)
            self._listener.close()
            self._selector.close()
            self._woken.close()
            while self._commands:
                _, done, errors = self._commands.popleft()
                errors.append(ProxyError("the proxy was closed"))
                done.set()
            with self._changed:
                self._changed.notify_all()

    def _pause_s(self) -> float | None:
        if any(link.dies_at is not None for link in self._links):
            return _DRAIN_INTERVAL_S
        waits = [
            pipe.chunks[0][0]
            for link in self._links
            for pipe in link.pipes
            if pipe.chunks and pipe.chunks[0][0] and pipe.name not in self._silent
        ]
        return max(0.0, min(waits) - time.monotonic()) if waits else None

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._woken:
            try:
                self._woken.recv(4096)
            except BlockingIOError:
                pass
            while self._commands:
                command, done, errors = self._commands.popleft()
                try:
                    command()
                except BaseException as error:
                    errors.append(error)
                done.set()
        elif key.fileobj is self._listener:
            self._accept()
        else:
            link = key.data
            if link not in self._links:
                return  # aborted by an event before this one
            if link.connecting and key.fd == link.client.target.fileno() and events & selectors.EVENT_WRITE:
                if link.client.target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._abort(link)
                    return
                link.connecting = False
            elif events & selectors.EVENT_READ:
                if key.fileobj is link.client.source:
                    self._read(link.client, back=link.server)
                else:
                    self._read(link.server, back=link.client)
            self._advance(link, time.monotonic())

    # -- connections --------------------------------------------------------------------------------------------------

    def _bound(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def _listen(self) -> None:
        self._listener.listen(_BACKLOG)
        if self._listener.fileno() not in self._selector.get_map():
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _refuse(self) -> None:
        if self._listener.fileno() not in self._selector.get_map():
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        # Bound and not listening: connections are refused and nobody else can take the port.
        self._listener = self._bound(self.port)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # gone again before we came
        server = socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        traffic = Traffic()
        link = Link(Pipe("client", client, server), Pipe("server", server, client), traffic, connecting=True)
        self.connections += 1
        self._traffic.append(traffic)
        self._links[link] = None
        for cut in self._cuts:
            if cut.takes():
                (link.client if cut.direction == "client" else link.server).cuts.append(
                    (cut, cut.after_bytes)
                )
        try:
            server.connect(self._target)
        except BlockingIOError:
            pass
        except OSError:
            self._abort(link)
            return
        self._advance(link, time.monotonic())

    def _read(self, pipe: Pipe, back: Pipe) -> None:
        if not self._may_read(pipe):
            return
        try:
            data = pipe.source.recv(min(READ_BYTES, BUFFER_BYTES - pipe.held))
        except BlockingIOError:
            return
        except OSError:
            pipe.ended = "rst"
            return
        if not data:
            # A failed send has eaten the error that told of the reset.
            pipe.ended = "rst" if back.broken else "fin"
            return
        not_before = time.monotonic() + self._delay_s if self._delay_s else 0.0
        pipe.chunks.append((not_before, memoryview(data)))
        pipe.held += len(data)

    def _advance(self, link: Link, now: float) -> None:
        """Forwards what may go, passes on what has ended, cuts what is due, and says what to wait for next."""
        if link.dies_at is None and not link.connecting:
            for pipe in link.pipes:
                if pipe.name not in self._silent and not pipe.finished:
                    self._forward(link, pipe, now)
        if link.dies_at is None and self._due(link):
            link.dies_at = now + DRAIN_TIMEOUT_S
        if link.dies_at is None and self._broken(link):
            link.dies_at = now + DRAIN_TIMEOUT_S
        if link.dies_at is not None:
            if now >= link.dies_at or not any(_unsent(sock) for sock in link.sockets):
                self._abort(link)
            else:
                self._watch(link, 0, 0)
            return
        if all(pipe.finished for pipe in link.pipes):
            self._drop(link)
            return
        self._watch(link, self._events(link, link.client.source), self._events(link, link.server.source))

    def _forward(self, link: Link, pipe: Pipe, now: float) -> None:
        while pipe.chunks and pipe.chunks[0][0] <= now:
            not_before, data = pipe.chunks[0]
            # Never one byte more than the nearest cut allows.
            allowed = min((at - pipe.forwarded for _, at in pipe.cuts), default=len(data))
            if allowed <= 0:
                return
            try:
                sent = pipe.target.send(data[:allowed])
            except BlockingIOError:
                return
            except OSError:
                # The target takes nothing any more. What it said last is still read, from the other pipe.
                pipe.chunks.clear()
                pipe.held = 0
                pipe.finished = pipe.broken = True
                return
            pipe.chunks[0] = (not_before, data[sent:])
            if sent == len(data):
                pipe.chunks.popleft()
            pipe.held -= sent
            pipe.forwarded += sent
            if pipe.name == "client":
                link.traffic.client_bytes += sent
                self.client_bytes += sent
            else:
                link.traffic.server_bytes += sent
                self.server_bytes += sent
        if pipe.ended and not pipe.chunks:
            pipe.finished = True
            if pipe.ended == "fin":
                try:
                    pipe.target.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # reset meanwhile: the other pipe reads it

    def _broken(self, link: Link) -> bool:
        """Whether one side was reset and all it had said is passed on: then the other is reset too."""
        return any(p.ended == "rst" and p.finished for p in link.pipes) or (
            all(p.finished for p in link.pipes) and any(p.ended != "fin" for p in link.pipes)
        )

    def _due(self, link: Link) -> bool:
        """Whether a cut has been reached; fires it."""
        due = False
        for pipe in link.pipes:
            for cut, at in pipe.cuts:
                if pipe.forwarded >= at and not cut.spent and not link.connecting:
                    cut.fire()
                    due = True
        if due:
            spent = {cut for cut in self._cuts if cut.spent}
            self._cuts = [cut for cut in self._cuts if cut not in spent]
            for each in self._links:
                for pipe in each.pipes:
                    pipe.cuts = [(cut, at) for cut, at in pipe.cuts if not cut.spent]
        return due

    def _may_read(self, pipe: Pipe) -> bool:
        return (
            not pipe.ended
            and not pipe.finished
            and pipe.held < BUFFER_BYTES
            and pipe.name not in self._silent
        )

    def _events(self, link: Link, sock: socket.socket) -> int:
        incoming, outgoing = (
            (link.client, link.server) if sock is link.client.source else (link.server, link.client)
        )
        connecting = link.connecting and sock is link.client.target
        events = 0
        if self._may_read(incoming) and not connecting:
            events |= selectors.EVENT_READ
        # Delayed bytes wait for their time, not for room.
        sendable = bool(outgoing.chunks) and outgoing.name not in self._silent
        if connecting or (sendable and outgoing.chunks[0][0] <= time.monotonic() and not link.connecting):
            events |= selectors.EVENT_WRITE
        return events

    def _watch(self, link: Link, client_events: int, server_events: int) -> None:
        for sock, events in zip(link.sockets, (client_events, server_events), strict=True):
            key = self._selector.get_map().get(sock.fileno())
            if key is None:
                if events:
                    self._selector.register(sock, events, link)
            elif not events:
                self._selector.unregister(sock)
            elif key.events != events:
                self._selector.modify(sock, events, link)

    def _touch_all(self) -> None:
        now = time.monotonic()
        for link in list(self._links):
            self._advance(link, now)

    def _set_silent(self, directions: set[str]) -> None:
        self._silent = set(directions)
        self._touch_all()

    def _abort(self, link: Link) -> None:
        for sock in link.sockets:
            # No lingering: close() sends a reset and not a FIN.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(link)

    def _drop(self, link: Link) -> None:
        self._watch(link, 0, 0)
        for sock in link.sockets:
            sock.close()
        del self._links[link]


def _unsent(sock: socket.socket) -> int:
    """Bytes still in our kernel; a reset would throw them away. Elsewhere than on Linux unknown, taken as none."""
    if sys.platform != "linux":
        return 0
    import fcntl

    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), _SIOCOUTQNSD, count)
    except OSError:
        return 0
    return count[0]
