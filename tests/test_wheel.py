"""The wheel, looked into: built offline with hatchling, because a package that is left out is left out in silence."""

from __future__ import annotations

import configparser
import email
import importlib
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD_TIMEOUT_S = 50
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def _read(wheel: zipfile.ZipFile, name: str) -> str:
    (full,) = (entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}"))
    return wheel.read(full).decode()


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_string(_read(wheel, "METADATA"))


def sources() -> dict[str, Path]:
    """Path in the wheel → file in the tree, for every Python file that is to be shipped."""
    found: dict[str, Path] = {}
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        top = ROOT / package
        for file in top.rglob("*.py"):
            found[file.relative_to(top.parent).as_posix()] = file
    return found


def test_every_module_is_there_and_every_package_has_its_init(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert set(sources()) - names == set()
    packages = {name.rpartition("/")[0] for name in names if name.endswith(".py")}
    without = sorted(package for package in packages if f"{package}/__init__.py" not in names)
    assert without == [], "packages without __init__.py"


def test_every_adapter_of_the_tree_is_shipped() -> None:
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    there = {f"adapters/{path.name}" for path in (ROOT / "adapters").glob("unimq_*") if path.is_dir()}
    assert there - packages == set()


def test_nothing_else_is_shipped(wheel: zipfile.ZipFile) -> None:
    shipped = {
        Path(package).name for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    tops = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops <= shipped
    assert not [name for name in wheel.namelist() if "__pycache__" in name or "/tests/" in name]


def test_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert "unimq/py.typed" in wheel.namelist()


def test_entry_points_name_what_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    points = configparser.ConfigParser(delimiters=("=",))
    points.read_string(_read(wheel, "entry_points.txt"))
    assert points["console_scripts"]["unimq"] == "unimq.cli:main"
    assert points["pytest11"]["unimq"] == "unimq.testing.plugin"
    adapters = {value.partition(":")[0] for value in points["unimq.adapters"].values()}
    assert adapters == {"unimq_memory", "unimq_kafka", "unimq_rabbitmq", "unimq_activemq", "unimq_servicebus"}
    names = set(wheel.namelist())
    missing = []
    for group in points.sections():
        for point, value in points[group].items():
            module = value.partition(":")[0].replace(".", "/")
            package = module.partition("/")[0]
            if not any(name.startswith(f"{package}/") for name in names):
                continue  # an adapter whose folder is not in the tree yet
            if not {f"{module}.py", f"{module}/__init__.py"} & names:
                missing.append(f"{group}: {point} = {value}")
    assert missing == []


def test_an_adapter_is_found_by_every_scheme_it_says_it_has() -> None:
    points = PROJECT["project"]["entry-points"]["unimq.adapters"]
    for package in sorted({value.partition(":")[0] for value in points.values()}):
        if not (ROOT / "adapters" / package / "__init__.py").exists():
            continue
        adapter = importlib.import_module(package).ADAPTER
        assert set(adapter.schemes) == {
            scheme for scheme, value in points.items() if value == f"{package}:ADAPTER"
        }


def test_the_base_needs_two_packages_and_extras_are_what_the_design_says(metadata: Message) -> None:
    requires = metadata.get_all("Requires-Dist") or []
    base = sorted(line.partition(">")[0] for line in requires if "extra ==" not in line)
    assert base == ["msgspec", "tenacity"]
    extras = {
        "kafka",
        "rabbitmq",
        "activemq",
        "servicebus",
        "broker",
        "cli",
        "otel",
        "prometheus",
        "testing",
        "bench",
        "all",
        "dev",
    }
    assert set(metadata.get_all("Provides-Extra") or []) == extras
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_licence_is_in_it(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in _read(wheel, "licenses/LICENSE")
    assert "unimq" in _read(wheel, "licenses/NOTICE")
