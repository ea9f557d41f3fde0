"""Several processes: a dead one is replaced, one that cannot start ends them all, signals are passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import unimq
from unimq import Queue, Unsupported
from unimq.worker import BadHandler, Worker
from unimq.worker.processes import CANNOT_START, Family
from unimq.worker.worker import DONE

ROOT = Path(__file__).resolve().parents[2]
A = Queue("a")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

SCRIPT = """
import os, sys, threading, time
import unimq
from unimq import Queue
from unimq.worker import Worker

assert threading.active_count() == 1
worker = Worker("memory://processes", processes=2, drain_s=5)

@worker.handler(Queue("a"))
def work(body: bytes) -> None: ...

class Says:
    def handle(self, delivery, call_next):
        return call_next(delivery)

{extra}
code = worker.run()
print("over", code, flush=True)
sys.exit(code)
"""

SAYS_PID = """
from unimq.worker.shift import Shift
started = Shift.start
async def start(self):
    await started(self)
    os.write(1, b"child %d\\n" % os.getpid())  # one write: two children share the pipe
Shift.start = start
"""


def start(extra: str = SAYS_PID) -> subprocess.Popen[str]:
    code = textwrap.dedent(SCRIPT).format(extra=extra)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"},
    )  # fmt: skip


def child(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline().split()
    assert line and line[0] == "child", line
    return int(line[1])


def test_a_dead_child_is_replaced_and_a_signal_stops_them_all() -> None:
    with start() as process:
        first, second = child(process), child(process)
        assert first != second != process.pid
        os.kill(first, signal.SIGKILL)
        third = child(process)
        assert third not in (first, second)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert out.strip() == f"over {DONE}", err
        assert process.returncode == DONE
        assert "is replaced" in err or first != third
        for pid in (second, third):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_what_cannot_start_ends_the_family_once() -> None:
    extra = 'worker.handler(Queue("b"), dead_letter=Queue("nowhere"))(work)'
    with start(extra) as process:
        out, err = process.communicate(timeout=20)
        assert process.returncode == CANNOT_START, (out, err)
        assert err.count("nowhere") <= 2 and "mq.declare" in err
        assert "Traceback" not in err


def test_bad_handlers_are_told_before_there_is_a_child() -> None:
    worker = Worker("memory://x", processes=2)
    with pytest.raises(BadHandler):
        worker.run()


def test_a_client_cannot_be_taken_through_a_fork(unimq_client: unimq.Client) -> None:
    worker = Worker(unimq_client, processes=2)

    @worker.handler(A)
    def work(body: bytes) -> None: ...

    with pytest.raises(Unsupported, match="processes= needs a URL"):
        worker.run()


def test_forking_beside_threads_is_refused() -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, args=(10,))
    thread.start()
    try:
        with pytest.raises(Unsupported, match="before anything starts a thread"):
            Family(2, lambda number: 0).run()
    finally:
        gate.set()
        thread.join()
