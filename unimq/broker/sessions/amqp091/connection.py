"""One connection: handshake, heartbeats, channels, closing.

State     by                      then
--------  ----------------------  ----------------------------------------------------------------------------------
header    protocol header         connection.start; STARTING (another header: ours is sent, the line ends)
starting  connection.start-ok     connection.tune; TUNING (a login that fails: 403, or the line ends)
tuning    connection.tune-ok      OPENING
opening   connection.open         connection.open-ok; RUNNING (no such virtual host: 530)
running   connection.close        connection.close-ok; the line ends
          update-secret           update-secret-ok
          on a channel            see `channel.py`
any       connection.close-ok     the line ends
closing   anything else           dropped
any       what the state forbids  connection.close with 504 or the error's code; CLOSING, at most 30 s

Rules
- An error of the handshake before `opening` ends the line without a word, as RabbitMQ does, but for a refused login when
  the client said that it understands connection.close there.
- Both sides send heartbeats when idle for half the agreed time; a peer that is silent for twice the agreed time is cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

from unimq.broker.engine.errors import AmqpError
from unimq.broker.engine.vhost import VHost
from unimq.broker.faults import Rule
from unimq.wire.amqp091.decoder import HEARTBEAT, Decoder, Event
from unimq.wire.amqp091.encode import method_frame
from unimq.wire.amqp091.errors import WireError, reply_text
from unimq.wire.amqp091.limits import FRAME_MIN_BYTES
from unimq.wire.amqp091.methods import BY_NAME
from unimq.wire.amqp091.spec import HEARTBEAT_FRAME

from ..line import Line
from .channel import Channel
from .handshake import STEPS
from .limits import CHANNEL_MAX, CLOSING_MAX_S, HANDSHAKE_MAX_S, PENDING_MAX_BYTES
from .node import Node

CLOSE_OK_FRAME: Final = method_frame(0, "connection.close-ok")

_log = logging.getLogger("unimq.broker.amqp")


class Connection:
    def __init__(self, line: Line, node: Node) -> None:
        self.line = line
        self.node = node
        self.out: list[bytes] = []
        self.state = "header"
        self.decoder = Decoder()
        self.frame_max = FRAME_MIN_BYTES
        self.channel_max = CHANNEL_MAX
        self.user = ""
        self.capabilities: dict[str, Any] = {}
        self.vhost: VHost
        self.vhost_name = ""
        self.channels: dict[int, Channel] = {}
        self.talked: dict[Channel, None] = {}  # channels with something held back until the flush
        self.blocked = False
        self.pending_bytes = 0  # of contents in `out`
        self.wants_turn = False
        self._events: Iterator[Event] | None = None  # what was read and is not carried out yet
        self._later: list[bytes] = []
        self._delayed: Event | None = None  # by a fault: carried out first when its time has come
        self._spared = False
        self._tail = b""
        self.heartbeat_s = 0
        self._waiting_bytes = 0
        self._heard_at = self._said_at = line.now()
        self.stop_timer = line.call_later(HANDSHAKE_MAX_S, self._handshake_timed_out)
        self.stop_heartbeat: Callable[[], None] | None = None

    # -------------------------------------------------------------------------------------------------- the line
    def receive(self, data: bytes) -> None:
        self._heard_at = self.line.now()
        if self.state == "closed":
            return
        if self._events is not None:  # a TLS layer may hand over a little more than was asked for
            self._later.append(data)
        elif self.state == "closing":
            self._await_close_ok(data)
        else:
            self._events = self.decoder.feed(data)
            self._work()

    def _work(self) -> None:
        """Carry out what was read; stop half-way when much is waiting to be written."""
        assert self._events is not None
        channels = self.channels
        faults = self.node.faults
        try:
            for number, name, args in self._events:
                if faults.rules and (rule := self._struck(name)) is not None:
                    if rule.action == "delay":
                        self._delay(rule.delay_s, (number, name, args))
                        return
                    self._suffer(rule, number, name, args)
                else:
                    channel = channels.get(number)
                    if channel is not None and self.state == "running":
                        channel.receive(name, args)
                    else:
                        self._method(number, name, args)
                if self.state in ("closing", "closed"):
                    break
                if self.pending_bytes > PENDING_MAX_BYTES:
                    self.wants_turn = True
                    self.line.pause_reading("pending")
                    return
        except (WireError, AmqpError) as error:
            self._fail(error.code, error.text, error.class_id, error.method_id)
        except Exception:  # a fault of ours must not take the other connections with it
            _log.exception("internal error on the connection of %s", self.line.peer)
            self._fail(541, "", 0, 0)
        self._events = None
        self.node.look_at_alarm()

    def _suffer(self, rule: Rule, number: int, name: str, args: tuple[Any, ...]) -> None:
        """A fault on purpose. What it does is the table in `faults.py`."""
        if rule.action == "drop-before":
            self._drop()
            return
        channel = self.channels.get(number)
        if rule.action == "refuse":
            error = AmqpError(rule.code, rule.text)
            if channel is None:
                raise error
            channel.fail(error, name)
            return
        if channel is None:
            self._method(number, name, args)
        else:
            channel.receive(name, args)
            if rule.action == "lose-confirm" and name == "basic.publish" and channel.mode == "confirm":
                channel.withhold_last_confirm()
            if rule.action == "duplicate" and name == "basic.publish" and channel.open:
                channel.publish_again(args)
        if rule.action == "drop-after":
            self._drop()

    def _struck(self, name: str) -> Rule | None:
        """What was delayed goes on: no rule looks at it a second time."""
        if self._spared:
            self._spared = False
            return None
        return self.node.faults.strike(name)

    def _delay(self, delay_s: float, event: Event) -> None:
        self._delayed = event
        self.line.pause_reading("delay")
        self.line.call_later(delay_s, self._go_on)

    def _go_on(self) -> None:
        event, self._delayed = self._delayed, None
        self.line.resume_reading("delay")
        if event is None or self._events is None or self.state == "closed":
            return
        self._events = chain((event,), self._events)
        self._spared = True
        self._carry_on()
        self._spared = False

    def _drop(self) -> None:
        self.state = "closed"
        self.out.clear()
        self.talked.clear()
        self.line.cut()

    def flushing(self) -> None:
        if self.talked:
            for channel in self.talked:
                channel.say_confirms()
            self.talked.clear()
        if self.out:
            self._said_at = self.line.now()
        self.pending_bytes = 0

    def writable_again(self) -> None:
        self.wants_turn = False
        if self._delayed is not None:
            return
        if self._events is not None and not self._carry_on():
            return
        for channel in list(self.channels.values()):
            channel.look_for_more()
        self.node.look_at_alarm()

    def _carry_on(self) -> bool:
        """With what was read. False: not to its end."""
        self._work()
        while self._events is None and self._later and self.state != "closed":
            self.receive(self._later.pop(0))
        if self._events is not None:
            return False
        self.line.resume_reading("pending")
        return True

    def lost(self) -> None:
        self.state = "closed"
        self.stop_timer()
        if self.stop_heartbeat is not None:
            self.stop_heartbeat()
        self.node.connections.pop(self, None)
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            channel.end()
        if self.vhost_name:
            self.vhost.drop_connection(self)
        self.out.clear()
        self.node.look_at_alarm()

    def say(self, frame: bytes) -> None:
        """From outside our own turn: a delivery that another connection caused."""
        self.out.append(frame)
        self.line.flush_soon()

    # ----------------------------------------------------------------------------------------------- connection
    def _method(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        """Channel 0, and channels that are not open."""
        if name == HEARTBEAT:
            return
        step = STEPS.get((self.state, name)) if number == 0 else None
        if step is not None:
            step(self, *args)
        elif self.state != "running" or number == 0:
            self.fail_here(504, f"unexpected method in connection state {self.state}", name)
        elif name == "channel.open":
            self._open_channel(number)
        elif number in self.decoder.closing:
            if name == "channel.close-ok":
                self.decoder.closing.discard(number)
            elif name == "channel.close":  # both sides close at once: theirs is answered, ours will be
                self.out.append(method_frame(number, "channel.close-ok"))
        else:
            self.fail_here(504, "expected 'channel.open'", name)

    def _await_close_ok(self, data: bytes) -> None:
        """After an error nothing is carried out any more, and frames may have lost their bounds: only this is looked for."""
        seen = self._tail + data
        if CLOSE_OK_FRAME in seen:
            self.end()
        self._tail = seen[-len(CLOSE_OK_FRAME) + 1 :]

    def end(self) -> None:
        """Say what is left, then the line ends; `lost` follows."""
        self.state = "closed"
        self.line.close()

    # --------------------------------------------------------------------------------------------------- errors
    def fail_here(self, code: int, text: str, name: str) -> None:
        method = BY_NAME.get(name)
        ids = (0, 0) if method is None else (method.class_id, method.method_id)
        self._fail(code, text, *ids)

    def _fail(self, code: int, text: str, class_id: int, method_id: int) -> None:
        if self.state in ("closing", "closed"):
            self.end()
        elif self.state in ("header", "starting", "tuning"):
            _log.info("%s: handshake refused: %s %s", self.line.peer, code, text)
            self.end()
        else:
            self.close_with(code, text, class_id, method_id)

    def close_with(self, code: int, text: str, class_id: int, method_id: int) -> None:
        """A hard error: everything on this connection ends here."""
        self.flushing()
        self.state = "closing"
        for channel in self.channels.values():
            channel.end()
        self.channels.clear()
        self.decoder.channels.clear()
        self.out.append(
            method_frame(0, "connection.close", code, reply_text(code, text), class_id, method_id)
        )
        self.stop_timer()
        self.stop_timer = self.line.call_later(CLOSING_MAX_S, self.end)
        self.line.flush_soon()

    def close_by_operator(self, text: str) -> None:
        if self.state == "running":
            self.close_with(320, text, 0, 0)
        else:
            self.end()

    # ------------------------------------------------------------------------------------------------- channels
    def _open_channel(self, number: int) -> None:
        if len(self.channels) >= self.channel_max:
            self.fail_here(
                530,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated channel_max "
                f"({self.channel_max})",
                "channel.open",
            )
            return
        if number in self.decoder.closing:
            self.fail_here(504, "second 'channel.open' seen", "channel.open")
            return
        self.channels[number] = Channel(self, number)
        self.decoder.channels.add(number)
        self.out.append(method_frame(number, "channel.open-ok", b""))

    def forget(self, channel: Channel, *, await_close_ok: bool) -> None:
        del self.channels[channel.number]
        self.talked.pop(channel, None)
        self.decoder.channels.discard(channel.number)
        self.decoder.forget_channel(channel.number)
        if await_close_ok:
            self.decoder.closing.add(channel.number)

    # -------------------------------------------------------------------------------------- heartbeats, blocking
    def beat(self) -> None:
        """Twice per agreed interval."""
        now = self.line.now()
        interval_s = self.heartbeat_s
        if not self.line.reading:  # by our own will: then its taking what we wrote is its sign of life
            waiting = self.line.waiting_bytes()
            if self.blocked or self._delayed is not None or waiting != self._waiting_bytes:
                self._heard_at = now
            self._waiting_bytes = waiting
        if now - self._heard_at > 2 * interval_s:
            _log.info("%s: missed heartbeats from client, timeout: %ss", self.line.peer, interval_s)
            self.line.cut()
            return
        if now - self._said_at >= interval_s / 2 and self.line.writable:
            self.out.append(HEARTBEAT_FRAME)
            self.line.flush_soon()
        self.stop_heartbeat = self.line.call_later(interval_s / 2, self.beat)

    def _handshake_timed_out(self) -> None:
        _log.info("%s: handshake timed out in state %s", self.line.peer, self.state)
        self.line.cut()

    def published(self) -> None:
        """Something was published while the alarm is set."""
        if self.blocked:
            return
        self.blocked = True
        if self.capabilities.get("connection.blocked") is True:
            self.out.append(method_frame(0, "connection.blocked", "low on memory"))
        self.line.pause_reading("blocked")

    def unblock(self) -> None:
        if not self.blocked:
            return
        self.blocked = False
        self._heard_at = self.line.now()
        if self.capabilities.get("connection.blocked") is True:
            self.say(method_frame(0, "connection.unblocked"))
        self.line.resume_reading("blocked")
