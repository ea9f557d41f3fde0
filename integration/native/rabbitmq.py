"""RabbitMQ as a local process, with the `rabbitmqctl` of the same installation.

Debian's commands on the PATH change to the user rabbitmq and to the system's directories; those under /usr/lib/rabbitmq do not.
The node has an epmd of its own port, which ends with it; one that runs for others is never touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from integration.native._process import HOST, BrokerFailed, NativeBroker, Process, accepts, free_ports

CTL_TIMEOUT_S = 60.0
_BIN = Path("/usr/lib/rabbitmq/bin")
_VERSION = re.compile(r"Starting RabbitMQ (\S+)")

_CONFIG = """\
listeners.tcp.1 = {host}:{port}
default_user = guest
default_pass = guest
log.console = true
log.console.level = info
log.file = false
"""


class RabbitMQ(NativeBroker):
    name = "rabbitmq"
    version = "unknown"

    @classmethod
    def available(cls) -> str | None:
        if _tool("rabbitmq-server") is None:
            return "rabbitmq-server is not installed"
        if shutil.which("epmd") is None:
            return "no epmd on the PATH"
        return None

    def _prepare(self, directory: Path) -> str:
        self._port, self._distribution_port, self._epmd_port = free_ports(3)
        (directory / "rabbitmq.conf").write_text(_CONFIG.format(host=HOST, port=self._port))
        (directory / "enabled_plugins").write_text("[].\n")
        return f"amqp://guest:guest@{HOST}:{self._port}/"

    def _env(self) -> dict[str, str]:
        # Whatever RABBITMQ_* the user has set is for another node.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        directory = self.directory
        return inherited | {
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"unimq{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP": str(directory / "erl_crash.dump"),
        }

    def _command(self) -> Sequence[str]:
        return [_tool("rabbitmq-server") or "rabbitmq-server"]

    def _after(self) -> Sequence[Sequence[str]]:
        return [["epmd", "-port", str(self._epmd_port), "-kill"]]

    def _ready(self, process: Process) -> bool:
        log = process.log_text()
        if found := _VERSION.search(log):
            self.version = found[1]
        return "Server startup complete" in log and accepts(self._port)

    def rabbitmqctl(self, *args: str) -> str:
        """Runs rabbitmqctl against this node and returns what it printed. It costs about a second."""
        command = [_tool("rabbitmqctl") or "rabbitmqctl", "--quiet", *args]
        try:
            done = subprocess.run(
                command,
                env=self._env(),
                cwd=self.directory,
                timeout=CTL_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerFailed(f"rabbitmqctl {args[0]} took more than {CTL_TIMEOUT_S:g} s") from error
        if done.returncode != 0:
            raise BrokerFailed(
                f"rabbitmqctl {args[0]} ended with code {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    def add_user(
        self, name: str, password: str, configure: str = "", write: str = ".*", read: str = ".*"
    ) -> str:
        """A user with these rights on the default vhost; returns its URL. An empty pattern is no right at all."""
        self.rabbitmqctl("add_user", name, password)
        self.rabbitmqctl("set_permissions", name, configure or "^$", write or "^$", read or "^$")
        return f"amqp://{name}:{password}@{HOST}:{self._port}/"


def _tool(name: str) -> str | None:
    return shutil.which(name, path=str(_BIN)) or shutil.which(name)
