"""Whether a policy can be kept on a source, said at start. Pure but for asking the adapter's plan.

Rules
- A delay that somebody wrote and that has no place is refused at start. The default policy is for everybody: where delays
  have no place, or would change the order, it is immediate only.
"""

from __future__ import annotations

import dataclasses
import logging

from .._async.client import AsyncClient
from ..errors import Unsupported
from ..retry import Retry
from .handlers import Group

_log = logging.getLogger("unimq.worker")


def policy_for(group: Group, client: AsyncClient) -> Retry:
    """The policy the receiver opens with. Raises `Unsupported`."""
    retry, source = group.first.retry, group.source
    if not retry.delayed_s:
        return retry
    why: object = None
    if source.ordered:
        why = "it would change the order"
    elif not client.capabilities.retry_delay:
        why = f"{client.capabilities.found or 'this broker'} has no delays"
    else:
        plan = client._questions.plan(source, retry)
        for delay_s in retry.delayed_s:
            try:
                plan.retry(delay_s)
            except Unsupported as error:
                why = error
                break
    if why is None:
        return retry
    if retry == Retry():
        _log.info("%s: failed messages are tried in hand only: %s", source, why)
        return dataclasses.replace(retry, delayed_s=())
    raise Unsupported(
        f"{group.handlers[0].name}: no delayed retry on {source}: {why}; write Retry(delayed_s=[])"
    )
