"""What the clients' rooms share: names, and a URL taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import urlsplit

Name: TypeAlias = Callable[[str], str]


def parts(url: str) -> tuple[str, str, str]:
    """User, password, host:port."""
    found = urlsplit(url)
    return found.username or "", found.password or "", f"{found.hostname}:{found.port}"
