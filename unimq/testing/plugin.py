"""The pytest plug-in (entry point `pytest11`).

Rules
- Fixtures: `unimq_url`, a fresh in-process broker that is forgotten afterwards, `unimq_client`, a client of it, and
  `unimq_broker`, a reference broker on free loopback ports.
- `@pytest.mark.unimq_async(timeout_s=30)` runs a coroutine test on a loop of its own under a hard limit. Tests without that
  mark are left to whatever else runs coroutines (pytest-asyncio, anyio): there is nothing to collide.
- `--unimq-conformance-url` (repeatable) is what `python -m unimq.testing.ledger --url` uses.
"""

from __future__ import annotations

import inspect
import itertools
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import unimq

    from ..broker.server import Broker

# the suite's assertions should read as in a test file of one's own
pytest.register_assert_rewrite("unimq.testing.conformance")

MARK = "unimq_async"
TIMEOUT_S = 60.0
_counter = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unimq")
    group.addoption(
        "--unimq-conformance-url",
        action="append",
        default=[],
        metavar="URL",
        help="a broker for the conformance suite",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(timeout_s=60): run this coroutine test under a hard limit")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    mark = pyfuncitem.get_closest_marker(MARK)
    if mark is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    from .conformance._table import run_limited

    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    limit_s = float(mark.kwargs.get("timeout_s", TIMEOUT_S))
    run_limited(lambda: pyfuncitem.obj(**arguments), limit_s, pyfuncitem.nodeid)
    return True


@pytest.fixture
def unimq_url() -> Iterator[str]:
    """The URL of an in-process broker that nobody else uses; it is forgotten after the test."""
    from . import reset

    url = f"memory://test-{secrets.token_hex(4)}-{next(_counter)}"
    yield url
    reset(url)


@pytest.fixture
def unimq_client(unimq_url: str) -> Iterator[unimq.Client]:
    """A client of the fresh in-process broker; closed after the test."""
    import unimq

    with unimq.connect(unimq_url) as client:
        yield client


@pytest.fixture
def unimq_broker() -> Iterator[Broker]:
    """A running reference broker: `.urls` by protocol, `.clock.advance(seconds)`; ended after the test."""
    from ..broker import run

    with run() as broker:
        yield broker
