"""ActiveMQ Classic as a local process, from its Maven artefacts: STOMP on loopback, KahaDB, the scheduler on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from integration.native import _maven
from integration.native._process import HOST, NativeBroker, Process, accepts, free_ports

VERSION = "6.1.6"
SPRING_VERSION = "6.2.12"
USER = PASSWORD = "admin"
_STARTED = re.compile(r"Apache ActiveMQ .* started")

_CONFIG = """\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="unimq" dataDirectory="{directory}/data"
    schedulerSupport="true" useJmx="false" useShutdownHook="true">
    <persistenceAdapter><kahaDB directory="{directory}/data/kahadb"/></persistenceAdapter>
    <plugins>
      <simpleAuthenticationPlugin anonymousAccessAllowed="false">
        <users><authenticationUser username="{user}" password="{password}" groups="users,admins"/></users>
      </simpleAuthenticationPlugin>
    </plugins>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="256 mb"/></memoryUsage>
      <storeUsage><storeUsage limit="4 gb"/></storeUsage>
      <tempUsage><tempUsage limit="1 gb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp://{host}:{port}"/>
    </transportConnectors>
  </broker>
</beans>
"""


class Classic(NativeBroker):
    name = "classic"

    def __init__(self, version: str = VERSION) -> None:
        super().__init__()
        self.version = version

    @classmethod
    def available(cls) -> str | None:
        return _maven.reason_without(cls.name, _coordinates(VERSION))

    def _prepare(self, directory: Path) -> str:
        self._jars = _maven.jars(self.name, _coordinates(self.version))
        (self._port,) = free_ports(1)
        (directory / "broker.xml").write_text(
            _CONFIG.format(directory=directory, host=HOST, port=self._port, user=USER, password=PASSWORD)
        )
        return f"stomp://{USER}:{PASSWORD}@{HOST}:{self._port}"

    def _command(self) -> Sequence[str]:
        return [
            *_maven.java(self.directory),
            "-cp",
            f"{self._jars}/*",
            "org.apache.activemq.console.Main",
            "start",
            f"xbean:file:{self.directory}/broker.xml",
        ]

    def _ready(self, process: Process) -> bool:
        return _STARTED.search(process.log_text()) is not None and accepts(self._port)


def _coordinates(version: str) -> list[str]:
    return [
        *(
            f"org.apache.activemq:activemq-{part}:{version}"
            for part in ("stomp", "console", "spring", "kahadb-store", "jaas")
        ),
        f"org.springframework:spring-context:{SPRING_VERSION}",
        # Without a binding slf4j is silent, and then a broker that fails would say nothing.
        "org.slf4j:slf4j-simple:2.0.16",
    ]
