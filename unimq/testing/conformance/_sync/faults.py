# Generated from unimq/testing/conformance/_async/faults.py by tools/unasync.py; do not edit.
"""A broken line: cut, refused, silent, or one link of it dead."""

from __future__ import annotations

import time

import unimq
from unimq import Message

from ...harness import Harness
from .._check import refused, within
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, drain_all, fill, one, take

# what a half-open line may cost beyond the time-out that was asked for
GRACE_S = 5.0
# a link may be down for this long before health is bad
HEALTH_AFTER_S = 1.0


def send_until(h: Harness, mq: unimq.Client, queue: unimq.Queue, message: Message) -> None:
    """Send as a user would: again after each error that says it may help."""
    deadline = time.monotonic() + h.patience_s * 2
    while True:
        try:
            mq.send(queue, message, timeout_s=5.0)
        except unimq.UnimqError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise
            message = error.message or message
        else:
            return


def receive_over_a_gap(receiver: unimq.Receiver, max_messages: int = 10) -> list[unimq.Delivery]:
    """A receive of 1 s; [] also where the line is down for all of it."""
    try:
        return receiver.receive(max_messages=max_messages, timeout_s=1.0)
    except unimq.ConnectionFailed:
        return []


def close_after_loss(receiver: unimq.Receiver) -> None:
    """Close a receiver some of whose acks may have been lost with their link: that is said, once."""
    try:
        receiver.close()
    except unimq.SettlementLost:
        pass


@behaviour(27, needs=("ack",), hooks=("proxy",))
def ack_after_lost_lock_raises(h: Harness) -> None:
    """A delivery whose lock went with its line can no longer be settled: every verb raises LockLost, and it comes again."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            fill(mq, queue, [b"x"])
            with mq.receiver(queue) as receiver:
                held = one(h, receiver)
                assert not held.lock_lost
                line.cut()
                kit.eventually(lambda: held.lock_lost, h.patience_s, "it says that its lock is lost")
                for verb in (held.ack, held.release, held.retry, lambda: held.dead_letter("late")):
                    with refused(unimq.LockLost):
                        verb()
                again: list[unimq.Delivery] = []
                deadline = time.monotonic() + h.patience_s
                while not again and time.monotonic() < deadline:
                    again += receive_over_a_gap(receiver)
                assert [delivery.body for delivery in again] == [b"x"]
                again[0].ack()
                receiver.flush()
            assert not mq.dead_letters(queue).browse()


@behaviour(82, hooks=("proxy",))
def reconnect_resubscribes_and_resumes(h: Harness) -> None:
    """After a cut the client is back by itself: the same receiver goes on, the same client sends."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            with mq.receiver(queue) as receiver:
                fill(mq, queue, [b"before"])
                (one(h, receiver)).ack()
                receiver.flush()
                for number in range(3):
                    line.cut()
                    send_until(h, mq, queue, Message(b"after %d" % number))
                    deadline = time.monotonic() + h.patience_s
                    seen: set[bytes | None] = set()
                    while b"after %d" % number not in seen and time.monotonic() < deadline:
                        for delivery in receive_over_a_gap(receiver):
                            seen.add(delivery.body)
                            delivery.ack()
                    assert b"after %d" % number in seen
                    receiver.flush()


