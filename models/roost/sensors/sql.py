"""SqlSensor: wait until a query gives what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from roost.exceptions import RoostException, ValueNotStorable
from roost.hooks.sql import SqlHook
from roost.sensors.base import BaseSensorOperator
from roost.support import typedjson
from roost.triggers.judging import judge, told
from roost.triggers.sql import NO_ROW, SqlTrigger

__all__ = ["SqlSensor"]

_FIRST = itemgetter(0)


class SqlSensor(BaseSensorOperator):
    """Wait until the first cell of a query's first row is there and neither 0, empty nor NULL.

    Deferrable, it leaves the asking to a trigger, where equal queries of many tasks are one. With
    ``success``, ``failure``, ``selector``, ``silent_fail`` or ``never_fail`` it waits in the timer
    lane instead and asks in a task process: a trigger calls no function of the DAG file.

    Args:
        conn_id: the connection.
        sql: the query, templated; the name of a ``.sql`` file stands for its rendered text.
        parameters: for the query, templated, in the style of the driver.
        success: called with the cell instead of that rule; whether it is so.
        failure: called with the cell first; true fails the sensor.
        selector: gives the cell of a row; default: the first.
        fail_on_empty: fail when there is no row.
        success_values: cells to wait for, instead of that rule.
        failure_values: cells that fail the sensor at once.
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
        selector: Callable[[tuple[Any, ...]], Any] = _FIRST,
        fail_on_empty: bool = False,
        success_values: Sequence[Any] | None = None,
        failure_values: Sequence[Any] = (),
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
        self.success_values = success_values
        self.failure_values = failure_values

    def poke(self, context: dict[str, Any]) -> bool:
        """Ask once."""
        row = SqlHook(self.conn_id).get_first(self.sql, self.parameters)
        if row is None:
            if self.fail_on_empty:
                raise RoostException(NO_ROW)
            return False
        cell = self.selector(row)
        if self.failure is not None and self.failure(cell):
            raise RoostException(f"the query gave {cell!r}, which failure() takes for one")
        if self.success is not None:
            return bool(self.success(cell))
        judgement = judge(cell, self.success_values, self.failure_values)
        if judgement is not None:
            told(judgement, cell, "the query")
        return judgement is not None

    def make_trigger(self, context: dict[str, Any]) -> SqlTrigger | None:
        """Asks every ``poke_interval``; None where only a process can judge."""
        functions = self.success or self.failure or self.selector is not _FIRST
        if functions or self.silent_fail or self.never_fail:
            return None
        try:
            typedjson.encode(self.parameters)
        except ValueNotStorable:  # a trigger could not be given them
            return None
        return SqlTrigger(
            self.conn_id,
            self.sql,
            self.parameters,
            success_values=self.success_values,
            failure_values=self.failure_values,
            fail_on_empty=self.fail_on_empty,
            poll_interval=self.poke_interval.total_seconds(),
            max_poll_interval=self.longest_interval(),
        )

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> None:
        """Judge what was found."""
        self.log.info("the query gave %r", event["found"])
        told(event["judgement"], event["found"], "the query")
