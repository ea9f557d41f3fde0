"""Real brokers in containers, one shape for all: `with KafkaContainer() as kafka: unimq.connect(kafka.url)`.

- Built on testcontainers, which is imported at `start()`: without it, or without Docker, this module still imports.
- `image` is the vendor's own, pinned; TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX points to a mirror.
- A container that does not come up is removed before the error is raised.
"""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, ClassVar, Self

from unimq.errors import UnimqError

START_TIMEOUT_S = 120
EMULATOR_TIMEOUT_S = 180


class Container(ABC):
    """What the five have in common."""

    IMAGE: ClassVar[str]
    PORT: ClassVar[int]

    def __init__(self, image: str | None = None, *, host_port: int | None = None) -> None:
        """`host_port` keeps the port over a restart of the container; without it Docker chooses one each time."""
        self.image = image or self.IMAGE
        self.host_port = host_port
        self._container: Any = None

    @abstractmethod
    def _create(self) -> Any:
        """The testcontainers object, not started."""

    @abstractmethod
    def _url(self, host: str, port: int) -> str: ...

    def _start(self, container: Any) -> None:
        container.start()

    def _remove_others(self) -> None:  # noqa: B027
        """Removes what was started beside the container; most have nothing."""

    def start(self) -> Self:
        if self._container is not None:
            raise RuntimeError(f"{type(self).__name__} is started already")
        try:
            container = self._container = self._create()
            if self.host_port is not None:
                container.with_bind_ports(self.PORT, self.host_port)
            self._start(container)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.stop()
        finally:
            self._remove_others()

    @property
    def container(self) -> Any:
        """The testcontainers object, for all that this class does not wrap."""
        if self._container is None:
            raise RuntimeError(f"{type(self).__name__} is not started")
        return self._container

    @property
    def url(self) -> str:
        return self._url(
            self.container.get_container_host_ip(), int(self.container.get_exposed_port(self.PORT))
        )

    @property
    def version(self) -> str:
        """The tag of the image."""
        return self.image.rpartition(":")[2]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RabbitMQContainer(Container):
    IMAGE = "rabbitmq:4.1"
    PORT = 5672

    def _create(self) -> Any:
        return (
            _docker(self.image, self.PORT)
            .with_env("RABBITMQ_DEFAULT_USER", "guest")
            .with_env("RABBITMQ_DEFAULT_PASS", "guest")
            .waiting_for(_log("Server startup complete"))
        )

    def _url(self, host: str, port: int) -> str:
        return f"amqp://guest:guest@{_bracketed(host)}:{port}/"


class KafkaContainer(Container):
    """Kafka in KRaft mode. Its image must have a version as its tag: testcontainers decides by it."""

    IMAGE = "confluentinc/cp-kafka:8.1.0"
    PORT = 9093

    def _create(self) -> Any:
        made = _imported("testcontainers.community.kafka").KafkaContainer(self.image, port=self.PORT)
        return made.with_kraft()

    def _start(self, container: Any) -> None:
        container.start(timeout=START_TIMEOUT_S)

    def _url(self, host: str, port: int) -> str:
        return f"kafka://{_bracketed(host)}:{port}"


class ArtemisContainer(Container):
    """ActiveMQ Artemis as it comes: its STOMP acceptor has no anycastPrefix."""

    IMAGE = "apache/activemq-artemis:2.40.0"
    PORT = 61613

    def _create(self) -> Any:
        return (
            _docker(self.image, self.PORT)
            .with_env("ARTEMIS_USER", "admin")
            .with_env("ARTEMIS_PASSWORD", "admin")
            .waiting_for(_log("AMQ221007"))
        )

    def _url(self, host: str, port: int) -> str:
        return f"stomp://admin:admin@{_bracketed(host)}:{port}"