@behaviour(83, needs=("confirmed_send",), hooks=("restart",), limit_s=180)
def restart_sent_equals_received(h: Harness) -> None:
    """While the broker restarts under a sender and a receiver, all that was confirmed is received."""
    assert h.restart is not None
    restart = h.restart
    with kit.client(h) as mq, kit.client(h) as other:
        queue = a_queue(mq, h)
        sent: set[bytes] = set()
        seen: set[bytes] = set()
        stop: list[str] = []

        def sending() -> None:
            number = 0
            while not stop:
                body = b"%06d" % number
                send_until(h, mq, queue, Message(body))
                sent.add(body)
                number += 1
                kit.sleep(0.001)  # a few thousand are enough
            stop.append("sent")

        def receiving() -> None:
            receiver = other.receiver(queue, on_settlement_lost=lambda lost: None)
            deadline = time.monotonic() + 120.0
            while ("sent" not in stop or not sent <= seen) and time.monotonic() < deadline:
                for delivery in receive_over_a_gap(receiver, 50):
                    seen.add(delivery.body or b"")
                    try:
                        delivery.ack()
                    except unimq.LockLost:
                        pass  # it comes again
            close_after_loss(receiver)

        def restarting() -> None:
            kit.sleep(1.0)
            kit.elsewhere(restart)
            kit.sleep(1.0)
            stop.append("restarted")

        kit.gather(sending, receiving, restarting, timeout_s=150.0)
        assert sent and sent <= seen, f"{len(sent - seen)} of {len(sent)} are lost"


@behaviour(84, needs=("ack", "confirmed_send"), hooks=("proxy",), limit_s=120)
def kill_socket_in_the_middle(h: Harness) -> None:
    """Cut while publishing, while settling, with messages in hand: duplicates at most, nothing is lost."""
    assert h.proxy is not None
    contents = bodies(100)
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            confirmed: set[bytes] = set()
            for number, body in enumerate(contents):
                if number % 25 == 10:
                    line.cut_after(client_bytes=40, live=True)  # in the middle of what comes next
                send_until(h, mq, queue, Message(body))
                confirmed.add(body)
            seen: set[bytes] = set()
            deadline = time.monotonic() + h.patience_s * 3
            receiver = mq.receiver(queue, prefetch=20, on_settlement_lost=lambda lost: None)
            try:
                rounds = 0
                while seen < confirmed and time.monotonic() < deadline:
                    taken = receive_over_a_gap(receiver)
                    rounds += 1
                    if rounds in (2, 4):
                        line.cut()  # with these in hand
                    for delivery in taken:
                        try:
                            delivery.ack()
                            seen.add(delivery.body or b"")
                        except unimq.LockLost:
                            pass  # it comes again
                    if rounds == 6:
                        line.cut()  # with acks on their way
            finally:
                close_after_loss(receiver)
            assert seen == confirmed, f"lost: {sorted(confirmed - seen)}"


@behaviour(86, hooks=("proxy",))
def stop_while_reconnecting(h: Harness) -> None:
    """Closing a client whose broker is gone ends soon, also while it is trying to get it back."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            receiver = mq.receiver(queue)
            fill(mq, queue, [b"x"])
            one(h, receiver)
            line.refuse()
            line.cut()
            waiting = kit.spawn(lambda: receiver.receive(timeout_s=40.0))
            kit.sleep(0.5)  # into the back-off
            with within(15.0, "closing while reconnecting"):
                mq.close()
            try:
                waiting.result(5.0)
            except (unimq.Closed, unimq.ConnectionFailed):
                pass


@behaviour(99, hooks=("proxy",), limit_s=150)
def health_goes_bad_when_stalled(h: Harness) -> None:
    """Health is good when all is well, also when idle, bad when the broker is gone for too long, good again after."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url), health_after_s=HEALTH_AFTER_S) as mq:
            queue = a_queue(mq, h)
            with mq.receiver(queue) as receiver:
                receiver.ready(h.patience_s)
                assert mq.health().ok, mq.health().problems
                line.refuse()
                line.cut()
                kit.eventually(lambda: not mq.health().ok, HEALTH_AFTER_S + 15.0, "health is bad")
                assert mq.health().problems, "it says why"
                line.heal()
                kit.eventually(lambda: mq.health().ok, 60.0, "health is good again")


