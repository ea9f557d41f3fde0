"""Runs one program over pika on one broker, and writes down all that can be seen.

Rules
- Four channels on two connections; a closed one is opened again at once, under the same name.
- After each operation the broker is given time to say everything: a round trip on the operation's channel, then silence
  for `quiet_s` on all connections.
- Of what is asynchronous only the order within a channel is written down; between channels there is none.
- A program with `wait` is only good if its operations were fast enough in between; else `Unclean`, and it is run again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pika
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelClosed,
    ChannelClosedByBroker,
    ChannelWrongStateError,
    ConnectionClosedByBroker,
    DuplicateConsumerTag,
)

from .acts import ACTS, CUT_S
from .making import CHANNELS, EXCHANGES, QUEUES, SHORT_MS, Op
from .operations import OPS_BETWEEN_WAITS
from .writing import Writing

Trace = list[Any]

QUIET_S: Final = 0.012
QUORUM_QUIET_S: Final = 0.05
WAIT_S: Final = 2 * SHORT_MS / 1000 + 0.3  # two stages of "short", one after the other
CLEAN_S: Final = SHORT_MS / 1000 * 0.8
SOCKET_TIMEOUT_S: Final = 10.0


class Unclean(Exception):
    """The machine was too slow for what the program says about time."""


class Executor:
    def __init__(self, url: str, prefix: str, patience: float = 1.0) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.socket_timeout = SOCKET_TIMEOUT_S
        self._parameters.blocked_connection_timeout = SOCKET_TIMEOUT_S
        self.writing = Writing(prefix)
        self.patience = patience
        self.connections: dict[str, Any] = {}
        self.channels: dict[str, Any] = {}
        self.unacked: dict[str, list[int]] = {name: [] for name in CHANNELS}
        self.acted: str | None = None  # the channel of the operation at hand
        self._events: dict[str, list[Any]] = {name: [] for name in CHANNELS}
        self.quorum = False  # the program has such a queue
        self._touched = 0.0
        self._clean_from = time.monotonic()

    # ------------------------------------------------------------------------------------------------- programs
    def run(self, ops: list[Op]) -> Trace:
        self.quorum = any(op.get("arguments", {}).get("x-queue-type") == "quorum" for op in ops)
        self._quiet_s = (QUORUM_QUIET_S if self.quorum else QUIET_S) * self.patience
        if any(op["op"] == "wait" for op in ops):
            self._quiet_s = min(self._quiet_s, CLEAN_S / (2 * OPS_BETWEEN_WAITS))
        trace: Trace = []
        try:
            for letter in "ab":
                self.connect(letter)
            self._clean_from = time.monotonic()
            for op in ops:
                trace.append(self._step(op))
            trace.append(self._what_is_left())
        finally:
            self._tidy()
        return trace

    def _step(self, op: Op) -> Any:
        letter = op["connection"] if "connection" in op else op["ch"][0] if "ch" in op else "a"
        self.acted = op.get("ch")
        try:
            result = ACTS[op["op"]](self, op)
        except (ChannelClosed, ChannelWrongStateError) as error:
            result = ["channel closed", self._reason(self.acted, error)]
        except AMQPConnectionError as error:
            result = ["connection closed", self._closed(letter, error)]
        except DuplicateConsumerTag:
            result = "the client itself refuses"
        return [result, self._what_came()]

    def wait(self) -> None:
        if time.monotonic() - self._clean_from > CLEAN_S:
            raise Unclean
        deadline = time.monotonic() + WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            for connection in self.connections.values():
                connection.process_data_events(min(left, 0.02))
        self._clean_from = time.monotonic()

    def _what_came(self) -> Any:
        name = self.acted
        if name is not None and self.channels[name].is_open:
            try:
                self.channels[name].flow(True)  # a round trip
            except AMQPConnectionError as error:
                self._tell(name, ["connection closed", self._closed(name[0], error)])
            except AMQPError:
                pass  # the channel is closed: told below
        self.be_quiet()
        for name, channel in self.channels.items():
            if not channel.is_open:
                self._events[name].append(["closed", self._reason(name, None)])
                self.open(name)
        events = {name: told for name, told in self._events.items() if told}
        self._events = {name: [] for name in CHANNELS}
        return events

    def be_quiet(self) -> None:
        """Until nothing has been said for a while."""
        self._touched = time.monotonic()
        while time.monotonic() - self._touched < self._quiet_s:
            for letter, connection in list(self.connections.items()):
                try:
                    if connection._closed_result.ready:
                        raise connection._closed_result.value.error
                    connection.process_data_events(0)
                except AMQPConnectionError as error:
                    self._tell(f"{letter}0", ["connection closed", self._closed(letter, error)])
            time.sleep(0.002)

    def _reason(self, name: str | None, error: Exception | None) -> Any:
        if isinstance(error, ChannelClosedByBroker):
            return [error.reply_code, self.writing.plain(error.reply_text)]
        reason = getattr(self.channels.get(name or ""), "_closing_reason", None)
        if isinstance(reason, ChannelClosedByBroker):
            return [reason.reply_code, self.writing.plain(reason.reply_text)]
        return type(reason or error).__name__

    def _closed(self, letter: str, error: Exception) -> Any:
        self.connect(letter)
        if isinstance(error, ConnectionClosedByBroker):
            return [error.reply_code, self.writing.plain(error.reply_text)]
        return type(error).__name__

    def _what_is_left(self) -> Any:
        """All readers gone, one after the other: what lies in each queue, in order."""
        for letter in list(self.connections):
            self.close_connection(letter)
            del self.connections[letter]
            self.be_quiet()
        time.sleep(CUT_S * self.patience)
        left: dict[str, Any] = {}
        with self._admin() as channel:
            for queue in QUEUES:
                try:
                    left[queue] = list(self._drained(channel, queue))
                except ChannelClosedByBroker as error:
                    left[queue] = [error.reply_code, self.writing.plain(error.reply_text)]
                    channel = channel.connection.channel()
        return left

    def _drained(self, channel: Any, queue: str) -> Iterator[Any]:
        while True:
            method, properties, body = channel.basic_get(self.writing.name(queue), auto_ack=True)
            if method is None:
                return
            seen = self.writing.message(method.exchange, method.routing_key, properties, body)
            yield [method.redelivered, seen]

    def _tidy(self) -> None:
        for letter in list(self.connections):
            self._drop(letter)
        with contextlib.suppress(AMQPError), self._admin() as channel:
            for queue in QUEUES:
                channel.queue_delete(self.writing.name(queue))
            for exchange in EXCHANGES:
                channel.exchange_delete(self.writing.name(exchange))

    def _drop(self, letter: str) -> None:
        connection = self.connections.pop(letter)
        with contextlib.suppress(AMQPError):
            if connection.is_open:
                connection.close()

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(self._parameters)
        try:
            yield connection.channel()
        finally:
            with contextlib.suppress(AMQPError):
                connection.close()

    # ------------------------------------------------------------------------------------ channels, what they say
    def connect(self, letter: str) -> None:
        self.connections[letter] = pika.BlockingConnection(self._parameters)
        for name in CHANNELS:
            if name[0] == letter:
                self.open(name)

    def open(self, name: str) -> None:
        channel = self.channels[name] = self.connections[name[0]].channel()
        self.unacked[name] = []
        if name.endswith("0"):
            channel.confirm_delivery()
        else:
            channel.add_on_return_callback(self._on_return(name))
        channel.add_on_cancel_callback(self._on_cancel(name))

    def close(self, name: str) -> None:
        """At one stroke: pika would cancel each consumer first."""
        channel = self.channels[name]
        channel._cancel_all_consumers = lambda: None
        channel._impl._consumers.clear()
        channel.close()

    def close_connection(self, letter: str) -> None:
        """One channel after the other, then the connection."""
        self.leave_alone(f"{letter}0")
        for name in CHANNELS:
            if name[0] == letter and self.channels[name].is_open:
                self.close(name)
        self.connections[letter].close()

    def leave_alone(self, name: str) -> None:
        """Of its connection only this channel still has messages or consumers."""
        for other in CHANNELS:
            channel = self.channels[other]
            if other[0] != name[0] or other == name or not channel.is_open:
                continue
            if channel.consumer_tags or self.unacked[other]:
                self.close(other)
                self.be_quiet()
                if self.connections[name[0]].is_open:
                    self.open(other)

    def _on_return(self, name: str) -> Callable[..., None]:
        def told(_ch: Any, method: Any, properties: Any, body: bytes) -> None:
            seen = self.writing.message(method.exchange, method.routing_key, properties, body)
            self._tell(name, ["returned", method.reply_code, method.reply_text, seen])

        return told

    def _on_cancel(self, name: str) -> Callable[..., None]:
        def told(frame: Any) -> None:
            self._tell(name, ["cancelled", frame.method.consumer_tag])

        return told

    def on_message(self, name: str, no_ack: bool) -> Callable[..., None]:
        def told(_ch: Any, method: Any, properties: Any, body: bytes) -> None:
            if not no_ack:
                self.unacked[name].append(method.delivery_tag)
            seen = self.writing.message(method.exchange, method.routing_key, properties, body)
            self._tell(
                name, ["delivered", method.consumer_tag, method.delivery_tag, method.redelivered, seen]
            )

        return told

    def _tell(self, name: str, what: Any) -> None:
        self._touched = time.monotonic()
        self._events[name].append(what)
