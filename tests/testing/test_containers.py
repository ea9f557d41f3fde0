"""The containers as far as they go without Docker: they are made, their URLs are right, what is missing is named."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from unimq.errors import UnimqError
from unimq.testing import containers
from unimq.testing.containers import (
    ArtemisContainer,
    ClassicContainer,
    Container,
    KafkaContainer,
    RabbitMQContainer,
    ServiceBusEmulator,
)

PLAIN: list[type[Container]] = [KafkaContainer, RabbitMQContainer, ArtemisContainer, ClassicContainer]
EMULATOR_KEY = (
    "SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
)


class Fake:
    """What testcontainers' object is asked for."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.stopped = 0
        self.bound: list[tuple[int, int]] = []

    def start(self, **_: Any) -> None:
        if self.fails:
            raise TimeoutError("no such line in the log")

    def stop(self) -> None:
        self.stopped += 1

    def with_bind_ports(self, container: int, host: int) -> None:
        self.bound.append((container, host))

    def get_container_host_ip(self) -> str:
        return "docker.test"

    def get_exposed_port(self, port: int) -> str:
        return str(port + 10_000)


def with_fake(container: Container, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.setattr(container, "_create", lambda: fake)
    return container


@pytest.mark.parametrize(
    ("container", "url"),
    [
        (KafkaContainer(), "kafka://docker.test:19093"),
        (RabbitMQContainer(), "amqp://guest:guest@docker.test:15672/"),
        (ArtemisContainer(), "stomp://admin:admin@docker.test:71613"),
        (ClassicContainer(), "stomp://admin:admin@docker.test:71613"),
        (
            ServiceBusEmulator(accept_eula=True),
            f"Endpoint=sb://docker.test:15672;{EMULATOR_KEY}",
        ),
    ],
)
def test_url(container: Container, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    with with_fake(container, fake, monkeypatch):
        assert container.url == url
    assert fake.stopped == 1


def test_an_ipv6_host_is_bracketed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "get_container_host_ip", lambda _: "2001:db8::7")
    with with_fake(RabbitMQContainer(), Fake(), monkeypatch) as rabbitmq:
        assert rabbitmq.url == "amqp://guest:guest@[2001:db8::7]:15672/"


@pytest.mark.parametrize("kind", PLAIN)
def test_image_and_version(kind: type[Container]) -> None:
    assert kind().version == kind.IMAGE.rpartition(":")[2]
    assert kind("mirror/broker:9.9").image == "mirror/broker:9.9"
    assert kind("mirror/broker:9.9").version == "9.9"


def test_kafka_has_a_tag_that_means_kraft() -> None:
    # testcontainers starts ZooKeeper for a tag that is not a version.
    assert KafkaContainer().version[0].isdigit()


def test_a_fixed_port_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    with with_fake(RabbitMQContainer(host_port=5673), fake, monkeypatch):
        assert fake.bound == [(5672, 5673)]


def test_one_that_does_not_come_up_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(fails=True)
    container = with_fake(ArtemisContainer(), fake, monkeypatch)
    with pytest.raises(TimeoutError, match="no such line"):
        container.start()
    assert fake.stopped == 1
    with pytest.raises(RuntimeError, match="not started"):
        _ = container.url


def test_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        with_fake(RabbitMQContainer(), Fake(), monkeypatch) as container,
        pytest.raises(RuntimeError, match="started already"),
    ):
        container.start()


@pytest.mark.parametrize("kind", PLAIN)
def test_without_testcontainers_it_says_what_to_install(
    kind: type[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("testcontainers.core.container", "testcontainers.community.kafka"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnimqError, match=r"pip install 'unimq\[testing\]'") as caught:
        kind().start()
    assert caught.value.code == "testing-extra-missing"
    assert isinstance(caught.value.cause, ImportError)


def test_the_emulator_wants_its_licence_accepted() -> None:
    with pytest.raises(ValueError, match="accept_eula=True"):
        ServiceBusEmulator()


def test_the_emulators_configuration() -> None:
    emulator = ServiceBusEmulator(queues=("orders",), topics={"events": ("billing",)}, accept_eula=True)
    (namespace,) = json.loads(json.dumps(emulator.config()))["UserConfig"]["Namespaces"]
    assert [queue["Name"] for queue in namespace["Queues"]] == ["orders"]
    (topic,) = namespace["Topics"]
    assert topic["Name"] == "events"
    assert [subscription["Name"] for subscription in topic["Subscriptions"]] == ["billing"]


def test_the_emulator_removes_its_database_and_network_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []

    class Network:
        def create(self) -> Network:
            return self

        def remove(self) -> None:
            removed.append("network")

    class Sql(Fake):
        def __getattr__(self, name: str) -> Any:
            return lambda *_: self

        def start(self, **_: Any) -> None:
            raise TimeoutError("SQL Server did not start")

        def stop(self) -> None:
            removed.append("sql")

    class Module:
        pass

    module: Any = Module()
    module.Network = Network
    monkeypatch.setattr(containers, "_imported", lambda _: module)
    monkeypatch.setattr(containers, "_docker", lambda *_: Sql())
    with pytest.raises(TimeoutError, match="SQL Server"):
        ServiceBusEmulator(accept_eula=True).start()
    assert removed == ["sql", "network"]
