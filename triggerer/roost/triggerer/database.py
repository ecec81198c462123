"""The triggerer's way to the database: synchronous steps, run in threads, patient with outages."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio.to_thread
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from roost.models.engine import Tx, is_disconnect, is_transient, transact

__all__ = ["Database"]

log = logging.getLogger(__name__)

T = TypeVar("T")
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 30.0


class Database:
    """Runs steps, one transaction each, until the database has taken them.

    Attributes:
        failed_at: monotonic moment of the last failure to reach the database; the leases of
            others are not judged until they have had time to be renewed after it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.failed_at = float("-inf")

    async def once(self, step: Callable[[Tx], T]) -> T:
        """One attempt, in a thread. A cancelled caller leaves; the step ends by itself, whole."""
        return await anyio.to_thread.run_sync(
            partial(transact, self._engine, step), abandon_on_cancel=True
        )

    async def until_done(self, step: Callable[[Tx], T]) -> T:
        """Run a step again and again while the database is away, with growing, jittered waits.

        The step must be safe to repeat: the answer to a commit may have been lost.
        """
        wait = _FIRST_WAIT_S
        while True:
            try:
                return await self.once(step)
            except (DBAPIError, PoolTimeout) as error:
                if not is_passing(error):
                    raise
                self.failed_at = time.monotonic()
                log.warning("the database cannot be reached, trying again: %s", _line(error))
            await anyio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads load
            wait = min(wait * 2, _LONGEST_WAIT_S)


def is_passing(error: Exception) -> bool:
    """True when the same step may succeed later without anybody's help but the database's."""
    if isinstance(error, PoolTimeout) or is_disconnect(error):
        return True
    return isinstance(error, DBAPIError) and is_transient(error)


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
