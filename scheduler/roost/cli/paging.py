"""Listings of any length: ``--limit``, read a page at a time, and a last line for what is left.

No transaction is open while rows are printed, so whoever reads them slowly holds nothing up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click
from sqlalchemy import Engine

from roost.models.engine import Tx, read

__all__ = ["Pages", "limit_option"]

F = TypeVar("F", bound=Callable[..., Any])
_PAGE = 1000


def limit_option(command: F) -> F:
    """Add ``--limit`` to a listing, as its argument ``limit``; 0 is all."""
    return click.option(
        "--limit",
        type=click.IntRange(0),
        default=1000,
        show_default=True,
        help="At most so many; 0: all.",
    )(command)


class Pages:
    """The rows of a listing, in the order of their ids, which are their first columns.

    Args:
        engine: the database.
        page: gives at most so many rows behind a row's id; None: from the first on.
        limit: rows in all; 0: all there are.
    """

    def __init__(
        self, engine: Engine, page: Callable[[Tx, int | None, int], Sequence[Any]], limit: int
    ) -> None:
        self._engine = engine
        self._page = page
        self._left = limit or sys.maxsize
        self._last: int | None = None
        self._full = False

    def __iter__(self) -> Iterator[Any]:
        while self._left:
            most = min(self._left, _PAGE)
            with read(self._engine) as tx:
                rows = self._page(tx, self._last, most)
            if rows:
                self._last = rows[-1][0]
            self._full = len(rows) == most
            self._left = self._left - most if self._full else 0
            yield from rows

    def tell_rest(self, count: Callable[[Tx, int | None], int], choose: str) -> None:
        """Say on stderr how many rows the limit has cut off, and how to see them.

        Args:
            count: how many rows there are behind a row's id.
            choose: the options that narrow the listing.
        """
        if not self._full:
            return
        with read(self._engine) as tx:
            rest = count(tx, self._last)
        if rest:
            click.echo(f"{rest:,} more: `--limit 0` lists all, {choose} narrow it down", err=True)
