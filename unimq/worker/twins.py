"""A second face of one client: the async one of a sync client, or the other way round, over the same connection.

Rules
- What decides and what holds the connection is shared; senders and receivers are each face's own.
- A twin never closes the connection: `close_async` and `close_sync` end only what was opened through the twin.
"""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from typing import Any

from .._async import _wait as async_wait
from .._async import client as async_client
from .._async.client import AsyncClient
from .._sync import client as sync_client
from .._sync.client import Client
from .._sync.receiver import Receiver
from .._sync.sender import Sender
from ..errors import UnimqError


def async_twin(client: Client) -> AsyncClient:
    """On the loop it will belong to."""
    client._check()
    twin = AsyncClient.__new__(AsyncClient)
    _share(client, twin, async_wait.home())
    async_client._clients.add(twin)
    return twin


def sync_twin(client: AsyncClient) -> Client:
    twin = Client.__new__(Client)
    _share(client, twin, None)
    sync_client._clients.add(twin)
    return twin


def _share(client: Any, twin: Any, home: object) -> None:
    twin.__dict__.update(client.__dict__)
    twin._lines = OrderedDict()
    twin._senders = weakref.WeakSet()
    twin._receivers = {}
    twin._home = home


async def close_async(twin: AsyncClient, timeout_s: float) -> list[UnimqError]:
    """Flush and close the twin's senders (its receivers are closed by who opened them)."""
    deadline = time.monotonic() + timeout_s
    problems: list[UnimqError] = []
    for sender in twin._all_senders():
        try:
            await sender.close(max(deadline - time.monotonic(), 0.1))
        except UnimqError as error:
            problems.append(error)
    return problems


def close_sync(twin: Client, timeout_s: float) -> list[UnimqError]:
    """The same; blocks."""
    deadline = time.monotonic() + timeout_s
    problems: list[UnimqError] = []
    links: list[Sender | Receiver] = [*twin._all_senders(), *twin._receivers]
    for link in links:
        try:
            link.close(max(deadline - time.monotonic(), 0.1))
        except UnimqError as error:
            problems.append(error)
    return problems
