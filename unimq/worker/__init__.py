"""Handlers, retries, dead letters. `Worker` is the one name to start from.

The map: `worker` is what users see; `handlers` and `signature` check what was registered; `shift` is one run; `lane` is one
source, `tap` how much comes from it, `guard` its crash limit, `spared` what a lost line is not charged for, `alone` and
`unhandled` what becomes of suspects and of what no handler takes; `crew` the threads or tasks of one handler, `post` one
message at work; `stopping` is the state table; `probe` and `processes` are what their names say.
"""

from .outcomes import Outcome, Verb
from .signature import BadHandler
from .worker import Worker

__all__ = ["BadHandler", "Outcome", "Verb", "Worker"]
