"""The triggerer's way to the database: one step, one transaction, in a thread, patiently."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Engine

from roost.models.engine import Tx, is_passing, read, single, transact
from roost.models.queries import jobs
from roost.support.service import Calm, Patience

__all__ = ["Database"]

T = TypeVar("T")


class Database:
    """Runs steps until the database has taken them.

    Attributes:
        calm: when leases of others may be judged.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._patience = Patience(is_passing)
        self.calm = Calm(self._patience, grace_s=jobs.LEASE_TTL_S, slow_s=jobs.LEASE_RENEW_S)

    def meet(self, tx: Tx) -> None:
        """Learn from the database what a newcomer has not seen: a start of its server."""
        self.calm.join(jobs.server_up_s(tx))

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
        with self.calm.step():
            return await self._patience.until_done(step)
