"""External events: those whose time is over are deleted, waited for or not.

What was sent with a token leaves an empty row behind until that token has expired, so that it
cannot be used again.
"""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from roost.models.engine import transact
from roost.models.queries import external

__all__ = ["INTERVAL_S", "prune_events"]

log = logging.getLogger("roost.scheduler")

INTERVAL_S = 60.0
_BATCH = 1_000


def prune_events(engine: Engine, batch: int = _BATCH) -> int:
    """Delete every event that has expired, a batch at a time; gives how many there were."""
    total = 0
    while True:
        pruned = transact(engine, lambda tx: external.prune(tx, batch))
        total += pruned
        if pruned < batch:
            break
    if total:
        log.info("deleted %d events from outside whose time is over", total)
    return total
