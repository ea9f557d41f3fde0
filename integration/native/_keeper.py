"""Runs one command and outlives whoever asked for it just long enough to clean up. Run as a script, never imported.

The job is JSON in the first line of stdin, where `ps` does not show it: command, env, cwd, log, after (commands), remove (a
directory). The parent reads one line, the process group, from stdout. What the keeper hears on stdin then:
- ``stop SECONDS``: SIGTERM, and SIGKILL after that time; then it exits with the command's code;
- end of file without that: the parent was killed. The group is killed and the directory removed as well.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

AFTER_TIMEOUT_S = 5.0
REAP_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main(job: dict[str, Any]) -> int:
    # A process that leaves its group (epmd) becomes a child of the keeper, which can then end it by its id.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    heard, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with open(job["log"], "ab") as log:
        child = subprocess.Popen(
            job["command"],
            env=job["env"],
            cwd=job["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            # Here and not in the parent: the signal comes when the *thread* that forked ends, and the keeper has only one.
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    orphaned = False
    try:
        print(child.pid, flush=True)
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin, heard], [], [])
            if heard in readable:
                heard.recv(4096)
                reap_others(child.pid)
            if sys.stdin in readable:
                said = sys.stdin.readline().split()
                orphaned = not said
                if said:
                    terminate(child, float(said[1]))
                break
    except BaseException:
        orphaned = True
        raise
    finally:
        code = end(child)
        for command in job["after"]:
            subprocess.run(
                command,
                env=job["env"],
                timeout=AFTER_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        reap()
        if orphaned:
            shutil.rmtree(job["remove"], ignore_errors=True)
    return code


def terminate(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    if timeout_s <= 0:
        return
    # A stopped process would keep the SIGTERM pending.
    os.killpg(child.pid, signal.SIGCONT)
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return


def end(child: subprocess.Popen[bytes]) -> int:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return child.wait(REAP_TIMEOUT_S)


def reap_others(pid: int) -> None:
    """Daemons that have ended already: RabbitMQ tries to start an epmd every minute. `pid` itself is Popen's to reap."""
    if not hasattr(os, "waitid"):
        return
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == pid:
            return
        os.waitpid(ended.si_pid, 0)


def reap() -> None:
    """Ends every descendant that is left and waits for it, so that no zombie and no daemon stays."""
    deadline = time.monotonic() + REAP_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            done, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if done:
            continue
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def children() -> list[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.stdin.readline())))
