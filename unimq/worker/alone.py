"""Before a suspect runs alone: what was settled must be the broker's, and nothing may be on its way to us.

Rules
- A process that dies takes back everything unsettled that it holds, and the broker counts it: an acknowledgement that was
  written and not heard, and a delivery that nobody has looked at yet, would make innocents pay for the suspect.
- So: wait until the broker has every verb so far (`CLEAR_S` at most: a copy that cannot be written must not stop all), then
  look once more for what left the broker before it heard that no more is wanted.
- Where the link keeps a journal, innocents pay for nothing: there its try is noted first, and no handler begins before that.
"""

from __future__ import annotations

from typing import Final

from .._async import _wait as wait
from .._async.receiver import AsyncReceiver
from .._latch import Latch
from .._settlement import Desk
from ..delivery import Delivery
from ..driver import CrashJournal, SettleResult

CLEAR_S: Final = 10.0
NOTE_S: Final = 30.0


async def noted(journal: CrashJournal, delivery: Delivery) -> bool:
    """Whether its try is written down: not if it is somebody else's by now, or the broker does not answer for `NOTE_S`."""
    landed = Latch()
    lost: list[Delivery] = []

    def done(result: SettleResult) -> None:
        lost.extend(result.lost)
        landed.set()

    journal.note([delivery], done)
    return await wait.latch(landed, NOTE_S) and not lost


async def cleared(
    receiver: AsyncReceiver, desk: Desk, prefetch: int, still: Latch | None = None
) -> list[Delivery]:
    """What still came; when it is empty, the suspect may begin. `still`: set when nothing more is on its way."""
    if still is not None:
        await wait.latch(still, CLEAR_S)
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
