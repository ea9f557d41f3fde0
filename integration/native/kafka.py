"""Kafka (KRaft) as a local process: broker and controller in one, from its Maven artefacts."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from integration.native import _maven
from integration.native._process import HOST, BrokerFailed, NativeBroker, Process, accepts, free_ports

VERSION = "4.3.1"
FORMAT_TIMEOUT_S = 60.0

_CONFIG = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.coordinator.rebalance.protocols=classic,consumer,share
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""
_LOG_CONFIG = """\
<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class Kafka(NativeBroker):
    name = "kafka"

    def __init__(self, version: str = VERSION) -> None:
        super().__init__()
        self.version = version

    @classmethod
    def available(cls) -> str | None:
        return _maven.reason_without(cls.name, _coordinates(VERSION))

    def _prepare(self, directory: Path) -> str:
        self._jars = _maven.jars(self.name, _coordinates(self.version))
        self._port, controller_port = free_ports(2)
        config = _CONFIG.format(
            host=HOST, port=self._port, controller_port=controller_port, directory=directory
        )
        (directory / "server.properties").write_text(config)
        (directory / "log4j2.xml").write_text(_LOG_CONFIG)
        self._format()
        return f"kafka://{HOST}:{self._port}"

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",  # one in 64 begins with a hyphen
            "-c",
            "server.properties",
            "--feature",
            "share.version=1",
        ]
        done = subprocess.run(
            [*self._java(), *tool],
            cwd=self.directory,
            timeout=FORMAT_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise BrokerFailed(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    def _command(self) -> Sequence[str]:
        return [*self._java(), "kafka.Kafka", "server.properties"]

    def _java(self) -> list[str]:
        directory = self.directory
        return [
            *_maven.java(directory),
            f"-Dlog4j2.configurationFile={directory}/log4j2.xml",
            "-cp",
            f"{self._jars}/*",
        ]

    def _ready(self, process: Process) -> bool:
        return "Kafka Server started" in process.log_text() and accepts(self._port)


def _coordinates(version: str) -> list[str]:
    # slf4j alone logs nothing, and then a broker that fails would say nothing.
    return [f"org.apache.kafka:kafka_2.13:{version}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"]
