"""ActiveMQ Classic as a local process, from its Maven artefacts: STOMP on loopback, KahaDB, the scheduler on.

Variants: under `mtls` the certificate is asked for by the port and the user logs in with a password all the same; `login` is
another user in place of admin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from integration.native import _maven
from integration.native._process import HOST, NativeBroker, Process, accepts, free_ports
from integration.native.security import STORE_PASSWORD, User, query

VERSION = "6.1.6"
SPRING_VERSION = "6.2.12"
ADMIN = User("admin", "admin")
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
        <users><authenticationUser username="{user.name}" password="{user.password}" groups="users,admins"/></users>
      </simpleAuthenticationPlugin>
    </plugins>
    {tls}
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="256 mb"/></memoryUsage>
      <storeUsage><storeUsage limit="4 gb"/></storeUsage>
      <tempUsage><tempUsage limit="1 gb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="stomp" uri="{transport}"/>
    </transportConnectors>
  </broker>
</beans>
"""
_TLS = """\
<sslContext><sslContext keyStore="file:{files.server_store}" keyStoreType="PKCS12" keyStorePassword="{password}"
      trustStore="file:{files.trust_store}" trustStoreType="PKCS12" trustStorePassword="{password}"/></sslContext>
"""


class Classic(NativeBroker):
    name = "classic"
    version = VERSION

    @classmethod
    def available(cls) -> str | None:
        return _maven.reason_without(cls.name, _coordinates(VERSION))

    def _prepare(self, directory: Path) -> str:
        self._jars = _maven.jars(self.name, _coordinates(self.version))
        (self._port,) = free_ports(1)
        variant, files = self.variant, self.files
        user = User.fresh() if variant.login else ADMIN
        transport = (
            f"stomp{'+ssl' * variant.tls}://{HOST}:{self._port}{'?needClientAuth=true' * variant.mtls}"
        )
        tls = _TLS.format(files=files, password=STORE_PASSWORD) if files is not None else ""
        (directory / "broker.xml").write_text(
            _CONFIG.format(directory=directory, transport=transport, user=user, tls=tls)
        )
        options = files.url_options(client=variant.mtls) if files is not None else {}
        scheme = f"stomp{'s' * variant.tls}"
        return f"{scheme}://{user.name}:{user.password}@{HOST}:{self._port}{query(options)}"

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
