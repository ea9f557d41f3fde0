"""What `unimq broker` loads before it listens: nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMIT_S = 30.0
CLIENT = ("unimq._supervisor", "unimq.driver", "unimq._sync.client", "unimq.worker")
OTHERS = ("sqlite3", "email", "typer", "rich", "pytest", "pika", "unimq_rabbitmq", "tenacity")


def loaded(program: str, names: tuple[str, ...]) -> str:
    probe = f"import sys\n{program}\nprint(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_command_line_needs_no_loop() -> None:
    assert loaded("import unimq.broker.command", ("asyncio", "ssl", "sqlite3", *CLIENT)) == ""


@pytest.mark.parametrize("names", [CLIENT, OTHERS], ids=["client", "others"])
def test_a_running_broker_has_loaded_no_client(names: tuple[str, ...]) -> None:
    assert loaded("from unimq import broker\nbroker.run(amqp=0).close()", names) == ""


def test_every_name_of_the_package_is_there_when_it_is_asked_for() -> None:
    program = "import unimq\nfor name in unimq.__all__: getattr(unimq, name)\nunimq.errors.UnimqError"
    assert loaded(program, CLIENT) == " ".join(CLIENT)
    with pytest.raises(AssertionError, match="no attribute 'nothing'"):
        loaded("import unimq\nunimq.nothing", ())
