"""SqlSensor: wait until a query gives what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from roost.exceptions import RoostException
from roost.hooks.sql import SqlHook
from roost.sensors.base import BaseSensorOperator

__all__ = ["SqlSensor"]


class SqlSensor(BaseSensorOperator):
    """Wait until the first cell of a query's first row is there and neither 0, empty nor NULL.

    Deferrable, it waits in the timer lane and asks in a task process: a trigger could not be
    given the connection's password.

    Args:
        conn_id: the connection.
        sql: the query, templated; the name of a ``.sql`` file stands for its rendered text.
        parameters: for the query, templated, in the style of the driver.
        success: called with the cell instead of that rule; whether it is so.
        failure: called with the cell first; true fails the sensor.
        selector: gives the cell of a row; default: the first.
        fail_on_empty: fail when there is no row.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("sql", "parameters")
    template_ext = (".sql",)
    has_trigger = True

    def __init__(
        self,
        *,
        conn_id: str,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        success: Callable[[Any], Any] | None = None,
        failure: Callable[[Any], Any] | None = None,
        selector: Callable[[tuple[Any, ...]], Any] = itemgetter(0),
        fail_on_empty: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.sql = sql
        self.parameters = parameters
        self.success = success
        self.failure = failure
        self.selector = selector
        self.fail_on_empty = fail_on_empty

    def poke(self, context: dict[str, Any]) -> bool:
        """Ask once."""
        row = SqlHook(self.conn_id).get_first(self.sql, self.parameters)
        if row is None:
            if self.fail_on_empty:
                raise RoostException("the query gave no row, and fail_on_empty is set")
            return False
        cell = self.selector(row)
        if self.failure is not None and self.failure(cell):
            raise RoostException(f"the query gave {cell!r}, which failure() takes for one")
        if self.success is not None:
            return bool(self.success(cell))
        return cell not in (None, 0, "0", "")
