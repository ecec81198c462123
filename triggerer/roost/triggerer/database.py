"""The triggerer's way to the database: one step, one transaction, in a thread, patiently."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Engine

from roost.models.engine import Tx, is_passing, read, single, transact
from roost.models.queries import jobs
from roost.support.service import Patience, outage_before

__all__ = ["Database"]

T = TypeVar("T")
_SLOW_S = float(jobs.LEASE_RENEW_S)


class Database:
    """Runs steps until the database has taken them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._patience = Patience(is_passing)
        self._begun: dict[object, float] = {}
        self._slow_at = outage_before(float("inf"), jobs.LEASE_TTL_S)

    @property
    def failed_at(self) -> float:
        """Monotonic moment at which the database was last out of reach.

        Or at which a step took so long that the renewals of others may have waited as well: for
        SQLite's one writer, say. May be asked in a step.
        """
        now = time.monotonic()
        if any(now - began > _SLOW_S for began in list(self._begun.values())):
            return now
        return max(self._patience.failed_at, self._slow_at)

    def meet(self, tx: Tx) -> None:
        """Learn from the database what a newcomer has not seen: a start of its server."""
        self._slow_at = max(self._slow_at, outage_before(jobs.server_up_s(tx), jobs.LEASE_TTL_S))

    async def reading(self, step: Callable[[Tx], T]) -> T:
        """Run a step that only reads, again while the database is away; it waits for no writer."""
        return await self._do(partial(self._read, step))

    def _read(self, step: Callable[[Tx], T]) -> T:
        with read(self._engine) as tx:
            return step(tx)

    async def single(self, step: Callable[[Tx], T]) -> T:
        """Run a step of one writing statement, again while the database is away."""
        return await self._do(partial(single, self._engine, step))

    async def until_done(self, step: Callable[[Tx], T]) -> T:
        """Run a step in a transaction, again while the database is away.

        The step must be safe to repeat: the answer to a commit may have been lost.
        """
        return await self._do(partial(transact, self._engine, step))

    async def _do(self, step: Callable[[], T]) -> T:
        key, began = object(), time.monotonic()
        self._begun[key] = began
        try:
            return await self._patience.until_done(step)
        finally:
            del self._begun[key]
            if (now := time.monotonic()) - began > _SLOW_S:
                self._slow_at = now
