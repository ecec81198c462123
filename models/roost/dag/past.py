"""Context keys that tell of earlier runs; they are looked up when they are asked for, and once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from roost.dag import runtime
from roost.support.clock import from_us, to_us
from roost.support.task_requests import PreviousRun, RunRecord

if TYPE_CHECKING:
    from roost.dag.definition import DAG

__all__ = ["PAST_KEYS", "Context", "past_of"]


class Context(dict[str, Any]):
    """The context of a task. Keys of :data:`PAST_KEYS` need not be stored to be found."""

    previous: list[RunRecord] | None = None

    def __missing__(self, key: str) -> Any:
        find = _FINDERS.get(key)
        if find is None:
            raise KeyError(key)
        self[key] = value = find(self)
        return value

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key in PAST_KEYS and "dag_run" in self)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        try:
            return self[key]
        except KeyError:
            return default

    def for_text(self, text: str) -> dict[str, Any]:
        """The context with those of its past keys that ``text`` names."""
        if "prev_" not in text:
            return self
        return {**self, **{name: self[name] for name in PAST_KEYS if name in text}}


def past_of(function: object, context: dict[str, Any]) -> dict[str, Any]:
    """The past keys that a function with ``**kwargs`` names in its code."""
    if type(function) is not FunctionType:
        return {}
    named = {item for item in function.__code__.co_consts if isinstance(item, str)}
    return {name: context[name] for name in PAST_KEYS & named if name in context}


def _of_success(name: str) -> Callable[[Context], datetime | None]:
    """A moment of the last successful run before this one."""

    def find(context: Context) -> datetime | None:
        runs = context.previous
        if runs is None:
            runs = context.previous = runtime.ask(PreviousRun(), "the previous run").runs
        us = getattr(runs[0], name) if runs else None
        return None if us is None else from_us(us)

    return find


def _previous_date(context: Context) -> datetime | None:
    """The logical date before this one by the schedule; a manual run's own."""
    # Imported late: only who asks pays for cron.
    from roost.dag.timetable import infer_manual_interval, parse_schedule
    from roost.dag.zone import dag_timezone

    run = context["dag_run"]
    date: datetime | None = run.logical_date
    if date is None or run.external_trigger:
        return date
    dag: DAG = context["dag"]
    timetable = parse_schedule(dag.schedule, dag_timezone(dag))
    return from_us(infer_manual_interval(timetable, to_us(date)).start)


def _previous_ds(context: Context) -> str | None:
    date = context["prev_execution_date"]
    return None if date is None else date.isoformat()[:10]


def _previous_ds_nodash(context: Context) -> str | None:
    ds = _previous_ds(context)
    return None if ds is None else ds.replace("-", "")


_FINDERS: Final[dict[str, Callable[[Context], Any]]] = {
    "prev_data_interval_start_success": _of_success("interval_start"),
    "prev_data_interval_end_success": _of_success("interval_end"),
    "prev_start_date_success": _of_success("start_date"),
    "prev_end_date_success": _of_success("end_date"),
    "prev_execution_date_success": _of_success("logical_date"),
    "prev_execution_date": _previous_date,
    "prev_ds": _previous_ds,
    "prev_ds_nodash": _previous_ds_nodash,
}
PAST_KEYS: Final = frozenset(_FINDERS)
