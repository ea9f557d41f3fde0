"""One channel: what it holds, its methods by name, its end.

State    by                      then
-------  ----------------------  -----------------------------------------------------------------------------------
open     a method of the table   what it says
         channel.flow(true)      channel.flow-ok (false: 540)
         channel.close           channel.close-ok; gone
         a channel error         channel.close with its code; CLOSING
         a connection error      the connection closes
closing  channel.close-ok        gone; the number may be opened again
         channel.close           channel.close-ok
         anything else           dropped

mode     by                      then
-------  ----------------------  -----------------------------------------------------------------------------------
plain    confirm.select          confirm
         tx.select               tx
confirm  tx.select               406
tx       confirm.select          406

Rules
- What is unacknowledged is in `unacked`, by delivery tag, in order. Whatever ends the channel gives it back to its queues.
- Confirms are said once per turn, with `multiple` where that is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from unimq.broker.engine.errors import AmqpError
from unimq.wire.amqp091.decoder import TOO_LARGE
from unimq.wire.amqp091.encode import ack_frame, content_frames, method_frame, nack_frame
from unimq.wire.amqp091.errors import WireError, reply_text
from unimq.wire.amqp091.methods import BY_NAME

from . import consuming, publishing, topology, transactions
from .consumer import Consumer
from .unacked import Unacked, by_queue

if TYPE_CHECKING:
    from .connection import Connection


class Channel:
    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.node = connection.node
        self.vhost = connection.vhost
        self.number = number
        self.out = connection.out
        self.open = True
        self.mode = "plain"
        self.last_queue = ""  # "" in a method means this one
        # consuming
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Unacked] = {}
        self.last_tag = 0
        self.consumer_prefetch = 0  # for consumers to come; 0: no bound
        self.channel_prefetch = 0
        self.taken = 0  # what counts against it
        self.suspended = False  # a consumer has asked while it was full: nobody gets anything before `resume`
        self.resumed = 0  # times
        self.reply_token: str | None = None  # direct reply-to
        self.reply_consumer: str | None = None
        # publishing
        self.published = 0  # since confirm.select
        self.confirmed = 0
        self.singly = False  # a confirm was withheld by a fault
        self.refused: list[int] = []  # of those that were not said yet
        self.tx = transactions.Transaction()

    # ------------------------------------------------------------------------------------------------- methods
    def receive(self, name: str, args: tuple[Any, ...]) -> None:
        method = METHODS.get(name)
        try:
            if method is None:
                raise AmqpError(503, "unimplemented method")
            method(self, *args)
        except AmqpError as error:
            self.fail(error, name)
        except WireError as error:  # a content whose properties are malformed
            self.fail(AmqpError(error.code, error.text), name)

    def fail(self, error: AmqpError, name: str) -> None:
        if not error.class_id and error.code != 541:
            at = BY_NAME.get("basic.publish" if name == TOO_LARGE else name)
            if at is not None:
                error.class_id, error.method_id = at.class_id, at.method_id
        if error.scope == "connection":
            raise error
        self.say_confirms()
        self.end()
        self.out.append(
            method_frame(
                self.number,
                "channel.close",
                error.code,
                reply_text(error.code, error.text),
                error.class_id,
                error.method_id,
            )
        )
        self.connection.forget(self, await_close_ok=True)

    def close(self, _code: int, _text: str, _class_id: int, _method_id: int) -> None:
        self.say_confirms()
        self.end()
        self.say("channel.close-ok")
        self.connection.forget(self, await_close_ok=False)

    def end(self) -> None:
        """Consumers go, what is unacknowledged goes back. Says nothing."""
        if not self.open:
            return
        self.open = False
        consumers = tuple(self.consumers.values())
        self.consumers.clear()
        for consumer in consumers:
            consumer.ended = True
        if self.reply_token is not None:
            self.vhost.reply_to.pop(self.reply_token, None)
        # what was settled in a transaction without a commit is not settled
        transactions.give_back(self, self.tx)
        unacked, self.unacked = self.unacked, {}
        self.vhost.end_channel(consumers, by_queue(unacked.values()))

    def say(self, name: str, *args: Any) -> None:
        self.out.append(method_frame(self.number, name, *args))

    def queue_name(self, name: str) -> str:
        """ "" means the queue declared last on this channel."""
        if name:
            return name
        if not self.last_queue:
            raise AmqpError(404, "no previously declared queue")
        return self.last_queue

    def flow(self, active: bool) -> None:
        if not active:
            raise AmqpError(540, "active=false")
        self.say("channel.flow-ok", True)

    def say_content(self, properties: bytes, body: bytes) -> None:
        frames = content_frames(self.number, properties, body, self.connection.frame_max)
        self.out.append(frames)
        self.connection.pending_bytes += len(frames)

    def access(self, *_: object) -> None:
        """A leftover of AMQP 0-9 that old clients still send; any ticket will do."""
        self.say("access.request-ok", 1)

    def opened_again(self) -> None:
        raise AmqpError(504, "second 'channel.open' seen")

    # ------------------------------------------------------------------------------------------------- confirms
    def withhold_last_confirm(self) -> None:
        """It is never said. Those before it are said now, those after it singly: `multiple` would cover it."""
        last, self.published = self.published, self.published - 1
        self.refused = [tag for tag in self.refused if tag != last]
        self.say_confirms()
        self.published = self.confirmed = last
        self.singly = True

    def publish_again(self, args: tuple[Any, ...]) -> None:
        """As if the client had sent it twice under one number."""
        self.receive("basic.publish", args)
        if self.mode == "confirm" and self.open:
            self.refused = [tag for tag in self.refused if tag != self.published]
            self.published -= 1

    def say_confirms(self) -> None:
        """All that was published and not yet answered: `multiple` up to each that was refused."""
        last, said = self.published, self.confirmed
        if said == last:
            return
        out = self.out
        self.confirmed = last
        if self.singly:
            refused = set(self.refused)
            self.refused.clear()
            for tag in range(said + 1, last + 1):
                out.append((nack_frame if tag in refused else ack_frame)(self.number, tag, False))
            return
        for tag in self.refused:
            if tag - 1 > said:
                out.append(ack_frame(self.number, tag - 1, tag - 2 > said))
            out.append(nack_frame(self.number, tag, False))
            said = tag
        self.refused.clear()
        if last > said:
            out.append(ack_frame(self.number, last, last - 1 > said))

    # ------------------------------------------------------------------------------------------------ consuming
    @property
    def is_full(self) -> bool:
        """By the prefetch of the whole channel."""
        return 0 < self.channel_prefetch <= self.taken

    def count_back(self, delivered: int) -> None:
        if self.channel_prefetch and self.taken:
            self.taken -= delivered

    def resume(self) -> None:
        if self.suspended and not self.is_full:
            self.suspended = False
            # Another queue is asked first each time, or the first would leave nothing to the others. RabbitMQ draws one
            # (rabbit_limiter:notify_queues).
            consumers = tuple(self.consumers.values())
            at = self.resumed % max(len(consumers), 1)
            self.resumed += 1
            self.vhost.wanted(*consumers[at:], *consumers[:at])

    def look_for_more(self) -> None:
        """The peer reads again, or a prefetch has grown."""
        self.vhost.wanted(*self.consumers.values())


METHODS: Final[dict[str, Callable[..., None]]] = {
    "basic.publish": publishing.publish,
    TOO_LARGE: publishing.too_large,
    "basic.ack": consuming.ack,
    "basic.nack": consuming.nack,
    "basic.reject": consuming.reject,
    "basic.get": consuming.get,
    "basic.consume": consuming.consume,
    "basic.cancel": consuming.cancel,
    "basic.qos": consuming.qos,
    "basic.recover": consuming.recover,
    "basic.recover-async": consuming.recover_async,
    "confirm.select": publishing.confirm_select,
    "tx.select": transactions.select,
    "tx.commit": transactions.commit,
    "tx.rollback": transactions.rollback,
    "exchange.declare": topology.exchange_declare,
    "exchange.delete": topology.exchange_delete,
    "exchange.bind": topology.exchange_bind,
    "exchange.unbind": topology.exchange_unbind,
    "queue.declare": topology.queue_declare,
    "queue.bind": topology.queue_bind,
    "queue.unbind": topology.queue_unbind,
    "queue.purge": topology.queue_purge,
    "queue.delete": topology.queue_delete,
    "access.request": Channel.access,
    "channel.open": Channel.opened_again,
    "channel.flow": Channel.flow,
    "channel.flow-ok": lambda _channel, _active: None,
    "channel.close": Channel.close,
}
