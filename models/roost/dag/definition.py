"""DAG: tasks, the edges between them, and when they run (S1-S11)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from roost.dag import graph, knobs, scope
from roost.dag.asset import Asset, AssetExpression, AssetOrTimeSchedule, expression_of
from roost.dag.callbacks import Callbacks, as_callbacks
from roost.dag.deadline import DeadlineAlert, as_deadlines
from roost.dag.names import check_id
from roost.dag.node import as_nodes
from roost.dag.schedule import Timetable
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.group import TaskGroup
    from roost.dag.operator import BaseOperator

__all__ = ["DAG", "Schedule"]

_N = TypeVar("_N")
Schedule = (
    str | timedelta | Timetable | AssetExpression | AssetOrTimeSchedule | Iterable[Asset] | None
)
_SCHEDULES = (str, timedelta, Timetable, AssetExpression, AssetOrTimeSchedule, list, tuple, set)


class _Unset:
    """Marks `schedule_interval` as not given: None is a value of its own."""


class DAG:
    """Tasks with dependencies, run as a whole on a schedule or on demand.

    Args:
        dag_id: unique name, 1 to 250 letters, digits or ``_ . : + -``.
        description: one line for listings.
        schedule: cron string, preset (``@daily`` …), timedelta, ``@once``, ``@continuous``, a
            Timetable (:mod:`roost.dag.timetables`), Assets (:mod:`roost.dag.asset`, H16) or None
            (manual runs only).
            ``schedule_interval`` is the same under its older name.
        start_date: start of the first data interval; a naive datetime is in the default time
            zone. May also come from ``default_args``.
        end_date: no data interval starts after it.
        catchup: create the runs between ``start_date`` and now, too.
        default_args: arguments of every task that it does not give itself (S6).
        max_active_runs: runs of this DAG at the same time; always 1 with ``@continuous``.
        max_active_tasks: task instances of one run at the same time; ``concurrency`` is its older
            name.
        dagrun_timeout: a run that takes longer, from its start, fails; what is unfinished is
            skipped (H11).
        fail_fast: a task that fails for good skips all that is unfinished, teardowns aside (H12);
            ``fail_stop`` is its older name.
        max_consecutive_failed_dag_runs: so many failed runs in a row pause the DAG; 0: never.
        on_success_callback: called in a task process after a run succeeded; a function or a list
            of functions, each with the context as its argument.
        on_failure_callback: called after a run failed; ``context["reason"]`` says why.
        deadline: moments by which each run should have ended (H22): one or a list.
        sla_miss_callback: called after tasks missed their ``sla`` (S103).
        params: default values of ``params`` in templates; a run's conf replaces them.
        tags: words to find it by.
        doc_md: Markdown documentation (S69).
        is_paused_upon_creation: whether it starts paused; None leaves it to the configuration.
        template_searchpath: more folders for template files, besides that of the DAG file (S68).
        template_undefined: jinja2 class for undefined names; default ``StrictUndefined``.
        user_defined_macros: more names for templates.
        user_defined_filters: more filters for templates.
        jinja_environment_kwargs: passed to the Jinja environment as they are (S68).
        render_template_as_native_obj: a template of one expression yields its Python value.
        orientation: taken and without effect, as ``default_view``, ``access_control``,
            ``owner_links`` and ``dag_display_name`` are: they are about Airflow's web pages.

    Raises:
        DagError: an argument is wrong; the message names it.
    """

    def __init__(
        self,
        dag_id: str,
        description: str | None = None,
        schedule: Schedule = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        *,
        catchup: bool = False,
        default_args: Mapping[str, Any] | None = None,
        max_active_runs: int = 16,
        max_active_tasks: int = 16,
        dagrun_timeout: timedelta | None = None,
        fail_fast: bool = False,
        max_consecutive_failed_dag_runs: int = 0,
        on_success_callback: Callbacks = None,
        on_failure_callback: Callbacks = None,
        deadline: DeadlineAlert | Sequence[DeadlineAlert] | None = None,
        sla_miss_callback: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] | None = None,
        doc_md: str | None = None,
        is_paused_upon_creation: bool | None = None,
        template_searchpath: str | Sequence[str] | None = None,
        template_undefined: type[Any] | None = None,
        user_defined_macros: Mapping[str, Any] | None = None,
        user_defined_filters: Mapping[str, Any] | None = None,
        jinja_environment_kwargs: Mapping[str, Any] | None = None,
        render_template_as_native_obj: bool = False,
        schedule_interval: Schedule | type[_Unset] = _Unset,
        concurrency: int | None = None,
        fail_stop: bool = False,
        orientation: object = None,
        default_view: object = None,
        access_control: object = None,
        owner_links: object = None,
        dag_display_name: object = None,
    ) -> None:
        self.dag_id = check_id(dag_id, "dag_id")
        self.description = description or ""
        self.default_args: dict[str, Any] = dict(default_args or {})
        asked = _one_schedule(dag_id, schedule, schedule_interval)
        #: What it waits for besides moments; None: nothing (H16).
        self.asset_expression = expression_of(asked)
        self.assets = None if self.asset_expression is None else self.asset_expression.condition()
        self.schedule: Any = asked
        if isinstance(asked, AssetOrTimeSchedule):
            self.schedule = asked.timetable
        elif self.assets is not None:
            self.schedule = None
        self.start_date = start_date or self.default_args.get("start_date")
        self.end_date = end_date or self.default_args.get("end_date")
        _check_moments(dag_id, self.start_date, self.end_date)
        self.catchup = catchup
        self.max_active_runs = _positive(dag_id, "max_active_runs", max_active_runs)
        name, limit = "max_active_tasks", max_active_tasks
        if concurrency is not None:
            name, limit = "concurrency", concurrency
        self.max_active_tasks = _positive(dag_id, name, limit)
        self.dagrun_timeout = dagrun_timeout
        self.fail_fast = fail_fast or fail_stop
        self.max_consecutive_failed_dag_runs = knobs.whole(
            f"DAG {dag_id!r}",
            "max_consecutive_failed_dag_runs",
            max_consecutive_failed_dag_runs,
            least=0,
        )
        of = f"DAG {dag_id!r}"
        self.on_success_callback = as_callbacks(of, "on_success_callback", on_success_callback)
        self.on_failure_callback = as_callbacks(of, "on_failure_callback", on_failure_callback)
        self.deadlines = as_deadlines(of, deadline)
        self.sla_miss_callback = as_callbacks(of, "sla_miss_callback", sla_miss_callback)
        self.params: dict[str, Any] = dict(params or {})
        self.tags = sorted(set(tags or ()))
        self.doc_md = doc_md
        self.is_paused_upon_creation = is_paused_upon_creation
        self.template_searchpath = (
            [template_searchpath]
            if isinstance(template_searchpath, str)
            else list(template_searchpath or ())
        )
        self.template_undefined = template_undefined
        self.user_defined_macros = dict(user_defined_macros or {})
        self.user_defined_filters = dict(user_defined_filters or {})
        self.jinja_environment_kwargs = dict(jinja_environment_kwargs or {})
        self.render_template_as_native_obj = render_template_as_native_obj
        self.task_dict: dict[str, BaseOperator] = {}
        # What partial() began and no expand() has made a task of.
        self.unexpanded: dict[object, str] = {}
        #: The DAG in which a SubDagOperator runs this one (S95).
        self.parent_dag: DAG | None = None
        self.group_dict: dict[str, TaskGroup] = {}
        frame = scope.caller(0)
        self.fileloc = frame.f_code.co_filename if frame else ""

    @property
    def schedule_interval(self) -> Any:
        """``schedule`` under its older name."""
        return self.schedule

    @property
    def folder(self) -> str:
        """Where the DAG file is; template files are looked up here."""
        return os.path.dirname(self.fileloc)

    @property
    def tasks(self) -> list[BaseOperator]:
        """The tasks in the order in which they were added."""
        return list(self.task_dict.values())

    @property
    def task_ids(self) -> list[str]:
        """Their ids in the same order."""
        return list(self.task_dict)

    @property
    def owner(self) -> str:
        """The owners of the tasks, comma-separated."""
        return ", ".join(sorted({task.owner for task in self.tasks if task.owner}))

    @property
    def roots(self) -> list[BaseOperator]:
        """Tasks without upstream tasks."""
        return [task for task in self.tasks if not task.upstream_task_ids]

    @property
    def leaves(self) -> list[BaseOperator]:
        """Tasks without downstream tasks."""
        return [task for task in self.tasks if not task.downstream_task_ids]

    def has_task(self, task_id: str) -> bool:
        """Whether a task of this id is here."""
        return task_id in self.task_dict

    def get_task(self, task_id: str) -> BaseOperator:
        """The task of this id.

        Raises:
            DagError: there is none.
        """
        try:
            return self.task_dict[task_id]
        except KeyError:
            raise DagError(f"DAG {self.dag_id!r} has no task {task_id!r}") from None

    def add_task(self, task: BaseOperator) -> None:
        """Take ``task`` into this DAG.

        Raises:
            DagError: another task or a group has its id.
        """
        if self.task_dict.get(task.task_id, task) is not task or task.task_id in self.group_dict:
            raise DagError(
                f"DAG {self.dag_id!r} already has a task or group {task.task_id!r}: "
                "give each its own id"
            )
        self.task_dict[task.task_id] = task
        if not task.has_dag():
            task.dag = self

    def add_group(self, group: TaskGroup) -> None:
        """Take ``group`` into this DAG; its id must be free."""
        if group.group_id in self.group_dict or group.group_id in self.task_dict:
            raise DagError(
                f"DAG {self.dag_id!r} already has a task or group {group.group_id!r}: "
                "give each its own id"
            )
        self.group_dict[group.group_id] = group

    def free_id(self, name: str) -> str:
        """``name``, or ``name__1`` and so on when a task or group has that id already."""
        free, number = name, 0
        while free in self.task_dict or free in self.group_dict:
            number += 1
            free = f"{name}__{number}"
        return free

    def join(self, task: BaseOperator) -> None:
        """Become the sub-DAG of ``task``, which stands in a DAG (S95).

        Raises:
            DagError: this DAG's id is not that of a sub-DAG of it.
        """
        wanted = f"{task.dag.dag_id}.{task.task_id}"
        if self.dag_id != wanted:
            raise DagError(
                f"the sub-DAG of task {task.task_id!r} must have the dag_id {wanted!r}, "
                f"not {self.dag_id!r}"
            )
        self.parent_dag = task.dag

    def subdags(self) -> list[DAG]:
        """The sub-DAGs of its tasks, and theirs.

        Raises:
            DagError: one has a wrong id.
        """
        found: list[DAG] = []
        for task in self.tasks:
            subdag = getattr(task, "subdag", None)
            if isinstance(subdag, DAG):
                subdag.join(task)
                found += [subdag, *subdag.subdags()]
        return found

    def topological_sort(self) -> list[BaseOperator]:
        """The tasks so that each comes after all it depends on.

        Raises:
            DagError: the tasks form a cycle, which the message spells out (S11).
        """
        for told in self.unexpanded.values():
            raise DagError(
                f"{told}: partial() makes no task; expand() or expand_kwargs() has to follow"
            )
        for task in self.tasks:
            task.link_arguments()
        for group in self.group_dict.values():
            group.link_expansion()
        edges = {task_id: task.downstream for task_id, task in self.task_dict.items()}
        order = graph.topological_order(edges)
        if order is None:
            cycle = " -> ".join(graph.find_cycle(edges))
            raise DagError(f"DAG {self.dag_id!r} has a cycle: {cycle}")
        return [self.task_dict[task_id] for task_id in order]

    def __rshift__(self, other: _N) -> _N:
        """``dag >> task`` puts the task into the DAG (S33)."""
        for node in as_nodes(other):
            for task in node.roots:
                task.dag = self
        return other

    __lshift__ = __rshift__

    def __enter__(self) -> DAG:
        scope.enter_dag(self)
        scope.note_declaration(self, scope.caller(0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scope.leave()

    def __repr__(self) -> str:
        return f"<DAG {self.dag_id}>"


def _one_schedule(dag_id: str, schedule: Schedule, interval: Schedule | type[_Unset]) -> Schedule:
    if not isinstance(interval, type):
        if schedule is not None and schedule != interval:
            raise DagError(f"DAG {dag_id!r}: give schedule or schedule_interval, not both")
        schedule = interval
    if schedule is not None and not isinstance(schedule, _SCHEDULES):
        raise DagError(
            f"DAG {dag_id!r}: schedule must be a cron string, a preset, a timedelta, a Timetable, "
            f"Assets or None, not {schedule!r}"
        )
    return schedule


def _check_moments(dag_id: str, start: object, end: object) -> None:
    for name, moment in (("start_date", start), ("end_date", end)):
        if moment is not None and not isinstance(moment, datetime):
            raise DagError(f"DAG {dag_id!r}: {name} must be a datetime, not {moment!r}")


def _positive(dag_id: str, name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise DagError(f"DAG {dag_id!r}: {name} must be a whole number from 1 up, not {value!r}")
    return value
