"""On what was measured: a line without which no figure means anything.

Rules
- Versions are asked from the installed distributions and from the broker itself, never written down.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any


def version(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def about(broker: str, distributions: Sequence[str]) -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "broker": broker,
        "libraries": {name: found for name in distributions if (found := version(name)) is not None},
    }


def line(found: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
    load = "" if found["load_1_min"] is None else f" (load {found['load_1_min']} at the start)"
    return (
        f"{found['cores']} cores{load}, {found['system']}, {found['python']}, {libraries}, {found['broker']}"
    )
