"""From a scheme to its adapter, by the entry points `unimq.adapters` (name = scheme), lazily.

Rules
- Nothing is imported until its scheme is asked for; an adapter imports its client library only to connect.
- `register` adds one by hand, for adapters that are not installed (tests, notebooks).
"""

from __future__ import annotations

import threading
from typing import Any, Final

from .driver import Adapter
from .errors import AdapterMissing

GROUP: Final = "unimq.adapters"
_by_hand: dict[str, Adapter] = {}
_loaded: dict[str, Adapter] = {}
_lock = threading.Lock()


def entry_points(**which: str) -> Any:
    """importlib's, imported at first use: it brings `email`, `zipfile` and more with it."""
    from importlib.metadata import entry_points as found

    return found(**which)


def register(adapter: Adapter) -> None:
    """Use `adapter` for its schemes from now on, before any installed one."""
    with _lock:
        for scheme in adapter.schemes:
            _by_hand[scheme] = adapter


def unregister(adapter: Adapter) -> None:
    with _lock:
        for scheme in [scheme for scheme, known in _by_hand.items() if known is adapter]:
            del _by_hand[scheme]


def schemes() -> list[str]:
    """All schemes there is an adapter for, sorted."""
    return sorted({*_by_hand, *(point.name for point in entry_points(group=GROUP))})


def loaded() -> list[Adapter]:
    """The adapters in use so far, each once."""
    return list({id(adapter): adapter for adapter in (*_by_hand.values(), *_loaded.values())}.values())


def find(scheme: str) -> Adapter:
    """The adapter for `scheme`. Raises `AdapterMissing`, with the schemes there are."""
    known = _by_hand.get(scheme) or _loaded.get(scheme)
    if known is not None:
        return known
    for point in entry_points(group=GROUP, name=scheme):
        try:
            adapter: Adapter = point.load()
        except ImportError as error:
            raise AdapterMissing(
                f"the adapter for {scheme}:// cannot be loaded: {error}", cause=error
            ) from error
        with _lock:
            _loaded[scheme] = adapter
        return adapter
    raise AdapterMissing(f"no adapter for {scheme}://; there is one for: {', '.join(schemes()) or 'none'}")


def missing_extra(adapter: Adapter, error: ImportError) -> AdapterMissing:
    """What to say when an adapter's client library is not installed."""
    return AdapterMissing(
        f"{adapter.name} needs {error.name or 'its client library'}: pip install 'unimq[{adapter.extra}]'",
        adapter=adapter.name,
        cause=error,
    )
