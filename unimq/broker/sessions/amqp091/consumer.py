"""A consumer: the end of a queue's line on a channel. It counts what it may still take, and writes the deliveries.

Rules
- `room()` is what the prefetches of consumer and channel leave, and nothing while the peer does not read.
- Without acknowledgement a prefetch counts nothing, but a channel that is full by its own gets nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unimq.broker.engine import Entry
from unimq.broker.engine.amqpqueue import AmqpQueue
from unimq.wire.amqp091.encode import deliver_frames

from .limits import DELIVER_BATCH, PENDING_MAX_BYTES, UNACKED_MAX
from .unacked import Unacked

if TYPE_CHECKING:
    from .channel import Channel


class Consumer:
    def __init__(self, channel: Channel, tag: str, *, no_ack: bool, exclusive: bool, prefetch: int) -> None:
        self.channel = channel
        self.owner = channel
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.unacked = 0
        self.ended = False
        self.limited = True  # by the channel's prefetch: quorum queues do not know it
        self._last_bytes = PENDING_MAX_BYTES + 1

    def room(self) -> int:
        channel = self.channel
        connection = channel.connection
        if self.ended or not connection.line.writable:
            return 0
        pending = connection.pending_bytes
        if pending > PENDING_MAX_BYTES:
            connection.wants_turn = True
            return 0
        # as many as fit, going by the size of the last one: a batch is looked at only once
        room = min(DELIVER_BATCH, 1 + (PENDING_MAX_BYTES - pending) // self._last_bytes)
        if self.limited and (channel.suspended or channel.is_full):
            channel.suspended = True
            return 0
        if self.no_ack:
            return room
        room = min(room, UNACKED_MAX - len(channel.unacked))
        if self.limited and channel.channel_prefetch:
            room = min(room, channel.channel_prefetch - channel.taken)
        if self.prefetch:
            room = min(room, self.prefetch - self.unacked)
        return max(room, 0)

    def deliver(self, queue: AmqpQueue, entries: Sequence[Entry]) -> None:
        channel = self.channel
        connection = channel.connection
        out = connection.out
        if self.limited and channel.channel_prefetch and not self.no_ack:
            channel.taken += len(entries)
        for entry in entries:
            channel.last_tag = tag = channel.last_tag + 1
            if not self.no_ack:
                channel.unacked[tag] = Unacked(tag, queue, entry, self)
                self.unacked += 1
            sent = queue.content(entry)
            frames = deliver_frames(
                channel.number,
                self.tag,
                tag,
                entry.redelivered,
                sent.exchange,
                sent.routing_keys[0],
                sent.properties.raw,
                entry.stored.body or b"",
                connection.frame_max,
            )
            out.append(frames)
            self._last_bytes = len(frames)
            connection.pending_bytes += self._last_bytes
        connection.line.flush_soon()

    def cancelled(self) -> None:
        """By the server: the queue is gone."""
        if self.ended:
            return
        self.ended = True
        channel = self.channel
        channel.consumers.pop(self.tag, None)
        if channel.connection.capabilities.get("consumer_cancel_notify") is True:
            channel.say("basic.cancel", self.tag, True)
            channel.connection.line.flush_soon()
