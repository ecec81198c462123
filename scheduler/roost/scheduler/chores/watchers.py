"""Watchers: mends what two changes that missed each other have left of their triggers (D13)."""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from roost.models.engine import transact
from roost.models.queries import watchers

__all__ = ["INTERVAL_S", "sync_watchers"]

log = logging.getLogger("roost.scheduler")

INTERVAL_S = 60.0


def sync_watchers(engine: Engine) -> int:
    """Have the triggers that are asked for, and no other; gives how many came or went."""
    changed = transact(engine, watchers.sync)
    if changed:
        log.info("%d triggers of watchers were missing, or were left over", changed)
    return changed
