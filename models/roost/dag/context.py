"""The context: what templates and Python functions see of the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from roost.dag import macros
from roost.dag.asset import OutletEvents, TriggeringEvents
from roost.dag.callback_url import callback_url
from roost.dag.connection import Connection
from roost.dag.param import run_params
from roost.dag.past import PAST_KEYS, Context
from roost.dag.ti import DagRun, TaskInstance
from roost.dag.variable import Variable
from roost.exceptions import NotFound
from roost.support import typedjson
from roost.support.clock import from_us
from roost.support.wire import TaskSpec

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["CONTEXT_KEYS", "build_context", "date_formats"]

# Every key a context can hold; a @task function may leave parameters of these names to it.
CONTEXT_KEYS: Final = PAST_KEYS | frozenset(
    {
        "callback_url",
        "conf",
        "conn",
        "dag",
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "dispatch_id",
        "ds",
        "ds_nodash",
        "execution_date",
        "inlets",
        "logical_date",
        "macros",
        "next_ds",
        "next_ds_nodash",
        "next_execution_date",
        "outlet_events",
        "outlets",
        "params",
        "run_id",
        "task",
        "task_instance",
        "task_instance_key_str",
        "templates_dict",
        "ti",
        "tomorrow_ds",
        "tomorrow_ds_nodash",
        "triggering_asset_events",
        "try_number",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "var",
        "yesterday_ds",
        "yesterday_ds_nodash",
    }
)


_NO_OUTLETS = OutletEvents(())
_ONE_DAY = timedelta(days=1)


class _Lookup:
    """``var.value.key``, ``var.json.key``, ``conn.conn_id``: an attribute is a look-up (S63).

    ``get(key, default)`` answers with the default when there is none.
    """

    def __init__(self, find: Callable[[str], Any], missing: type[Exception]) -> None:
        self._find = find
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # What the interpreter and jinja2 probe for is no key.
            raise AttributeError(name)
        return self._find(name)

    def __getitem__(self, name: str) -> Any:
        return self._find(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of ``name`` or ``default``."""
        try:
            return self._find(name)
        except self._missing:
            return default


def build_context(task: BaseOperator, spec: TaskSpec) -> dict[str, Any]:
    """The context of ``task`` for one dispatch. Variables and connections are read when used.

    Keys that need a logical date are absent in a run that has none.
    """
    conf: Any = typedjson.decode(spec.conf)
    start = _moment(spec.interval_start)
    end = _moment(spec.interval_end)
    dag_run = DagRun(
        dag_id=spec.dag_id,
        run_id=spec.run_id,
        run_type=spec.run_type,
        logical_date=_moment(spec.logical_date),
        data_interval_start=start,
        data_interval_end=end,
        queued_us=spec.run_queued_at,
        start_us=spec.run_start_date,
        conf=conf or {},
    )
    ti = TaskInstance(task, spec, dag_run)
    context = Context(
        {
            "callback_url": callback_url,
            "conf": dag_run.conf,
            "conn": _Lookup(Connection.get, NotFound),
            "dag": task.dag,
            "dag_run": dag_run,
            "data_interval_end": end,
            "data_interval_start": start,
            "dispatch_id": spec.dispatch_id,
            "inlets": task.inlets,
            "macros": macros,
            "outlet_events": OutletEvents(task.outlets) if task.outlets else _NO_OUTLETS,
            "outlets": task.outlets,
            "params": run_params(task, dag_run.conf),
            "run_id": spec.run_id,
            "task": task,
            "task_instance": ti,
            "task_instance_key_str": f"{spec.dag_id}__{spec.task_id}__{spec.run_id}",
            "ti": ti,
            "triggering_asset_events": TriggeringEvents(),
            "try_number": spec.try_number,
            "var": _Variables,
        }
    )
    if dag_run.logical_date is not None:
        # A manual run stands outside the schedule: the date before and after it is its own.
        then = dag_run.logical_date if dag_run.external_trigger else end
        context.update(_dates(dag_run.logical_date, then))
    return context


class _Variables:
    """``var`` in templates."""

    value = _Lookup(Variable.get, KeyError)
    json = _Lookup(lambda key: Variable.get(key, deserialize_json=True), KeyError)


def _moment(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def date_formats(moment: datetime) -> dict[str, str]:
    """The text forms of one moment, under their macro names (S64)."""
    # Cut out of one text: strftime costs a young process many times more.
    ts = moment.isoformat()
    ds, bare = ts[:10], ts.replace("-", "", 2).replace(":", "")
    return {
        "ds": ds,
        "ds_nodash": bare[:8],
        "ts": ts,
        "ts_nodash": bare[:15],
        "ts_nodash_with_tz": bare,
    }


def _day(moment: datetime) -> str:
    return moment.isoformat()[:10]


def _dates(logical: datetime, then: datetime | None) -> dict[str, Any]:
    yesterday, tomorrow = _day(logical - _ONE_DAY), _day(logical + _ONE_DAY)
    dates: dict[str, Any] = {
        "logical_date": logical,
        "execution_date": logical,
        **date_formats(logical),
        "yesterday_ds": yesterday,
        "yesterday_ds_nodash": yesterday.replace("-", ""),
        "tomorrow_ds": tomorrow,
        "tomorrow_ds_nodash": tomorrow.replace("-", ""),
    }
    if then is not None:
        # The next run of a schedule begins where this one's interval ends.
        dates["next_execution_date"] = then
        dates["next_ds"] = next_ds = _day(then)
        dates["next_ds_nodash"] = next_ds.replace("-", "")
    return dates
