"""Look at the statements that a transaction sends, or stop it at one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from roost.models.sql import Sql, Tx

__all__ = ["watching"]


@contextmanager
def watching(before: Callable[[str, dict[str, Any]], None]) -> Iterator[None]:
    """Call ``before(text, parameters)`` for every named statement that is about to be sent."""
    send = Tx._execute

    def execute(self: Tx, sql: Sql, params: dict[str, Any]) -> Any:
        before(sql.text(self.dialect), params)
        return send(self, sql, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tx, "_execute", execute)
        yield
