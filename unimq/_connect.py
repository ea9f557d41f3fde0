"""`connect` and `connect_async`: the hand-written pair, since only one of them can be a coroutine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._sync.client import Client

if TYPE_CHECKING:
    from ._async.client import AsyncClient


def connect(url: str | None = None, **options: Any) -> Client:
    """A connected client for the broker at `url` (default: the variable UNIMQ_URL).

    Options: `tls` (SSLContext), `credential` (a callable giving Password or Token), `connect_timeout_s` (10), `native` (for the
    client library, validated by the adapter), `require` (capabilities that must be there), `allow_emulation` (True),
    `codecs`, `topology` ("create" | "verify" | "assume"), `middleware`, `health_after_s` (30: down for
    longer is bad health), `seed`.

    Raises `ConnectionFailed`, `AuthenticationFailed`, `AdapterMissing`, `Unsupported`, or `UnimqError` with the code
    `invalid-url`. In `with`, it is closed at the end.
    """
    return Client(url, **options)._connect()


def connect_async(url: str | None = None, **options: Any) -> AsyncClient:
    """As `connect`: `async with connect_async(url) as mq`, or `mq = await connect_async(url)`."""
    from ._async.client import AsyncClient  # asyncio is not for those who do not ask for it

    return AsyncClient(url, **options)
