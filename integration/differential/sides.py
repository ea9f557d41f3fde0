"""Where the two brokers come from.

Rules
- The real one: `--real URL`, or UNIMQ_DIFFERENTIAL_URL, or one that `integration.sources` finds or starts.
- Ours: in this process, so that a seeded bug can be put into it; or `--ours URL` for one that runs elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

ENVIRONMENT = "UNIMQ_DIFFERENTIAL_URL"


@contextlib.contextmanager
def real(url: str | None) -> Iterator[str]:
    given = url or os.environ.get(ENVIRONMENT)
    if given:
        yield given
        return
    from integration import sources

    broker = sources.obtain("rabbitmq")
    try:
        yield broker.url
    finally:
        broker.stop()


@contextlib.contextmanager
def ours(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    from unimq import broker

    with broker.run(amqp=0) as running:
        yield running.urls["amqp"]
