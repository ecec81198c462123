"""Events of assets: those that nobody needs any more go after a stated time (H16)."""

from __future__ import annotations

import logging
from functools import partial

from sqlalchemy import Engine

from roost.models.engine import transact
from roost.models.queries import asset_ageing

__all__ = ["INTERVAL_S", "prune_asset_events"]

log = logging.getLogger("roost.scheduler")

INTERVAL_S = 600.0
_BATCH = 1_000


def prune_asset_events(engine: Engine, keep_us: int, batch: int = _BATCH) -> int:
    """Delete events of assets, a batch at a time; gives how many went.

    Args:
        engine: the database.
        keep_us: how long they are kept; 0: for ever.
        batch: events that one transaction looks at.
    """
    total = 0
    after: int | None = 0 if keep_us else None
    while after is not None:
        step = partial(asset_ageing.age, keep_us=keep_us, after=after, batch=batch)
        gone, after = transact(engine, step)
        total += gone
    if total:
        log.info("deleted %d events of assets that nobody needs any more", total)
    return total
