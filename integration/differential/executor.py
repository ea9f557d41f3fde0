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
    NackError,
    UnroutableError,
)

from .operations import CHANNELS, EXCHANGES, OPS_BETWEEN_WAITS, QUEUES, SHORT_MS, Op

Trace = list[Any]

QUIET_S: Final = 0.012
QUORUM_QUIET_S: Final = 0.05
CUT_S: Final = 0.08
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
        self._prefix = prefix
        self._patience = patience
        self._connections: dict[str, Any] = {}
        self._channels: dict[str, Any] = {}
        self._events: dict[str, list[Any]] = {name: [] for name in CHANNELS}
        self._unacked: dict[str, list[int]] = {name: [] for name in CHANNELS}
        self._touched = 0.0
        self._acted: str | None = None  # the channel of the operation at hand
        self._clean_from = time.monotonic()

    # ------------------------------------------------------------------------------------------------- programs
    def run(self, ops: list[Op]) -> Trace:
        quorum = any(op.get("arguments", {}).get("x-queue-type") == "quorum" for op in ops)
        self._quiet_s = (QUORUM_QUIET_S if quorum else QUIET_S) * self._patience
        if any(op["op"] == "wait" for op in ops):
            self._quiet_s = min(self._quiet_s, CLEAN_S / (2 * OPS_BETWEEN_WAITS))
        trace: Trace = []
        for letter in "ab":
            self._connect(letter)
        try:
            self._clean_from = time.monotonic()
            for op in ops:
                trace.append(self._step(op))
            trace.append(self._what_is_left())
        finally:
            self._tidy()
        return trace

    def _step(self, op: Op) -> Any:
        letter = op["connection"] if "connection" in op else op["ch"][0] if "ch" in op else "a"
        self._acted = op.get("ch")
        try:
            result = getattr(self, f"_{op['op']}")(op)
        except (ChannelClosed, ChannelWrongStateError) as error:
            result = ["channel closed", self._reason(self._acted, error)]
        except AMQPConnectionError as error:
            result = ["connection closed", self._closed(letter, error)]
        except DuplicateConsumerTag:
            result = "the client itself refuses"
        events = self._settle(op)
        return [result, events]

    def _settle(self, op: Op) -> Any:
        name = self._acted
        if name is not None and self._channels[name].is_open:
            try:
                self._channels[name].flow(True)
            except AMQPConnectionError as error:
                self._tell(name, ["connection closed", self._closed(name[0], error)])
            except AMQPError:
                pass  # the channel is closed: told below
        self._touched = time.monotonic()
        while time.monotonic() - self._touched < self._quiet_s:
            for letter, connection in list(self._connections.items()):
                try:
                    if connection._closed_result.ready:
                        raise connection._closed_result.value.error
                    connection.process_data_events(0)
                except AMQPConnectionError as error:
                    self._tell(f"{letter}0", ["connection closed", self._closed(letter, error)])
            time.sleep(0.002)
        for name, channel in self._channels.items():
            if not channel.is_open:
                self._events[name].append(["closed", self._reason(name, None)])
                self._open(name)
        events = {name: told for name, told in self._events.items() if told}
        self._events = {name: [] for name in CHANNELS}
        return events

    def _reason(self, name: str | None, error: Exception | None) -> Any:
        if isinstance(error, ChannelClosedByBroker):
            return [error.reply_code, self._plain(error.reply_text)]
        reason = getattr(self._channels.get(name or ""), "_closing_reason", None)
        if isinstance(reason, ChannelClosedByBroker):
            return [reason.reply_code, self._plain(reason.reply_text)]
        return type(reason or error).__name__

    def _closed(self, letter: str, error: Exception) -> Any:
        self._connect(letter)
        if isinstance(error, ConnectionClosedByBroker):
            return [error.reply_code, self._plain(error.reply_text)]
        return type(error).__name__

    def _what_is_left(self) -> Any:
        """All readers gone: what lies in each queue, in order."""
        self._drop_connections()
        time.sleep(CUT_S * self._patience)
        left: dict[str, Any] = {}
        with self._admin() as channel:
            for queue in QUEUES:
                found: list[Any] = []
                try:
                    while True:
                        method, properties, body = channel.basic_get(self._name(queue), auto_ack=True)
                        if method is None:
                            break
                        found.append(
                            [
                                method.redelivered,
                                self._message(method.exchange, method.routing_key, properties, body),
                            ]
                        )
                    left[queue] = found
                except ChannelClosedByBroker as error:
                    left[queue] = [error.reply_code, self._plain(error.reply_text)]
                    channel = channel.connection.channel()
        return left

    def _tidy(self) -> None:
        self._drop_connections()
        with contextlib.suppress(AMQPError), self._admin() as channel:
            for queue in QUEUES:
                channel.queue_delete(self._name(queue))
            for exchange in EXCHANGES:
                channel.exchange_delete(self._name(exchange))

    def _drop_connections(self) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(AMQPError):
                if connection.is_open:
                    connection.close()
        self._connections.clear()

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(self._parameters)
        try:
            yield connection.channel()
        finally:
            with contextlib.suppress(AMQPError):
                connection.close()

    # ------------------------------------------------------------------------------------------- channels, names
    def _connect(self, letter: str) -> None:
        self._connections[letter] = pika.BlockingConnection(self._parameters)
        for name in CHANNELS:
            if name[0] == letter:
                self._open(name)

    def _open(self, name: str) -> None:
        channel = self._channels[name] = self._connections[name[0]].channel()
        self._unacked[name] = []
        if name.endswith("0"):
            channel.confirm_delivery()
        else:
            channel.add_on_return_callback(self._on_return(name))
        channel.add_on_cancel_callback(self._on_cancel(name))

    def _on_return(self, name: str) -> Callable[..., None]:
        def told(_ch: Any, method: Any, properties: Any, body: bytes) -> None:
            self._tell(name, ["returned", method.reply_code, method.reply_text,
                              self._message(method.exchange, method.routing_key, properties, body)])  # fmt: skip

        return told

    def _on_cancel(self, name: str) -> Callable[..., None]:
        def told(frame: Any) -> None:
            self._tell(name, ["cancelled", frame.method.consumer_tag])

        return told

    def _on_message(self, name: str, no_ack: bool) -> Callable[..., None]:
        def told(_ch: Any, method: Any, properties: Any, body: bytes) -> None:
            if not no_ack:
                self._unacked[name].append(method.delivery_tag)
            seen = self._message(method.exchange, method.routing_key, properties, body)
            self._tell(
                name, ["delivered", method.consumer_tag, method.delivery_tag, method.redelivered, seen]
            )

        return told

    def _tell(self, name: str, what: Any) -> None:
        self._touched = time.monotonic()
        self._events[name].append(what)

    def _name(self, name: str) -> str:
        return self._prefix + name if name in QUEUES or name in EXCHANGES else name

    def _plain(self, value: Any) -> Any:
        """Without the run's prefix, at any depth."""
        if isinstance(value, str):
            return value.replace(self._prefix, "")
        if isinstance(value, list):
            return [self._plain(each) for each in value]
        if isinstance(value, dict):
            return {
                self._plain(key): "TIME" if key == "time" and not isinstance(each, str) else self._plain(each)
                for key, each in value.items()
            }
        return f"{type(value).__name__} {value!r}" if value is not None else None

    def _named(self, value: Any, key: str = "") -> Any:
        """With the run's prefix where a name stands."""
        if isinstance(value, str):
            return self._name(value)
        if isinstance(value, list):
            return [self._named(each) for each in value]
        if isinstance(value, dict):
            return {name: self._named(each, name) for name, each in value.items()}
        return value

    def _message(self, exchange: str, key: str, properties: Any, body: bytes) -> Any:
        fields = {
            name: self._plain(value) if name != "headers" else self._headers(value)
            for name, value in sorted(vars(properties).items())
            if value is not None
        }
        return [self._plain(exchange), self._plain(key), body.decode(), fields]

    def _headers(self, headers: dict[str, Any]) -> Any:
        """With their order, which is seen on the wire too."""
        return [[name, self._ordered(value)] for name, value in headers.items()]

    def _ordered(self, value: Any) -> Any:
        plain = self._plain(value)
        if (
            name_order := [list(each) for each in value if isinstance(each, dict)]
            if isinstance(value, list)
            else None
        ):
            return [plain, name_order]
        return plain

    # ------------------------------------------------------------------------------------------------ operations
    def _declare_queue(self, op: Op) -> Any:
        done = self._channels[op["ch"]].queue_declare(
            self._name(op["queue"]),
            durable=op["durable"],
            exclusive=op["exclusive"],
            auto_delete=op["auto_delete"],
            arguments=self._named(op["arguments"]),
        )
        return [done.method.message_count, done.method.consumer_count]

    _declare_otherwise = _declare_queue

    def _check_queue(self, op: Op) -> Any:
        done = self._channels[op["ch"]].queue_declare(self._name(op["queue"]), passive=True)
        return [done.method.message_count, done.method.consumer_count]

    def _delete_queue(self, op: Op) -> Any:
        done = self._channels[op["ch"]].queue_delete(
            self._name(op["queue"]), if_unused=op["if_unused"], if_empty=op["if_empty"]
        )
        return done.method.message_count

    def _purge(self, op: Op) -> Any:
        return self._channels[op["ch"]].queue_purge(self._name(op["queue"])).method.message_count

    def _declare_exchange(self, op: Op) -> Any:
        self._channels[op["ch"]].exchange_declare(
            self._name(op["exchange"]),
            op["kind"],
            durable=op["durable"],
            auto_delete=op["auto_delete"],
            internal=op["internal"],
            arguments=self._named(op["arguments"]),
        )

    def _check_exchange(self, op: Op) -> Any:
        self._channels[op["ch"]].exchange_declare(self._name(op["exchange"]), passive=True)

    def _delete_exchange(self, op: Op) -> Any:
        self._channels[op["ch"]].exchange_delete(self._name(op["exchange"]), if_unused=op["if_unused"])

    def _bind_queue(self, op: Op) -> Any:
        self._channels[op["ch"]].queue_bind(
            self._name(op["queue"]), self._name(op["exchange"]), self._name(op["key"]), op["arguments"]
        )

    def _unbind_queue(self, op: Op) -> Any:
        self._channels[op["ch"]].queue_unbind(
            self._name(op["queue"]), self._name(op["exchange"]), self._name(op["key"]), op["arguments"]
        )

    def _bind_exchange(self, op: Op) -> Any:
        self._channels[op["ch"]].exchange_bind(
            self._name(op["destination"]), self._name(op["source"]), self._name(op["key"]), op["arguments"]
        )

    def _unbind_exchange(self, op: Op) -> Any:
        self._channels[op["ch"]].exchange_unbind(
            self._name(op["destination"]), self._name(op["source"]), self._name(op["key"]), op["arguments"]
        )

    def _publish(self, op: Op) -> Any:
        """One after the other; what happens to the first of several is known before the next goes."""
        told: list[Any] = []
        for number in range(op["count"]):
            each = op if number == 0 else {**op, "body": f"{op['body']}{number}"}
            try:
                self._publish_on(self._channels[op["ch"]], each)
                told.append("sent")
            except NackError:
                told.append("nacked")
            except (ChannelClosed, ChannelWrongStateError):
                if op["ch"].endswith("0"):
                    raise
                told.append(
                    "sent"
                )  # without confirms nobody waits; the closing is told below, whenever it is seen
            except UnroutableError as error:
                told.append(["returned", [self._returned(message) for message in error.messages]])
        return told

    def _returned(self, message: Any) -> Any:
        method = message.method
        return self._message(method.exchange, method.routing_key, message.properties, message.body)

    def _publish_on(self, channel: Any, op: Op) -> None:
        properties = dict(op["properties"])
        if "headers" in properties:
            properties["headers"] = self._named(properties["headers"])
        channel.basic_publish(
            self._name(op["exchange"]),
            self._name(op["key"]),
            op["body"].encode(),
            pika.BasicProperties(**properties),
            mandatory=op["mandatory"],
        )

    def _transaction(self, op: Op) -> Any:
        channel = self._connections[op["connection"]].channel()
        told: list[Any] = []

        def returned(_ch: Any, method: Any, properties: Any, body: bytes) -> None:
            told.append(self._message(method.exchange, method.routing_key, properties, body))

        try:
            channel.add_on_return_callback(returned)
            channel.tx_select()
            for each in op["publishes"]:
                self._publish_on(channel, each)
            got = None
            if op["get"] is not None:
                method, properties, body = channel.basic_get(self._name(op["get"]))
                if method is not None:
                    got = self._message(method.exchange, method.routing_key, properties, body)
                    getattr(channel, f"basic_{op['settle']}")(method.delivery_tag)
            if op["end"] == "commit":
                channel.tx_commit()
            elif op["end"] == "rollback":
                channel.tx_rollback()
            self._connections[op["connection"]].process_data_events(0)
            channel.close()
            return ["done", got, told]
        except ChannelClosedByBroker as error:
            return ["channel closed", error.reply_code, self._plain(error.reply_text)]
        except ChannelWrongStateError:
            reason = channel._closing_reason
            return ["channel closed", reason.reply_code, self._plain(reason.reply_text)]

    def _get(self, op: Op) -> Any:
        channel = self._channels[op["ch"]]
        method, properties, body = channel.basic_get(self._name(op["queue"]), auto_ack=op["no_ack"])
        if method is None:
            return "empty"
        if not op["no_ack"]:
            self._unacked[op["ch"]].append(method.delivery_tag)
        seen = self._message(method.exchange, method.routing_key, properties, body)
        return [method.delivery_tag, method.redelivered, method.message_count, seen]

    def _consume(self, op: Op) -> Any:
        channel = self._channels[op["ch"]]
        channel.basic_qos(prefetch_count=op["prefetch"])
        channel.basic_consume(
            self._name(op["queue"]),
            self._on_message(op["ch"], op["no_ack"]),
            auto_ack=op["no_ack"],
            exclusive=op["exclusive"],
            consumer_tag=op["tag"],
            arguments=op["arguments"],
        )

    def _cancel(self, op: Op) -> Any:
        self._channels[op["ch"]].basic_cancel(op["tag"])

    def _taken(self, op: Op) -> tuple[Any, int] | None:
        """A delivery that is not settled: of the operation's channel, or of the next that holds one."""
        at = CHANNELS.index(op["ch"])
        for name in (*CHANNELS[at:], *CHANNELS[:at]):
            held = self._unacked[name]
            if held:
                which = op["which"] % len(held)
                tag = held[which]
                del held[0 if op.get("multiple") else which : which + 1]
                self._acted = name
                return self._channels[name], tag
        return None

    def _ack(self, op: Op) -> Any:
        taken = self._taken(op)
        if taken is None:
            return "nothing to settle"
        taken[0].basic_ack(taken[1], multiple=op["multiple"])
        return taken[1]

    def _nack(self, op: Op) -> Any:
        taken = self._taken(op)
        if taken is None:
            return "nothing to settle"
        taken[0].basic_nack(taken[1], multiple=op["multiple"], requeue=op["requeue"])
        return taken[1]

    def _reject(self, op: Op) -> Any:
        taken = self._taken(op)
        if taken is None:
            return "nothing to settle"
        taken[0].basic_reject(taken[1], requeue=op["requeue"])
        return taken[1]

    def _settle_unknown(self, op: Op) -> Any:
        getattr(self._channels[op["ch"]], f"basic_{op['verb']}")(777)

    def _recover(self, op: Op) -> Any:
        self._unacked[op["ch"]].clear()
        self._channels[op["ch"]].basic_recover(requeue=op["requeue"])

    def _qos(self, op: Op) -> Any:
        self._channels[op["ch"]].basic_qos(prefetch_count=op["prefetch"], global_qos=op["whole_channel"])

    def _close_channel(self, op: Op) -> Any:
        self._channels[op["ch"]].close()
        self._open(op["ch"])

    def _cut(self, op: Op) -> Any:
        connection = self._connections[op["connection"]]
        with contextlib.suppress(AMQPError):
            connection._impl._transport.abort()
        time.sleep(CUT_S * self._patience)
        self._connect(op["connection"])

    def _close_connection(self, op: Op) -> Any:
        self._connections[op["connection"]].close()
        self._connect(op["connection"])

    def _wait(self, op: Op) -> Any:
        if time.monotonic() - self._clean_from > CLEAN_S:
            raise Unclean
        deadline = time.monotonic() + WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            for connection in self._connections.values():
                connection.process_data_events(min(left, 0.02))
        self._clean_from = time.monotonic()
