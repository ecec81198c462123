"""What runners tell on its way to the database: kept until it is there, written in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

import anyio
from sqlalchemy.exc import DBAPIError

from roost.exceptions import RoostException
from roost.support.service import Wake

__all__ = ["Buffer"]

Item = TypeVar("Item")
Key = TypeVar("Key")


class Buffer(ABC, Generic[Item, Key]):
    """Items in the order they came, and the keys of those that the database has taken.

    Args:
        most: so many items make a batch.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pending: list[Item] = []
        self._wake = Wake()
        self._flushing = anyio.Lock()  # the last flush of all comes while another may be at it

    def put(self, items: Iterable[Item]) -> None:
        """Take items; they are stored soon."""
        self._pending += items
        self._wake.set()

    async def run(self) -> None:
        """Store what comes until cancelled."""
        while True:
            await self.flush()
            await self._wake.wait()

    async def flush(self) -> None:
        """Store everything that is pending."""
        async with self._flushing:
            while self._pending:
                batch = self._next_batch()
                await self._prepare(batch)
                stored = await self._store(batch)
                del self._pending[: len(batch)]
                await self._settle(batch, stored)

    def _next_batch(self) -> list[Item]:
        return self._pending[: self._most]

    async def _store(self, batch: list[Item]) -> set[Key]:
        """Store a batch by halves until who it is that the database refuses stands alone."""
        try:
            return await self._write(batch)
        except (DBAPIError, UnicodeDecodeError, RoostException) as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                return await self._store(batch[:middle]) | await self._store(batch[middle:])
            why = str(getattr(error, "orig", error)).partition("\n")[0]
        return await self._refused(batch[0], why)

    async def _prepare(self, batch: list[Item]) -> None:
        """Read what can be read of a batch only before it is stored."""

    @abstractmethod
    async def _write(self, batch: list[Item]) -> set[Key]:
        """Store a batch in one transaction, all of it or nothing; gives what is there now."""

    @abstractmethod
    async def _refused(self, item: Item, why: str) -> set[Key]:
        """See to an item that cannot be stored; gives what is there instead."""

    @abstractmethod
    async def _settle(self, batch: list[Item], stored: set[Key]) -> None:
        """A batch needs no more care: tell what became of it."""
