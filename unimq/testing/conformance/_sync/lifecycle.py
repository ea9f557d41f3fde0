# Generated from unimq/testing/conformance/_async/lifecycle.py by tools/unasync.py; do not edit.
"""Opening, closing, cancelling; what is left behind."""

from __future__ import annotations

import os
import threading
import time

import unimq
from unimq import Message

from ...harness import Harness
from .._check import refused, within
from .._table import behaviour
from . import _kit as kit
from ._help import a_queue, bodies, drain_all, fill, one, take

THREADS_SLACK = 3


@behaviour(87)
def close_unblocks_receive(h: Harness) -> None:
    """Closing a receiver ends a receive that waits in it, at once, with Closed; so does closing the client."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        receiver = mq.receiver(queue)
        waiting = kit.spawn(lambda: receiver.receive(timeout_s=50.0))
        kit.sleep(0.2)  # it should be waiting by now; closing before it does must end in the same way
        with within(10.0, "closing a receiver in which somebody waits"):
            receiver.close()
            with refused(unimq.Closed):
                waiting.result(5.0)
        last = mq.receiver(queue)
        waiting = kit.spawn(lambda: last.receive(timeout_s=50.0))
        kit.sleep(0.2)
        mq.close()
    with refused(unimq.Closed):
        waiting.result(5.0)


@behaviour(88)
def use_after_close_raises_closed(h: Harness) -> None:
    """What is closed says so: every use raises Closed, and closing again does nothing."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        sender, receiver = mq.sender(queue), mq.receiver(queue)
        sender.send(Message(b"x"))
        one(h, receiver)
        sender.close()
        receiver.close()
        with refused(unimq.Closed):
            sender.send(Message(b"x"))
        with refused(unimq.Closed):
            receiver.receive(timeout_s=1.0)
        sender.close()
        receiver.close()
    with refused(unimq.Closed):
        mq.send(queue, Message(b"x"))
    with refused(unimq.Closed):
        mq.declare(queue)
    with refused(unimq.Closed):
        mq.receiver(queue).receive(timeout_s=1.0)
    mq.close()


@behaviour(89)
def concurrent_close_safe(h: Harness) -> None:
    """Many close at once, while others send and receive: each ends, with its work done or with Closed."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        sender, receiver = mq.sender(queue), mq.receiver(queue)
        fill(mq, queue, bodies(50))
        sender.send(Message(b"x"))
        one(h, receiver)

        def sending() -> str:
            try:
                for _ in range(500):
                    sender.send(Message(b"x"), timeout_s=10.0)
            except unimq.Closed:
                return "closed"
            return "done"

        def receiving() -> str:
            try:
                while True:
                    for delivery in receiver.receive(max_messages=10, timeout_s=5.0):
                        delivery.ack()
            except (unimq.Closed, unimq.LockLost):
                return "closed"

        def closing() -> str:
            mq.close()
            return "closed"

        with within(30.0, "four closes beside a sender and a receiver"):
            answers = kit.gather(sending, receiving, closing, closing, closing, closing)
        assert answers[0] in ("closed", "done") and answers[1] == "closed"


@behaviour(90, needs=("ack",))
def cancel_receive_loses_nothing(h: Harness) -> None:
    """Receives that are given up while messages come lose none and double none: the next receive has them."""
    contents = bodies(60)
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        with mq.receiver(queue, prefetch=200) as receiver:
            receiver.ready(h.patience_s)
            seen: list[bytes | None] = []

            def sending() -> None:
                for body in contents:
                    mq.send(queue, Message(body))

            def receiving() -> None:
                deadline = time.monotonic() + h.patience_s
                pause_s = 0.0
                while len(seen) < len(contents) and time.monotonic() < deadline:
                    pause_s = (pause_s + 0.0007) % 0.01
                    for delivery in kit.give_up(
                        lambda timeout_s: receiver.receive(max_messages=3, timeout_s=timeout_s), pause_s
                    ):
                        seen.append(delivery.body)
                        delivery.ack()

            kit.gather(sending, receiving)
            assert sorted(seen, key=repr) == contents
            receiver.flush()


@behaviour(91, limit_s=300)
def no_thread_or_fd_leak(h: Harness) -> None:
    """Connect, send, receive, close, again and again: no thread, file descriptor or task is left."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)

    def cycle() -> None:
        with kit.client(h) as mq:
            mq.send(queue, Message(b"x"))
            with mq.receiver(queue) as receiver:
                (one(h, receiver)).ack()

    for _ in range(3):
        cycle()
    kit.sleep(0.1)
    threads, files, tasks = threading.active_count(), _open_files(), kit.extra_tasks()
    for _ in range(h.cycles):
        cycle()

    def back() -> bool:
        return threading.active_count() <= threads and _open_files() <= files and kit.extra_tasks() <= tasks

    try:
        kit.eventually(back, 10.0, "nothing is left")
    except AssertionError:
        names = sorted(thread.name for thread in threading.enumerate())
        raise AssertionError(
            f"threads {threads} → {threading.active_count()}, files {files} → {_open_files()}, "
            f"tasks {tasks} → {kit.extra_tasks()} after {h.cycles} cycles; threads: {names}"
        ) from None


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0  # not to be known here


@behaviour(92)
def fork_and_loop_misuse_detected(h: Harness) -> None:
    """A client used from another event loop, or in the child of a fork, says Closed instead of breaking its parent."""
    with kit.client(h) as mq:
        queue = a_queue(mq, h)
        fill(mq, queue, [b"before"])
        assert kit.misuse(lambda: mq.send(queue, Message(b"misused"), timeout_s=5.0)) == "Closed"
        fill(mq, queue, [b"after"])
        seen = drain_all(h, mq, queue, {b"before", b"after"})
        assert sorted(seen) == [b"after", b"before"]


@behaviour(93, hooks=("bad_login_url",))
def auth_failure_is_permanent(h: Harness) -> None:
    """A wrong password is AuthenticationFailed at once: not retried, not retryable, and the password shows nowhere."""
    assert h.bad_login_url is not None
    with within(10.0, "being refused"):
        with refused(unimq.AuthenticationFailed) as caught:
            with kit.client(h, h.bad_login_url) as mq:
                mq.declare(h.queue())
    assert not caught.error.retryable
    password = h.bad_login_url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    assert not password or password not in f"{caught.error!r} {caught.error} {caught.error.cause!r}"


@behaviour(94, hooks=("untrusted_tls_url",))
def tls_bad_certificate_rejected(h: Harness) -> None:
    """A certificate that nobody vouches for is refused, and the error says that it is the certificate."""
    assert h.untrusted_tls_url is not None
    with refused(unimq.ConnectionFailed, unimq.AuthenticationFailed) as caught:
        with kit.client(h, h.untrusted_tls_url) as mq:
            mq.declare(h.queue())
    assert "certificate" in f"{caught.error} {caught.error.cause!r}".lower()


@behaviour(123)
def many_clients_and_links(h: Harness) -> None:
    """Links of one client do not disturb each other: many receivers and senders, opened and closed in any order."""
    with kit.client(h) as mq:
        queues = [a_queue(mq, h) for _ in range(5)]
        receivers = [mq.receiver(queue) for queue in queues]
        for queue in queues:
            fill(mq, queue, [queue.name.encode()])
        for queue, receiver in reversed(list(zip(queues, receivers, strict=True))):
            (delivery,) = take(h, receiver, 1)
            assert delivery.body == queue.name.encode()
            delivery.ack()
            receiver.close()
