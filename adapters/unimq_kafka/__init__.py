"""Apache Kafka behind the seam, on confluent-kafka. EXPERIMENTAL.

A thin but honest slice: what it has is real (confirmed sends, contiguous watermarks, retries by delayed copies, dead
letters, revoked partitions as events), what it lacks is declared absent: transactions, seek, request/reply, the crash
journal, filters verified at the broker, share groups, SSLContext objects (give files: `?ca= ?cert= ?key=`), Event Hubs.

Importable without its client library; that is imported by `connect`.
"""

from __future__ import annotations

from .adapter import KafkaAdapter

ADAPTER = KafkaAdapter()

__all__ = ["ADAPTER", "KafkaAdapter"]
