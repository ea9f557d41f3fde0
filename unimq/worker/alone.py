"""Before a suspect runs alone: what was settled must be the broker's, and nothing may be on its way to us.

Rules
- A process that dies takes back everything unsettled that it holds, and the broker counts it: an acknowledgement that was
  written and not heard, and a delivery that nobody has looked at yet, would make innocents pay for the suspect.
- So: wait until the broker has every verb so far (`CLEAR_S` at most: a copy that cannot be written must not stop all), then
  look once more for what left the broker before it heard of the narrow prefetch.
"""

from __future__ import annotations

from typing import Final

from .._async import _wait as wait
from .._async.receiver import AsyncReceiver
from .._settlement import Desk
from ..delivery import Delivery

CLEAR_S: Final = 10.0


async def cleared(receiver: AsyncReceiver, desk: Desk, prefetch: int) -> list[Delivery]:
    """What still came; when it is empty, the suspect may begin."""
    await wait.latch(desk.flush(), CLEAR_S)
    intake = receiver._intake
    link = intake.link
    if link is None:
        return []
    try:
        intake.arrived(link, link.receive(prefetch, 0))
    except Exception:  # a dead link raises its library's errors; its loss is on its way to the supervisor
        return []
    return intake.take(prefetch)
