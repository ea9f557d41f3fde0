"""ActiveMQ Artemis as a local process: what `artemis create` makes, with one STOMP acceptor on loopback and nothing else.

The acceptor has no anycastPrefix and no multicastPrefix, as a fresh broker has none: that is what users meet.

Variants: under `mtls` the certificate is asked for by the port and the user logs in with a password all the same; `login` is
another user in place of admin.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from integration.native import _maven
from integration.native._process import HOST, BrokerFailed, NativeBroker, Process, accepts, free_ports
from integration.native.security import STORE_PASSWORD, User, query

VERSION = "2.40.0"
CREATE_TIMEOUT_S = 60.0
ADMIN = User("admin", "admin")

_ACCEPTORS = re.compile(r"<acceptors>.*</acceptors>", re.S)
_ACCEPTOR = '<acceptors><acceptor name="stomp">tcp://{host}:{port}?protocols=STOMP;useEpoll=true{tls}</acceptor></acceptors>'
_TLS = (
    ";sslEnabled=true;keyStoreType=PKCS12;keyStorePath={files.server_store};keyStorePassword={password}"
    ";trustStoreType=PKCS12;trustStorePath={files.trust_store};trustStorePassword={password};needClientAuth={client_auth}"
)


class Artemis(NativeBroker):
    name = "artemis"
    version = VERSION

    @classmethod
    def available(cls) -> str | None:
        return _maven.reason_without(cls.name, [_artifact(VERSION)])

    def _prepare(self, directory: Path) -> str:
        home = _maven.unpacked(self.name, _artifact(self.version))
        (self._port,) = free_ports(1)
        variant, files = self.variant, self.files
        user = User.fresh() if variant.login else ADMIN
        instance = directory / "instance"
        create = [
            "create",
            str(instance),
            "--user",
            user.name,
            "--password",
            user.password,
            "--require-login",
            "--silent",
        ]
        create += [
            "--no-autotune",
            "--no-web",
            "--no-amqp-acceptor",
            "--no-hornetq-acceptor",
            "--no-mqtt-acceptor",
        ]
        create += ["--host", HOST, "--nio"]
        done = subprocess.run(
            [str(home / "bin" / "artemis"), *create],
            env=self._env(),
            cwd=directory,
            timeout=CREATE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise BrokerFailed(
                f"artemis create ended with code {done.returncode}: {done.stdout}{done.stderr}"
            )
        self._configure(instance)
        options = files.url_options(client=variant.mtls) if files is not None else {}
        scheme = f"stomp{'s' * variant.tls}"
        return f"{scheme}://{user.name}:{user.password}@{HOST}:{self._port}{query(options)}"

    def _configure(self, instance: Path) -> None:
        broker = instance / "etc" / "broker.xml"
        tls = ""
        if self.files is not None:
            client_auth = str(self.variant.mtls).lower()
            tls = _TLS.format(files=self.files, password=STORE_PASSWORD, client_auth=client_auth)
        acceptor = _ACCEPTOR.format(host=HOST, port=self._port, tls=tls)
        text, found = _ACCEPTORS.subn(lambda _: acceptor, broker.read_text())
        if found != 1:
            raise BrokerFailed("Artemis' broker.xml has no single <acceptors>")
        broker.write_text(text)

    def _env(self) -> dict[str, str]:
        options = " ".join(_maven.java(self.directory)[1:])
        return os.environ | {"JAVA_ARGS": options, "HOME": str(self.directory)}

    def _command(self) -> Sequence[str]:
        return [str(self.directory / "instance" / "bin" / "artemis"), "run"]

    def _ready(self, process: Process) -> bool:
        return "AMQ221007" in process.log_text() and accepts(self._port)


def _artifact(version: str) -> str:
    return f"org.apache.activemq:apache-artemis:{version}:tar.gz:bin"
