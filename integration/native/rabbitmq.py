"""RabbitMQ as a local process, with the `rabbitmqctl` of the same installation.

Variants: `tls`, the user is guest; `mtls`, the certificate's common name is the user (EXTERNAL) and there is no other way in;
`login`, a user and a vhost of its own, no guest and no vhost `/`; `mtls+login`, either way in; `management`, with the plugin.

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
from urllib.parse import quote

from integration.native._process import HOST, BrokerFailed, NativeBroker, Process, accepts, free_ports
from integration.native.security import CLIENT_NAME, PLAIN, WORDS, Authority, User, Variant, query

CTL_TIMEOUT_S = 60.0
STATISTICS_INTERVAL_S = 1  # of the management plugin; it ships with 5
_BIN = Path("/usr/lib/rabbitmq/bin")
_VERSION = re.compile(r"Starting RabbitMQ (\S+)")

_CONFIG = """\
log.console = true
log.console.level = info
log.file = false
"""
# A dead letter whose queue was not up when it was moved is moved again after this; 3 minutes as shipped.
_ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}]."
_GUEST = User("guest", "guest")


class RabbitMQ(NativeBroker):
    """For tests: `plugins` and an `advanced.config`; `join` is a node that runs: this one becomes a member of its cluster,
    and uses its epmd, which ends with that node as with a machine."""

    name = "rabbitmq"
    words = (*WORDS, "management")
    version = "unknown"

    def __init__(
        self,
        variant: Variant = PLAIN,
        authority: Authority | None = None,
        *,
        plugins: Sequence[str] = (),
        advanced: str = _ADVANCED,
        join: RabbitMQ | None = None,
    ) -> None:
        super().__init__(variant, authority)
        self.user = _GUEST
        self.vhost = "/"
        self.management_url: str | None = None
        self._plugins = list(plugins)
        self._advanced = advanced
        self._join = join

    @classmethod
    def available(cls) -> str | None:
        if _tool("rabbitmq-server") is None:
            return "rabbitmq-server is not installed"
        if shutil.which("epmd") is None:
            return "no epmd on the PATH"
        return None

    def _prepare(self, directory: Path) -> str:
        self._port, self._distribution_port, self._epmd_port, management_port = free_ports(4)
        variant = self.variant
        self.vhost = "unimq" if variant.login else "/"
        self.user = User.fresh(CLIENT_NAME) if variant.login or variant.mtls else _GUEST
        plugins, options = list(self._plugins), dict[str, str]()
        lines = [*_CONFIG.splitlines(), *self._who(), *self._listener()]
        if self.files is not None:
            options |= self.files.url_options(client=variant.mtls)
        if variant.mtls:
            plugins.append("rabbitmq_auth_mechanism_ssl")
            options["mechanism"] = "EXTERNAL"
        if "management" in variant.words:
            plugins.append("rabbitmq_management")
            self.management_url = f"http://{HOST}:{management_port}"
            lines += [
                f"management.tcp.ip = {HOST}",
                f"management.tcp.port = {management_port}",
                f"collect_statistics_interval = {STATISTICS_INTERVAL_S * 1000}",
            ]
            options["management"] = self.management_url
            if variant.mtls:  # a certificate is no login there
                options["management"] = self.management_url.replace("//", f"//{_pair(self.user)}@")
        if self._join is not None:
            lines += self._joining(self._join, directory)
        (directory / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        (directory / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (directory / "advanced.config").write_text(self._advanced)
        return self.url_for(self.user, **options)

    def _who(self) -> list[str]:
        """The one user and the one vhost that the broker makes at its first start, and how that user logs in."""
        lines = [
            f"default_user = {self.user.name}",
            f"default_pass = {self.user.password}",
            f"default_vhost = {self.vhost}",
        ]
        if self.variant.mtls:
            lines += ["ssl_cert_login_from = common_name", "auth_mechanisms.1 = EXTERNAL"]
            lines += ["auth_mechanisms.2 = PLAIN"] if self.variant.login else []
        return lines

    def _listener(self) -> list[str]:
        if self.files is None:
            return [f"listeners.tcp.1 = {HOST}:{self._port}"]
        variant = self.variant
        return [
            "listeners.tcp = none",
            f"listeners.ssl.1 = {HOST}:{self._port}",
            f"ssl_options.cacertfile = {self.files.ca}",
            f"ssl_options.certfile = {self.files.server}",
            f"ssl_options.keyfile = {self.files.server}",
            f"ssl_options.verify = {'verify_peer' if variant.mtls else 'verify_none'}",
            f"ssl_options.fail_if_no_peer_cert = {str(variant.mtls and not variant.login).lower()}",
        ]

    def _joining(self, other: RabbitMQ, directory: Path) -> list[str]:
        self._epmd_port = other._epmd_port
        # the secret that members of a cluster share; with its mode
        shutil.copy(other.directory / ".erlang.cookie", directory)
        members = "cluster_formation.classic_config.nodes"
        return [
            "cluster_formation.peer_discovery_backend = classic_config",
            f"{members}.1 = {other.node}",
            f"{members}.2 = {self.node}",
        ]

    @property
    def node(self) -> str:
        return f"unimq{self._port}@localhost"

    @property
    def port(self) -> int:
        return self._port

    def url_for(self, user: User, **options: str) -> str:
        scheme = "amqp" if self.files is None else "amqps"
        who = "" if "mechanism" in options else f"{_pair(user)}@"
        path = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{who}{HOST}:{self._port}/{path}{query(options)}"

    def _env(self) -> dict[str, str]:
        # Whatever RABBITMQ_* the user has set is for another node.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        directory = self.directory
        return inherited | {
            "HOME": str(directory),
            "RABBITMQ_NODENAME": self.node,
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
        return [] if self._join is not None else [["epmd", "-port", str(self._epmd_port), "-kill"]]

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
        return self.url_for(User(name, password))


def _pair(user: User) -> str:
    return f"{quote(user.name, safe='')}:{quote(user.password, safe='')}"


def _tool(name: str) -> str | None:
    return shutil.which(name, path=str(_BIN)) or shutil.which(name)
