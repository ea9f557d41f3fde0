"""`unimq worker module:name`: run a worker that a module defines.

Rules
- The module is imported as Python would from the current directory; without a name it is `worker`.
- The exit code is the worker's: 0 stopped and drained, 1 it could not start or gave up, 2 a wrong call, 3 handlers were
  still at it when the time was up.
- Logs go to the standard error stream, unless the module set up its own.
- `--reload` is for development: a child runs the worker and is replaced when a file beneath the current directory changes.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from unimq.errors import UnimqError
from unimq.worker import Worker

LOOK_S: Final = 0.3
STOP_S: Final = 30.0
LOG_FORMAT: Final = "%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"
IGNORED: Final = frozenset({".git", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache"})


def worker(
    where: Annotated[
        str, typer.Argument(metavar="MODULE[:NAME]", help="Where the Worker is: app.jobs:worker")
    ],
    url: Annotated[
        str | None,
        typer.Option("--url", help="Another broker than the one the worker names.", show_default=False),
    ] = None,
    processes: Annotated[int | None, typer.Option("--processes", min=1, help="How many processes.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a file changes.")] = False,
) -> None:
    """Run a worker until it is stopped (SIGTERM, SIGINT; a second one hurries)."""
    if reload:
        raise typer.Exit(watch([argument for argument in sys.argv[1:] if argument != "--reload"]))
    found = load(where)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)  # nothing, where the module has its own
    if url is not None:
        found._settings = dataclasses.replace(found._settings, target=url)
    if processes is not None:
        found.processes = processes
    try:
        code = found.run()
    except UnimqError as error:
        print(f"unimq: {error}", file=sys.stderr)
        code = 1
    raise typer.Exit(code)


def load(where: str) -> Worker:
    """The Worker that `module:name` names. Raises `typer.BadParameter`."""
    module_name, _, name = where.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there; what it imports is not
        raise typer.BadParameter(
            f"there is no module {module_name!r} in {os.getcwd()} or on the path"
        ) from error
    found = getattr(module, name or "worker", None)
    if not isinstance(found, Worker):
        raise typer.BadParameter(f"{module_name}:{name or 'worker'} is not a unimq.Worker")
    return found


def watch(arguments: list[str]) -> int:
    """Run `unimq ARGUMENTS` again and again, until it is stopped by a signal."""
    stopped = False

    def heard(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)
    while True:
        seen = snapshot(Path.cwd())
        child = subprocess.Popen([sys.executable, "-m", "unimq", *arguments])
        while not stopped and snapshot(Path.cwd()) == seen:
            time.sleep(LOOK_S)
        code = _end(child)
        if stopped:
            return code
        print("unimq: a file changed, starting anew", file=sys.stderr, flush=True)


def _end(child: subprocess.Popen[bytes]) -> int:
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def snapshot(top: Path) -> dict[str, int]:
    """Every Python file beneath `top` → when it was changed."""
    found: dict[str, int] = {}
    for folder, folders, names in os.walk(top):
        folders[:] = [each for each in folders if each not in IGNORED]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                try:
                    found[path] = os.stat(path).st_mtime_ns
                except FileNotFoundError:
                    continue  # it went between the two looks
    return found
