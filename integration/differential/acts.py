"""How each operation is carried out over pika, and what it answers.

Rules
- An error of the broker is the executor's to write down; here only what is part of an answer is caught.
- Where a connection ends, one of its channels ends before the other: of two that end at once, nobody says whose messages
  come back first.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pika
from pika.exceptions import (
    ChannelClosed,
    ChannelClosedByBroker,
    ChannelWrongStateError,
    NackError,
    UnroutableError,
)

from .making import CHANNELS, Op

if TYPE_CHECKING:
    from .executor import Executor

CUT_S: Final = 0.08  # by then a broker has seen that a connection has gone


# -------------------------------------------------------------------------------------------------------- topology
def declare_queue(x: Executor, op: Op) -> Any:
    done = x.channels[op["ch"]].queue_declare(
        x.writing.name(op["queue"]),
        durable=op["durable"],
        exclusive=op["exclusive"],
        auto_delete=op["auto_delete"],
        arguments=x.writing.named(op["arguments"]),
    )
    return [done.method.message_count, done.method.consumer_count]


def check_queue(x: Executor, op: Op) -> Any:
    done = x.channels[op["ch"]].queue_declare(x.writing.name(op["queue"]), passive=True)
    return [done.method.message_count, done.method.consumer_count]


def delete_queue(x: Executor, op: Op) -> Any:
    done = x.channels[op["ch"]].queue_delete(
        x.writing.name(op["queue"]), if_unused=op["if_unused"], if_empty=op["if_empty"]
    )
    return done.method.message_count


def purge(x: Executor, op: Op) -> Any:
    return x.channels[op["ch"]].queue_purge(x.writing.name(op["queue"])).method.message_count


def declare_exchange(x: Executor, op: Op) -> Any:
    x.channels[op["ch"]].exchange_declare(
        x.writing.name(op["exchange"]),
        op["kind"],
        durable=op["durable"],
        auto_delete=op["auto_delete"],
        internal=op["internal"],
        arguments=x.writing.named(op["arguments"]),
    )


def check_exchange(x: Executor, op: Op) -> Any:
    x.channels[op["ch"]].exchange_declare(x.writing.name(op["exchange"]), passive=True)


def delete_exchange(x: Executor, op: Op) -> Any:
    x.channels[op["ch"]].exchange_delete(x.writing.name(op["exchange"]), if_unused=op["if_unused"])


def _binds_queue(verb: str) -> Callable[[Executor, Op], Any]:
    def act(x: Executor, op: Op) -> Any:
        name = x.writing.name
        getattr(x.channels[op["ch"]], verb)(
            name(op["queue"]), name(op["exchange"]), name(op["key"]), op["arguments"]
        )

    return act


def _binds_exchange(verb: str) -> Callable[[Executor, Op], Any]:
    def act(x: Executor, op: Op) -> Any:
        name = x.writing.name
        getattr(x.channels[op["ch"]], verb)(
            name(op["destination"]), name(op["source"]), name(op["key"]), op["arguments"]
        )

    return act


# -------------------------------------------------------------------------------------------------------- messages
def publish(x: Executor, op: Op) -> Any:
    """One after the other; what happens to the first of several is known before the next goes. A quorum queue says that it is
    full some time after it is: without confirms that must be waited for."""
    told: list[Any] = []
    for number in range(op["count"]):
        if number and x.quorum and op["ch"].endswith("1"):
            x.be_quiet()
        each = op if number == 0 else {**op, "body": f"{op['body']}{number}"}
        try:
            _publish_on(x, x.channels[op["ch"]], each)
            told.append("sent")
        except NackError:
            told.append("nacked")
        except (ChannelClosed, ChannelWrongStateError):
            if op["ch"].endswith("0"):
                raise
            # without confirms nobody waits; the closing is told when all is quiet, whenever it is seen
            told.append("sent")
        except UnroutableError as error:
            told.append(["returned", [x.writing.returned(message) for message in error.messages]])
    return told


def _publish_on(x: Executor, channel: Any, op: Op) -> None:
    properties = dict(op["properties"])
    if "headers" in properties:
        properties["headers"] = x.writing.named(properties["headers"])
    channel.basic_publish(
        x.writing.name(op["exchange"]),
        x.writing.name(op["key"]),
        op["body"].encode(),
        pika.BasicProperties(**properties),
        mandatory=op["mandatory"],
    )


def transaction(x: Executor, op: Op) -> Any:
    connection = x.connections[op["connection"]]
    channel = connection.channel()
    told: list[Any] = []

    def returned(_ch: Any, method: Any, properties: Any, body: bytes) -> None:
        told.append(x.writing.message(method.exchange, method.routing_key, properties, body))

    try:
        channel.add_on_return_callback(returned)
        channel.tx_select()
        for each in op["publishes"]:
            _publish_on(x, channel, each)
        got = None
        if op["get"] is not None:
            method, properties, body = channel.basic_get(x.writing.name(op["get"]))
            if method is not None:
                got = x.writing.message(method.exchange, method.routing_key, properties, body)
                getattr(channel, f"basic_{op['settle']}")(method.delivery_tag)
        if op["end"] == "commit":
            channel.tx_commit()
        elif op["end"] == "rollback":
            channel.tx_rollback()
        connection.process_data_events(0)
        channel.close()
        return ["done", got, told]
    except ChannelClosedByBroker as error:
        return ["channel closed", error.reply_code, x.writing.plain(error.reply_text)]
    except ChannelWrongStateError:
        reason = channel._closing_reason
        return ["channel closed", reason.reply_code, x.writing.plain(reason.reply_text)]


def get(x: Executor, op: Op) -> Any:
    channel = x.channels[op["ch"]]
    method, properties, body = channel.basic_get(x.writing.name(op["queue"]), auto_ack=op["no_ack"])
    if method is None:
        return "empty"
    if not op["no_ack"]:
        x.unacked[op["ch"]].append(method.delivery_tag)
    seen = x.writing.message(method.exchange, method.routing_key, properties, body)
    return [method.delivery_tag, method.redelivered, method.message_count, seen]


def consume(x: Executor, op: Op) -> Any:
    channel = x.channels[op["ch"]]
    channel.basic_qos(prefetch_count=op["prefetch"])
    channel.basic_consume(
        x.writing.name(op["queue"]),
        x.on_message(op["ch"], op["no_ack"]),
        auto_ack=op["no_ack"],
        exclusive=op["exclusive"],
        consumer_tag=op["tag"],
        arguments=op["arguments"],
    )


def cancel(x: Executor, op: Op) -> Any:
    x.channels[op["ch"]].basic_cancel(op["tag"])


def qos(x: Executor, op: Op) -> Any:
    x.channels[op["ch"]].basic_qos(prefetch_count=op["prefetch"], global_qos=op["whole_channel"])


# -------------------------------------------------------------------------------------------------------- settling
def _settles(verb: str, *fields: str) -> Callable[[Executor, Op], Any]:
    def act(x: Executor, op: Op) -> Any:
        """A delivery that is not settled: of the operation's channel, or of the next that holds one."""
        at = CHANNELS.index(op["ch"])
        name = next((each for each in (*CHANNELS[at:], *CHANNELS[:at]) if x.unacked[each]), None)
        if name is None:
            return "nothing to settle"
        held = x.unacked[name]
        which = op["which"] % len(held)
        tag = held[which]
        del held[0 if op.get("multiple") else which : which + 1]
        x.acted = name
        getattr(x.channels[name], verb)(tag, **{field: op[field] for field in fields})
        return tag

    return act


