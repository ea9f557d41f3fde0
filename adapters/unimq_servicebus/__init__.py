"""Azure Service Bus for unimq, **experimental**: a thin slice behind the full seam.

Rules
- Importable without `azure-servicebus`; the client library is imported when a connection is made.
- The library's *sync* client, each of its links on one owner thread; see `lane.py` and `sender.py`.
- Not yet here: filters, request and reply, unnamed subscriptions, declaring on the emulator.
"""

from .adapter import ServiceBusAdapter

__all__ = ["ADAPTER", "ServiceBusAdapter"]

ADAPTER = ServiceBusAdapter()
