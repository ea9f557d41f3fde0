"""Java artefacts by Maven coordinates, downloaded once into a cache.

The cache is ``~/.cache/unimq`` or ``UNIMQ_CACHE``. An entry appears there whole, by a rename, or not at all; two processes that
want the same entry at once wait for each other instead of downloading it twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from integration.native._process import BrokerFailed

DOWNLOAD_TIMEOUT_S = 600.0
HEAP_MB = 512
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>unimq</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = (
    "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
)


def cache_dir() -> Path:
    return Path(os.environ.get("UNIMQ_CACHE") or Path.home() / ".cache" / "unimq")


def java(directory: Path) -> list[str]:
    """`java` with a small heap and no file outside the broker's own directory."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    return [
        "java",
        "-Xms64m",
        f"-Xmx{HEAP_MB}m",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={temporary}",
    ]


def reason_without_java() -> str | None:
    if shutil.which("java") is None:
        return "no java on the PATH"
    return None


def reason_without(name: str, coordinates: Sequence[str]) -> str | None:
    """Why these cannot be had: they are not in the cache and there is no Maven to fetch them."""
    if reason := reason_without_java():
        return reason
    if not (cache_dir() / entry(name, coordinates)).exists() and shutil.which("mvn") is None:
        return f"{name} is not in {cache_dir()} and no mvn is on the PATH to fetch it"
    return None


def entry(name: str, coordinates: Sequence[str]) -> str:
    """The name in the cache: another list of coordinates is another entry, never a stale one."""
    return f"{name}-{hashlib.sha256(' '.join(coordinates).encode()).hexdigest()[:8]}"


def jars(name: str, coordinates: Sequence[str]) -> Path:
    """The directory with the jars of ``group:artifact:version`` coordinates and of all they depend on."""

    def fetch(work: Path) -> Path:
        dependencies = "\n".join(_DEPENDENCY.format(*map(escape, c.split(":"))) for c in coordinates)
        (work / "pom.xml").write_text(_POM.format(name=escape(name), dependencies=dependencies))
        _mvn(work, f"{_PLUGIN}:copy-dependencies", "-DoutputDirectory=libs")
        return work / "libs"

    return _cached(entry(name, coordinates), fetch)


def unpacked(name: str, artifact: str) -> Path:
    """The one directory inside a ``group:artifact:version:tar.gz:classifier`` distribution."""

    def fetch(work: Path) -> Path:
        _mvn(work, f"{_PLUGIN}:copy", f"-Dartifact={artifact}", "-DoutputDirectory=dist")
        (archive,) = (work / "dist").iterdir()
        with tarfile.open(archive) as tar:
            tar.extractall(work / "unpacked", filter="tar")
        (root,) = (work / "unpacked").iterdir()
        return root

    return _cached(entry(name, [artifact]), fetch)


def _cached(name: str, fetch: Callable[[Path], Path]) -> Path:
    target = cache_dir() / name
    if target.is_dir():
        return target
    cache_dir().mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir() / f".{name}.lock"):
        if not target.is_dir():
            # Inside the cache: a rename is atomic only on one file system.
            with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=f".{name}.") as work:
                fetch(Path(work)).rename(target)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mvn(work: Path, *args: str) -> None:
    command = ["mvn", "-q", "-B", *args]
    try:
        done = subprocess.run(
            command,
            cwd=work,
            timeout=DOWNLOAD_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerFailed(f"{' '.join(command)} took more than {DOWNLOAD_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise BrokerFailed(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