class ClassicContainer(Container):
    """ActiveMQ Classic with the scheduler on, which its image leaves off: delayed messages need it."""

    IMAGE = "apache/activemq-classic:6.1.6"
    PORT = 61613
    CONFIG_PATH = "/opt/apache-activemq/conf/unimq.xml"
    CONFIG = """\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
  http://www.springframework.org/schema/beans/spring-beans.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="localhost" schedulerSupport="true">
    <plugins>
      <simpleAuthenticationPlugin anonymousAccessAllowed="false">
        <users><authenticationUser username="admin" password="admin" groups="users,admins"/></users>
      </simpleAuthenticationPlugin>
    </plugins>
    <transportConnectors><transportConnector name="stomp" uri="stomp://0.0.0.0:61613"/></transportConnectors>
  </broker>
</beans>
"""

    def _create(self) -> Any:
        return (
            _docker(self.image, self.PORT)
            .with_copy_into_container(self.CONFIG.encode(), self.CONFIG_PATH)
            # A file of its own: the image's entry point edits activemq.xml.
            .with_command(["activemq", "console", f"xbean:file:{self.CONFIG_PATH}"])
            .waiting_for(_log(r"Apache ActiveMQ .* started"))
        )

    def _url(self, host: str, port: int) -> str:
        return f"stomp://admin:admin@{_bracketed(host)}:{port}"


class ServiceBusEmulator(Container):
    """Microsoft's emulator and the SQL Server it needs. Starting it accepts both licences, so the caller must say so.

    `queues` and `topics` (topic to its subscriptions) exist when it starts; it has at most 50 of them and 10 connections.
    """

    IMAGE = "mcr.microsoft.com/azure-messaging/servicebus-emulator:latest"
    SQL_IMAGE = "mcr.microsoft.com/mssql/server:2022-latest"
    PORT = 5672
    CONFIG_PATH = "/ServiceBus_Emulator/ConfigFiles/Config.json"

    def __init__(
        self,
        image: str | None = None,
        *,
        host_port: int | None = None,
        sql_image: str | None = None,
        queues: tuple[str, ...] = (),
        topics: Mapping[str, tuple[str, ...]] | None = None,
        accept_eula: bool = False,
    ) -> None:
        super().__init__(image, host_port=host_port)
        if not accept_eula:
            raise ValueError(
                "the emulator and SQL Server have licences of their own: pass accept_eula=True to accept them"
            )
        self.sql_image = sql_image or self.SQL_IMAGE
        self.queues = queues
        self.topics = dict(topics or {})
        self._network: Any = None
        self._sql: Any = None

    def config(self) -> dict[str, Any]:
        """The emulator's Config.json."""
        namespace = {
            "Name": "sbemulatorns",
            "Queues": [{"Name": name, "Properties": {}} for name in self.queues],
            "Topics": [
                {
                    "Name": topic,
                    "Properties": {},
                    "Subscriptions": [{"Name": name, "Properties": {}} for name in subscriptions],
                }
                for topic, subscriptions in self.topics.items()
            ],
        }
        return {"UserConfig": {"Namespaces": [namespace], "Logging": {"Type": "Console"}}}

    def _create(self) -> Any:
        # SQL Server wants three kinds of characters.
        password = f"Aa1-{secrets.token_hex(16)}"
        self._network = _imported("testcontainers.core.network").Network().create()
        self._sql = (
            _docker(self.sql_image)
            .with_env("ACCEPT_EULA", "Y")
            .with_env("MSSQL_SA_PASSWORD", password)
            .with_network(self._network)
            .with_network_aliases("sql")
        )
        self._sql.start()
        return (
            _docker(self.image, self.PORT)
            .with_env("ACCEPT_EULA", "Y")
            .with_env("SQL_SERVER", "sql")
            .with_env("MSSQL_SA_PASSWORD", password)
            .with_network(self._network)
            .with_copy_into_container(json.dumps(self.config()).encode(), self.CONFIG_PATH)
            .waiting_for(_log("Emulator Service is Successfully Up!", EMULATOR_TIMEOUT_S))
        )

    def _remove_others(self) -> None:
        sql, self._sql = self._sql, None
        network, self._network = self._network, None
        try:
            if sql is not None:
                sql.stop()
        finally:
            if network is not None:
                network.remove()

    def _url(self, host: str, port: int) -> str:
        return (
            f"Endpoint=sb://{_bracketed(host)}:{port};SharedAccessKeyName=RootManageSharedAccessKey;"
            "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
        )


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        text = f"{error.name} is not installed: pip install 'unimq[testing]'"
        raise UnimqError(text, code="testing-extra-missing", cause=error) from error


def _docker(image: str, port: int | None = None) -> Any:
    container = _imported("testcontainers.core.container").DockerContainer(image)
    return container if port is None else container.with_exposed_ports(port)


def _log(pattern: str, timeout_s: int = START_TIMEOUT_S) -> Any:
    strategy = _imported("testcontainers.core.wait_strategies").LogMessageWaitStrategy(pattern)
    return strategy.with_startup_timeout(timeout_s)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
