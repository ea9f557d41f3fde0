"""Fixtures with real brokers; `sources` decides where each comes from. Queue, topic and group names are unique per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest

from integration import sources
from integration.native import BROKERS, NativeBroker, RabbitMQ

# A broker comes up within limits of its own, and a first download may be long: only the test itself is on this clock.
TEST_TIMEOUT_S = 60

_HERE = Path(__file__).parent
_used = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_used] = {}
    # Both read the environment: a wrong word there ends the run at once and not in the middle.
    try:
        sources.lane()
        sources.required()
    except sources.BrokerError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> str:
    lane = sources.lane() or " → ".join(sources.LANES)
    return f"real brokers: {', '.join(BROKERS)}; from {lane}; required: {', '.join(sorted(sources.required())) or 'none'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None and item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S, func_only=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    used = config.stash[_used]
    if used:
        terminalreporter.section("real brokers")
        for line in used.values():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def real_broker(request: pytest.FixtureRequest) -> Iterator[Callable[[str], sources.Broker]]:
    """`real_broker("kafka")` or `("kafka+tls")`: the same for the whole session, started when first asked for."""
    started: dict[str, sources.Broker] = {}
    absent: dict[str, str] = {}
    used = request.config.stash[_used]

    def get(name: str) -> sources.Broker:
        if name in absent:
            _missing(name, absent[name])
        if name not in started:
            try:
                started[name] = sources.obtain(name)
            except sources.Unavailable as error:
                absent[name] = str(error)
                used[name] = f"{name}: none: {error}"
                _missing(name, absent[name])
            used[name] = str(started[name])
        return started[name]

    try:
        yield get
    finally:
        for broker in started.values():
            broker.stop()


@pytest.fixture(scope="session")
def rabbitmq(real_broker: Callable[[str], sources.Broker]) -> sources.Broker:
    return real_broker("rabbitmq")


@pytest.fixture(scope="session")
def kafka(real_broker: Callable[[str], sources.Broker]) -> sources.Broker:
    return real_broker("kafka")


@pytest.fixture(scope="session")
def artemis(real_broker: Callable[[str], sources.Broker]) -> sources.Broker:
    return real_broker("artemis")


@pytest.fixture(scope="session")
def classic(real_broker: Callable[[str], sources.Broker]) -> sources.Broker:
    return real_broker("classic")


@pytest.fixture(scope="module")
def own_broker() -> Iterator[Callable[[str], NativeBroker]]:
    """`own_broker("rabbitmq")`: a native one for this module alone, to be paused and restarted."""
    started: dict[str, NativeBroker] = {}

    def get(name: str) -> NativeBroker:
        if name not in started:
            if reason := BROKERS[name].available():
                _missing(name, f"no native {name}, which a test of restarts needs: {reason}")
            broker = started[name] = BROKERS[name]()
            broker.start()
        return started[name]

    try:
        yield get
    finally:
        for broker in started.values():
            broker.stop()


@pytest.fixture
def own_rabbitmq(own_broker: Callable[[str], NativeBroker]) -> Iterator[RabbitMQ]:
    """A RabbitMQ of this module's own. It runs and answers again when the next test gets it."""
    broker = own_broker("rabbitmq")
    assert isinstance(broker, RabbitMQ)
    yield broker
    broker.recover()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A name that no other test has: `unique("orders")`."""
    return lambda prefix: f"{prefix}-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def missing() -> Callable[[str, str], NoReturn]:
    """`missing("kafka", reason)`: a skip, or a failure where that broker is required."""
    return _missing


def _missing(name: str, reason: str) -> NoReturn:
    if name.partition("+")[0] in sources.required():
        pytest.fail(f"UNIMQ_REQUIRE has {name}, but {reason}", pytrace=False)
    pytest.skip(reason)
