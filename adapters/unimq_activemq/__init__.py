"""ActiveMQ (Classic and Artemis) over STOMP 1.2 with stomp.py. **Experimental**: a thin slice that later grows.

Carried: confirmed sends, delayed sends, receive with acks, release, delayed retry and dead letters by copy, on both
brokers. Not yet: transactions, filters, request/reply, statistics, purge; their capabilities are absent, not guessed.
Importing this package imports no client library.
"""

from .adapter import ActiveMQAdapter

ADAPTER = ActiveMQAdapter()

__all__ = ["ADAPTER", "ActiveMQAdapter"]
