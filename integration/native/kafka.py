"""Kafka (KRaft) as a local process: broker and controller in one, from its Maven artefacts.

Variants: `tls` and `mtls` are SSL, `login` is SASL with PLAIN, together SASL_SSL. They are those of the clients' listener; the
broker talks to itself on another one, on loopback.
"""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from integration.native import _maven
from integration.native._process import HOST, BrokerFailed, NativeBroker, Process, accepts, free_ports
from integration.native.security import User, query

VERSION = "4.3.1"
FORMAT_TIMEOUT_S = 60.0

_CONFIG = """\
process.roles=broker,controller
node.id=1
listeners=CLIENTS://{host}:{port},INTERNAL://{host}:{internal_port},CONTROLLER://{host}:{controller_port}
advertised.listeners=CLIENTS://{host}:{port},INTERNAL://{host}:{internal_port}
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
listener.security.protocol.map=CLIENTS:{protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
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
_TLS = """\
ssl.keystore.type=PEM
ssl.keystore.location={files.server}
ssl.truststore.type=PEM
ssl.truststore.location={files.ca}
listener.name.clients.ssl.client.auth={client_auth}
"""
_LOGIN = """\
sasl.enabled.mechanisms=PLAIN
listener.name.clients.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_{user.name}="{user.password}";
"""
_PROTOCOLS = {
    (False, False): "PLAINTEXT",
    (True, False): "SSL",
    (False, True): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}
_LOG_CONFIG = """\
<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class Kafka(NativeBroker):
    name = "kafka"
    version = VERSION

    @classmethod
    def available(cls) -> str | None:
        return _maven.reason_without(cls.name, _coordinates(VERSION))

    def _prepare(self, directory: Path) -> str:
        self._jars = _maven.jars(self.name, _coordinates(self.version))
        self._port, internal_port, controller_port = free_ports(3)
        variant, files = self.variant, self.files
        config = _CONFIG.format(
            host=HOST,
            port=self._port,
            internal_port=internal_port,
            controller_port=controller_port,
            directory=directory,
            protocol=_PROTOCOLS[variant.tls, variant.login],
        )
        who = ""
        if files is not None:
            config += _TLS.format(files=files, client_auth="required" if variant.mtls else "none")
        if variant.login:
            user = User.fresh()
            config += _LOGIN.format(user=user)
            who = f"{user.name}:{quote(user.password)}@"
        (directory / "server.properties").write_text(config)
        (directory / "log4j2.xml").write_text(_LOG_CONFIG)
        self._format()
        options = files.url_options(client=variant.mtls) if files is not None else {}
        return f"kafka{'s' * variant.tls}://{who}{HOST}:{self._port}{query(options)}"

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
