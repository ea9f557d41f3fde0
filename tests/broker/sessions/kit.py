"""A client of an AMQP session without sockets: frames go in, events come out, time stands still until it is moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unimq.broker.engine import Engine, ManualClock
from unimq.broker.engine.dialect import DIALECTS
from unimq.broker.engine.vhost import VHost
from unimq.broker.faults import Faults
from unimq.broker.sessions.amqp091 import Connection, Node
from unimq.wire.amqp091 import Decoder, content_frames, method_frame
from unimq.wire.amqp091.decoder import Event
from unimq.wire.amqp091.properties import make_properties
from unimq.wire.amqp091.spec import PROTOCOL_HEADER

ALL_CHANNELS = set(range(1, 65_536))
CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
}


class FakeLine:
    """What the server would be. `ended`: the session has closed it ("closed") or cut it ("cut")."""

    def __init__(self, certificate_name: str | None = None) -> None:
        self.peer = "test:1"
        self.certificate_name = certificate_name
        self.writable = True
        self.pauses: set[str] = set()
        self.ended: str | None = None
        self.waiting = 0
        self.time_s = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def flush_soon(self) -> None:
        pass

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def cut(self) -> None:
        self.ended = "cut"

    def pause_reading(self, reason: str) -> None:
        self.pauses.add(reason)

    def resume_reading(self, reason: str) -> None:
        self.pauses.discard(reason)

    @property
    def reading(self) -> bool:
        return not self.pauses

    def now(self) -> float:
        return self.time_s

    def waiting_bytes(self) -> int:
        return self.waiting

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        timer = (self.time_s + seconds, call)
        self.timers.append(timer)

        def stop() -> None:
            if timer in self.timers:
                self.timers.remove(timer)

        return stop

    def pass_time(self, seconds: float) -> None:
        until = self.time_s + seconds
        while self.timers and (timer := min(self.timers, key=lambda each: each[0]))[0] <= until:
            self.timers.remove(timer)
            self.time_s = timer[0]
            timer[1]()
        self.time_s = until


class World:
    """An engine, a node, and clients of it."""

    def __init__(
        self, *, dialect: str = "3", max_bytes: int = 1 << 26, vhosts: tuple[str, ...] = ("/",)
    ) -> None:
        self.clock = ManualClock()
        self.engine = Engine(self.clock, max_bytes=max_bytes)
        self.faults = Faults()
        hosts = {name: VHost(self.engine, name, DIALECTS[dialect]) for name in vhosts}
        users = {"guest": "guest", "other": "secret"}
        self.node = Node(self.engine, hosts, users, dialect=DIALECTS[dialect], faults=self.faults)

    def client(self, **options: Any) -> Client:
        return Client(self, **options)

    def open(self, *channels: int, **options: Any) -> Client:
        """Connected, with these channels (1 without any)."""
        made = Client(self, **options)
        made.connect()
        for number in channels or (1,):
            made.say(number, "channel.open")
        made.take()
        return made

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.engine.tick()


class Client:
    def __init__(self, world: World, certificate_name: str | None = None, **capabilities: bool) -> None:
        self.line = FakeLine(certificate_name)
        self.session = Connection(self.line, world.node)
        self.capabilities = CAPABILITIES | capabilities
        self._decoder = Decoder(expect_protocol_header=False)
        self._decoder.frame_max = 0
        self._decoder.channels = ALL_CHANNELS

    def connect(self, vhost: str = "/", heartbeat_s: int = 0) -> None:
        self.send(PROTOCOL_HEADER)
        self.login()
        self.say(0, "connection.tune-ok", 2047, 131_072, heartbeat_s)
        self.say(0, "connection.open", vhost)

    def login(self, mechanism: str = "PLAIN", response: bytes = b"\x00guest\x00guest") -> None:
        properties = {"capabilities": self.capabilities}
        self.say(0, "connection.start-ok", properties, mechanism, response, "en_US")

    def send(self, data: bytes) -> None:
        if self.line.ended is None:
            self.session.receive(data)

    def say(self, channel: int, name: str, *args: Any) -> None:
        self.send(method_frame(channel, name, *args))

    def publish(
        self,
        key: str,
        body: bytes = b"x",
        exchange: str = "",
        *,
        channel: int = 1,
        mandatory: bool = False,
        **properties: Any,
    ) -> None:
        method = method_frame(channel, "basic.publish", exchange, key, mandatory, False)
        self.send(method + content_frames(channel, make_properties(**properties).raw, body, 131_072))

    def declare(self, queue: str, channel: int = 1, **arguments: Any) -> None:
        named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
        self.say(channel, "queue.declare", queue, False, True, False, False, False, named)

    def consume(
        self,
        queue: str,
        tag: str = "t",
        *,
        channel: int = 1,
        no_ack: bool = False,
        exclusive: bool = False,
        **arguments: Any,
    ) -> None:
        named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
        self.say(channel, "basic.consume", queue, tag, False, no_ack, exclusive, False, named)

    def qos(self, prefetch: int, *, channel: int = 1, whole_channel: bool = False) -> None:
        self.say(channel, "basic.qos", 0, prefetch, whole_channel)

    def take(self) -> list[Event]:
        """What the session has said since the last time."""
        events: list[Event] = []
        while True:
            self.session.flushing()
            data = b"".join(self.session.out)
            self.session.out.clear()
            events += self._decoder.feed(data)
            if not (self.session.wants_turn and self.line.writable):
                return events
            self.session.writable_again()

    def names(self) -> list[str]:
        return [name for _, name, _ in self.take()]

    def bodies(self) -> list[bytes]:
        """Of the deliveries, in order."""
        return [args[-1] for _, name, args in self.take() if name == "basic.deliver"]

    def error(self) -> tuple[int, str, tuple[int, int]]:
        """The last close: code, text, ids."""
        _, name, args = self.take()[-1]
        assert name in ("channel.close", "connection.close"), name
        return args[0], args[1], args[2:]

    def gone(self) -> None:
        self.session.lost()