def settle_unknown(x: Executor, op: Op) -> Any:
    getattr(x.channels[op["ch"]], f"basic_{op['verb']}")(777)


def recover(x: Executor, op: Op) -> Any:
    if not op["requeue"]:  # an error of the connection
        x.leave_alone(op["ch"])
    x.unacked[op["ch"]].clear()
    x.channels[op["ch"]].basic_recover(requeue=op["requeue"])


# ----------------------------------------------------------------------------------------------------- connections
def close_channel(x: Executor, op: Op) -> Any:
    x.close(op["ch"])
    x.open(op["ch"])


def cut(x: Executor, op: Op) -> Any:
    letter = op["connection"]
    x.leave_alone(f"{letter}0")
    transport = x.connections[letter]._impl._transport
    with contextlib.suppress(OSError):
        transport._sock.shutdown(socket.SHUT_RDWR)  # now; `abort` closes it when events are looked at
    transport.abort()
    time.sleep(CUT_S * x.patience)
    x.connect(letter)


def close_connection(x: Executor, op: Op) -> Any:
    letter = op["connection"]
    x.close_connection(letter)
    x.connect(letter)


def wait(x: Executor, _op: Op) -> Any:
    x.wait()


ACTS: Final[dict[str, Callable[[Executor, Op], Any]]] = {
    "declare_queue": declare_queue,
    "check_queue": check_queue,
    "declare_otherwise": declare_queue,
    "delete_queue": delete_queue,
    "purge": purge,
    "declare_exchange": declare_exchange,
    "check_exchange": check_exchange,
    "delete_exchange": delete_exchange,
    "bind_queue": _binds_queue("queue_bind"),
    "unbind_queue": _binds_queue("queue_unbind"),
    "bind_exchange": _binds_exchange("exchange_bind"),
    "unbind_exchange": _binds_exchange("exchange_unbind"),
    "publish": publish,
    "transaction": transaction,
    "get": get,
    "consume": consume,
    "cancel": cancel,
    "ack": _settles("basic_ack", "multiple"),
    "nack": _settles("basic_nack", "multiple", "requeue"),
    "reject": _settles("basic_reject", "requeue"),
    "settle_unknown": settle_unknown,
    "recover": recover,
    "qos": qos,
    "close_channel": close_channel,
    "cut": cut,
    "close_connection": close_connection,
    "wait": wait,
}
