"""Tidy is a test: what the house promises about its own text and structure. It checks whatever is there.

Rules
- Each check returns the places that break it, and says what to do; a place is `file:line`.
- An exception is a line of a table here with its reason, never a comment that switches a check off where it stands.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 600  # a file beyond this does more than one thing
LONGER: dict[str, str] = {}  # path → why it may be longer

NOT_OURS = {
    ".git",
    ".venv",
    "build",
    "dist",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}
TEXT = {".py", ".md", ".toml", ".sh", ".cfg", ".yml", ".yaml", ".json", ".xml", ".txt", ""}

# ------------------------------------------------------------------------------------------------------- the words
BROKER_WORDS = re.compile(
    r"kafka|rabbit|pika|stomp|active-?mq|artemis|service[ _-]?bus|azure|event[ _-]?hub|amqp|confluent|librdkafka",
    re.I,
)
MAY_NAME_BROKERS = ("unimq/broker/", "unimq/wire/", "unimq/testing/containers")
IO_MODULES = {
    "socket",
    "asyncio",
    "threading",
    "time",
    "select",
    "selectors",
    "ssl",
    "subprocess",
    "multiprocessing",
}
PURE = ("unimq/wire/", "unimq/broker/engine/")
CLIENT_LIBRARIES = [
    "confluent_kafka",
    "pika",
    "stomp",
    "azure",
    "typer",
    "rich",
    "pytest",
    "pydantic",
    "opentelemetry",
]
# Written in pieces, so that this file does not break its own rule.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/-])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/\w|Us" + r"ers/\w)\b/?|\b[A-Z]:\\+Us" + r"ers\b"
)
REGISTRY_HOST = re.compile(
    r"pypi\.o" + r"rg|pythonhos" + r"ted|maven\.o" + r"rg|index-u" + r"rl|deb\.deb" + r"ian", re.I
)
FIXED_PORT = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]):(\d+)")


def files(*tops: str, suffix: str | None = ".py") -> list[Path]:
    """Files under these folders (or these files) that are ours, in a stable order."""
    found: list[Path] = []
    for top in tops:
        path = ROOT / top
        candidates = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in candidates:
            inside = file.relative_to(ROOT).parts
            wanted = file.suffix in TEXT if suffix is None else file.suffix == suffix
            if wanted and file.is_file() and not NOT_OURS.intersection(inside):
                found.append(file)
    return found


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def text_of(file: Path) -> str:
    return file.read_text("utf-8", errors="replace")


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(text_of(file), str(file))


def lines_with(pattern: re.Pattern[str], file: Path) -> Iterator[str]:
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if found := pattern.search(line):
            yield f"{name_of(file)}:{number}: {found.group()!r} in {line.strip()[:100]!r}"


def imports(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def none_of(broken: list[str], what_to_do: str) -> None:
    if broken:
        pytest.fail(f"{what_to_do}\n" + "\n".join(broken), pytrace=False)


# ------------------------------------------------------------------------------------------------------- structure
def test_the_core_names_no_broker() -> None:
    core = [file for file in files("unimq") if not name_of(file).startswith(MAY_NAME_BROKERS)]
    broken = [place for file in core for place in lines_with(BROKER_WORDS, file)]
    none_of(broken, f"only {', '.join(MAY_NAME_BROKERS)} may name a broker, its protocol or its client:")


def test_codecs_and_engine_are_pure() -> None:
    broken = [
        f"{name_of(file)}:{line}: import {module}"
        for top in PURE
        for file in files(top)
        for line, module in imports(file)
        if module.partition(".")[0] in IO_MODULES
    ]
    none_of(
        broken, "codecs and the engine have no socket, clock, thread or loop; they are handed what they need:"
    )


def test_the_core_imports_no_adapter_and_no_client_library() -> None:
    strangers = {"unimq_memory", "unimq_kafka", "unimq_rabbitmq", "unimq_activemq", "unimq_servicebus"}
    strangers |= {"confluent_kafka", "pika", "stomp", "azure"}
    broken = [
        f"{name_of(file)}:{line}: import {module}"
        for file in files("unimq")
        if not name_of(file).startswith("unimq/testing/")
        for line, module in imports(file)
        if module.partition(".")[0] in strangers
    ]
    none_of(broken, "adapters are found by their entry points, client libraries belong to adapters:")


def test_no_bare_except() -> None:
    broken = [
        f"{name_of(file)}:{node.lineno}"
        for file in files("unimq", "adapters", "tests", "integration", "bench", "tools", "examples")
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    none_of(broken, "say which exception; BaseException where it must be all of them:")


def test_every_module_opens_with_a_docstring() -> None:
    broken = [
        name_of(file)
        for file in files("unimq", "adapters", "integration", "bench", "tools", "examples")
        if tree_of(file).body and ast.get_docstring(tree_of(file)) is None
    ]
    none_of(broken, "a module opens with a docstring that gives its rules in a few lines:")


def test_every_package_folder_has_an_init() -> None:
    folders = {file.parent for file in files("unimq", "adapters")} - {ROOT / "adapters"}
    broken = sorted(name_of(folder) for folder in folders if not (folder / "__init__.py").exists())
    none_of(broken, "a folder without __init__.py is left out of the wheel in silence:")


def test_files_are_short() -> None:
    everything = files("unimq", "adapters", "tests", "integration", "bench", "tools", "examples")
    lengths = {name_of(file): text_of(file).count("\n") for file in everything}
    broken = [
        f"{name}: {lines}" for name, lines in lengths.items() if lines > LINES_MAX and name not in LONGER
    ]
    none_of(broken, f"more than {LINES_MAX} lines: split it, or give the reason in LONGER:")
    none_of([name for name in LONGER if lengths.get(name, 0) <= LINES_MAX], "no longer needed in LONGER:")


# ----------------------------------------------------------------------------------------------------- the surface
def test_all_is_what_is_public() -> None:
    unimq = importlib.import_module("unimq")
    if not hasattr(unimq, "__all__"):
        assert not text_of(ROOT / "unimq/__init__.py").strip(), "unimq/__init__.py needs __all__"
        pytest.skip("unimq is still empty")
    named = list(unimq.__all__)
    assert len(named) == len(set(named)), "a name stands twice in __all__"
    missing = [name for name in named if not hasattr(unimq, name)]
    assert not missing, f"in __all__ and not importable: {missing}"
    modules = {path.stem for path in (ROOT / "unimq").iterdir()}
    public = {name for name in vars(unimq) if not name.startswith(("_", "@")) and name not in modules}
    unnamed = public - set(named) - {"annotations", "TYPE_CHECKING"}
    assert not unnamed, f"public in unimq and not in __all__: {sorted(unnamed)}"


IMPORT_PROBE = """
import sys, threading
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
import unimq
names = [getattr(unimq, name) for name in getattr(unimq, "__all__", ())]
import json
print(json.dumps({
    "libraries": sorted(m for m in LIBRARIES if m in sys.modules),
    "adapters": sorted(m for m in sys.modules if m.startswith("unimq_")),
    "threads": [t.name for t in threading.enumerate() if t is not threading.main_thread()],
    "sockets": sockets,
}))
"""


def test_import_loads_no_client_library_and_starts_nothing() -> None:
    """A new loop would show too: it opens a pair of sockets."""
    probe = IMPORT_PROBE.replace("LIBRARIES", repr(CLIENT_LIBRARIES))
    command = [sys.executable, "-W", "error", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"libraries": [], "adapters": [], "threads": [], "sockets": []}


# ------------------------------------------------------------------------------------------------------- the tests
def test_no_fixed_port_in_tests() -> None:
    """Ports 0 (any free one) and 1 (nobody listens) are fine; so is a made-up host name in a test of URLs."""
    broken: list[str] = []
    for file in files("tests", "integration"):
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if any(int(port) > 1 for port in FIXED_PORT.findall(line)):
                broken.append(f"{name_of(file)}:{number}: {line.strip()[:100]}")
        for node in ast.walk(tree_of(file)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("bind", "listen_on")
            ):
                ports = [
                    c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and type(c.value) is int
                ]
                if any(port > 1 for port in ports):
                    broken.append(f"{name_of(file)}:{node.lineno}: {ast.unparse(node)}")
    none_of(
        broken,
        "no fixed port: bind port 0, or take the port from a fixture; in a test of URLs use a made-up host:",
    )


# -------------------------------------------------------------------------------------------------------- the text
def everything() -> list[Path]:
    return [
        file
        for top in sorted(ROOT.iterdir())
        if top.name not in NOT_OURS
        for file in files(top.name, suffix=None)
    ]


def test_no_machine_paths() -> None:
    broken = [place for file in everything() for place in lines_with(MACHINE_PATH, file)]
    none_of(
        broken, "a path of somebody's machine; take it from the environment or from the file's own place:"
    )


def test_no_registry_hosts() -> None:
    broken = [place for file in everything() for place in lines_with(REGISTRY_HOST, file)]
    none_of(broken, "packages come from wherever the machine's own pip, mvn and apt are set up to look:")
