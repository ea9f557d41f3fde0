"""A broker inside the process, on the pure engine of the reference broker. Scheme `memory://NAME`; needs nothing.

All clients of one name share one broker, until the process ends or `reset()`. `broker(name)` is that broker: its
`.clock.advance(seconds)` moves time, its faults (`faults.py`) break lines.
"""

from __future__ import annotations

from .adapter import MemoryAdapter
from .broker import MemoryBroker

ADAPTER = MemoryAdapter()
broker = ADAPTER.broker
reset = ADAPTER.reset

__all__ = ["ADAPTER", "MemoryAdapter", "MemoryBroker", "broker", "reset"]