@behaviour(106, hooks=("break_link",))
def dead_link_under_a_living_connection(h: Harness) -> None:
    """The broker closes one channel or session while the connection lives: that link comes back, the others go on."""
    assert h.break_link is not None
    break_link = h.break_link
    with kit.client(h) as mq:
        broken, whole = a_queue(mq, h), a_queue(mq, h)
        with mq.receiver(broken) as receiver, mq.receiver(whole) as other:
            fill(mq, broken, [b"before"])
            held = one(h, receiver)
            kit.elsewhere(lambda: break_link(mq, receiver))
            fill(mq, whole, [b"beside"])
            (one(h, other)).ack()
            fill(mq, broken, [b"after"])
            seen: set[bytes | None] = set()
            deadline = time.monotonic() + h.patience_s
            while not {b"before", b"after"} <= seen and time.monotonic() < deadline:
                for delivery in receive_over_a_gap(receiver):
                    seen.add(delivery.body)
                    delivery.ack()
            assert seen == {b"before", b"after"}
            try:
                held.ack()
            except (unimq.LockLost, unimq.AlreadySettled):
                pass
            else:
                raise AssertionError("the old delivery could be acknowledged on the new link")


@behaviour(107, hooks=("proxy",))
def half_open_send_is_bounded(h: Harness) -> None:
    """A broker that has gone silent costs a send its time-out, not more."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            fill(mq, queue, [b"warm"])
            line.silence()
            with within(2.0 + GRACE_S, "a send of 2 s on a half-open line"):
                try:
                    mq.send(queue, Message(b"x"), timeout_s=2.0)
                except (unimq.SendOutcomeUnknown, unimq.SendTimeout):
                    pass
                else:
                    raise AssertionError("a silent broker confirmed")
            mq.close(1.0)


@behaviour(108, hooks=("proxy",))
def half_open_receive_is_bounded(h: Harness) -> None:
    """A receive on a line that has gone silent ends with its time-out, or with the news that the line is dead."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            with mq.receiver(queue) as receiver:
                receiver.ready(h.patience_s)
                line.silence()
                with within(2.0 + GRACE_S, "a receive of 2 s on a half-open line"):
                    try:
                        assert not receiver.receive(timeout_s=2.0)
                    except unimq.UnimqError as error:
                        if not error.retryable:
                            raise
                line.heal()
                line.cut()


@behaviour(109, needs=("ack", "settlement_confirmed"), hooks=("proxy",))
def half_open_flush_is_bounded(h: Harness) -> None:
    """A flush on a line that has gone silent says within its time-out that it could not confirm."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            fill(mq, queue, [b"x"])
            receiver = mq.receiver(queue, on_settlement_lost=lambda lost: None)
            delivery = one(h, receiver)
            line.silence()
            delivery.ack()
            with within(2.0 + GRACE_S, "a flush of 2 s on a half-open line"):
                try:
                    receiver.flush(timeout_s=2.0)
                except (unimq.UnimqError, TimeoutError):
                    pass
                else:
                    raise AssertionError("a flush to a silent broker said that all is settled")
            line.heal()
            line.cut()
            try:
                receiver.close()
            except unimq.SettlementLost:
                pass
        with kit.client(h) as mq:
            drain_all(h, mq, queue, set())


@behaviour(110, hooks=("proxy",))
def half_open_close_is_bounded(h: Harness) -> None:
    """Closing a client whose line has gone silent ends within its bound."""
    assert h.proxy is not None
    with h.proxy() as line:
        with kit.client(h, line.url(h.url)) as mq:
            queue = a_queue(mq, h)
            fill(mq, queue, bodies(2))
            receiver = mq.receiver(queue)
            take(h, receiver, 2)
            line.silence()
            with within(3.0 + GRACE_S, "closing a client within 3 s on a half-open line"):
                mq.close(3.0)


@behaviour(111, hooks=("proxy",))
def half_open_connect_is_bounded(h: Harness) -> None:
    """A host that accepts and never answers is given up within `connect_timeout_s`."""
    assert h.proxy is not None
    with h.proxy() as line:
        line.silence()
        with within(2.0 + GRACE_S, "a connect of 2 s to a silent host"):
            with refused(unimq.ConnectionFailed) as caught:
                with kit.client(h, line.url(h.url), connect_timeout_s=2.0) as mq:
                    mq.declare(h.queue())
        assert caught.error.retryable
