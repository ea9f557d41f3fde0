"""amqplib (npm) by itself, on the reference broker and on a real RabbitMQ: `amqplib.js` asserts the same on both.

The client is installed once into the cache by npm; where there is no node, no npm or no registry, this says so and is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.native._maven import cache_dir
from unimq import broker

VERSION = "2.3.1"
INSTALL_LIMIT_S = 120.0
RUN_LIMIT_S = 30.0
PROGRAM = Path(__file__).with_name("amqplib.js")
SCENARIOS = re.findall(r"^  async (\w+)\(", PROGRAM.read_text("utf-8"), re.M)


@pytest.fixture(scope="module")
def modules() -> Path:
    """The node_modules that have amqplib."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on the PATH")
    place = cache_dir() / f"npm-amqplib-{VERSION}"
    if not place.exists():
        _install(place)
    return place / "node_modules"


def _install(place: Path) -> None:
    """There whole, by a rename, or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / "made"
        made.mkdir()
        command = ["npm", "install", "--prefix", str(made), "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(
                [*command, f"amqplib@{VERSION}"], capture_output=True, text=True, timeout=INSTALL_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install amqplib within {INSTALL_LIMIT_S:g} s")
        if done.returncode:
            pytest.skip(f"npm cannot install amqplib {VERSION} here: exit code {done.returncode}")
        try:
            made.rename(place)
        except OSError:
            assert place.exists()  # another process was faster


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    with broker.run(amqp=0) as running:
        yield running.urls["amqp"]


@pytest.fixture(params=["ours", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str:
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else str(found.url)


@pytest.mark.timeout(INSTALL_LIMIT_S + 2 * RUN_LIMIT_S)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_amqplib(scenario: str, url: str, modules: Path, unique: Callable[[str], str]) -> None:
    ran = subprocess.run(
        ["node", str(PROGRAM), url, unique("amqplib"), scenario],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    assert ran.returncode == 0, ran.stderr
