"""SqlTrigger: waits until a query gives what is wanted (poll lane)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from roost.dag.trigger import TriggerEvent
from roost.exceptions import RoostException, ValueNotStorable
from roost.support import typedjson
from roost.triggers.judging import checked_values, judge
from roost.triggers.pooled import PooledTrigger, events_of

__all__ = ["NO_ROW", "SqlTrigger"]

NO_ROW: Final = "the query gave no row, and fail_on_empty is set"


class SqlTrigger(PooledTrigger):
    """Fires when the first cell of a query's first row is there and neither NULL, 0, false nor
    empty, with ``{"found": cell, "judgement": "success" or "failed"}`` as payload.

    All queries of a runner to one connection are asked in one thread, over one connection to the
    database that is kept open; the same query is asked once for all that wait for it. Each is a
    transaction of its own.

    Args:
        conn_id: the connection.
        sql: the query; it is asked again and again.
        parameters: in the style of the driver, as of SqlHook.run.
        success_values: cells to wait for, instead of that rule.
        failure_values: cells to give up at.
        any_row: fire as soon as there is a row, whatever is in it.
        fail_on_empty: fail when there is no row.
        poll_interval: seconds between two looks.
        max_poll_interval: up to which the interval grows while nothing happens.

    Raises:
        RoostException: an argument is wrong.
    """

    poll_timeout = 60.0

    def __init__(
        self,
        conn_id: str,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        success_values: Sequence[Any] | None = None,
        failure_values: Sequence[Any] = (),
        any_row: bool = False,
        fail_on_empty: bool = False,
        poll_interval: float = 60.0,
        max_poll_interval: float | None = None,
    ) -> None:
        if not isinstance(sql, str) or not sql.strip():
            raise RoostException(f"SqlTrigger needs a query, not {sql!r}")
        if poll_interval <= 0:
            raise RoostException(f"poll_interval must be more than 0 s, not {poll_interval!r}")
        if any_row and (success_values is not None or fail_on_empty):
            raise RoostException("any_row goes with neither success_values nor fail_on_empty")
        self.conn_id = conn_id
        self.sql = sql
        self.parameters = dict(parameters) if isinstance(parameters, Mapping) else parameters
        self.success_values = (
            None if success_values is None else checked_values("success_values", success_values)
        )
        self.failure_values = checked_values("failure_values", failure_values)
        self.any_row = any_row
        self.fail_on_empty = fail_on_empty
        self.poll_interval = float(poll_interval)
        self.max_poll_interval = max_poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.SqlTrigger",
            {
                "conn_id": self.conn_id,
                "sql": self.sql,
                "parameters": self.parameters,
                "success_values": self.success_values,
                "failure_values": self.failure_values,
                "any_row": self.any_row,
                "fail_on_empty": self.fail_on_empty,
                "poll_interval": self.poll_interval,
                "max_poll_interval": self.max_poll_interval,
            },
        )

    def poll_key(self) -> str:
        """All of it: what differs in its judgement only is asked once all the same."""
        return typedjson.encode(self.serialize()[1]).decode()

    def poll_group(self) -> str:
        """The connection."""
        return self.conn_id

    @classmethod
    async def poll_many(
        cls, triggers: Mapping[str, Self]
    ) -> Mapping[str, TriggerEvent | BaseException]:
        """Ask each different query once."""
        from roost.triggers.sql_desk import Question, ask_all  # sensors make this in many processes

        of = {key: trigger._question() for key, trigger in triggers.items()}
        questions = {of[key]: Question(one.sql, one.parameters) for key, one in triggers.items()}
        first = next(iter(triggers.values()))
        answers = await ask_all(first.conn_id, questions)
        return events_of(triggers, of, answers, cls.event_of)

    def event_of(self, row: tuple[Any, ...] | None) -> TriggerEvent | BaseException | None:
        """What the first row means; None: not yet."""
        if row is None:
            return RoostException(NO_ROW) if self.fail_on_empty else None
        cell = _storable(row[0])
        success_values = self.success_values
        if self.any_row:
            success_values = [cell]
        judgement = judge(cell, success_values, self.failure_values)
        if judgement is None:
            return None
        return TriggerEvent({"found": cell, "judgement": judgement})

    def _question(self) -> str:
        return typedjson.encode([self.sql, self.parameters]).decode()

    def __repr__(self) -> str:
        return f"<SqlTrigger {' '.join(self.sql[:60].split())} on {self.conn_id}>"


def _storable(cell: Any) -> Any:
    """The cell, or its text where a driver has a type of its own."""
    try:
        typedjson.encode(cell)
    except ValueNotStorable:
        return str(cell)
    return cell
