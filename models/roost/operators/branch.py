"""Operators that skip what follows them: branch, short circuit, LatestOnly (S74, S90-S93)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time
from typing import Any

from roost.dag import graph
from roost.dag.branching import branch_skips
from roost.dag.operator import BaseOperator
from roost.dag.python import PythonOperator
from roost.dag.zone import dag_timezone
from roost.exceptions import DagError, RoostException, SkipTask
from roost.support.clock import from_us, now_us, to_us

__all__ = [
    "BaseBranchOperator",
    "BranchDateTimeOperator",
    "BranchDayOfWeekOperator",
    "LatestOnlyOperator",
    "ShortCircuitOperator",
]

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class BaseBranchOperator(BaseOperator):
    """Follow the direct children that :meth:`choose_branch` names; skip the others (S74)."""

    def choose_branch(self, context: dict[str, Any]) -> str | Iterable[str] | None:
        """Ids of tasks or groups directly downstream: one, several, or None to follow none."""
        raise NotImplementedError(f"{type(self).__name__} has no choose_branch() method")

    def execute(self, context: dict[str, Any]) -> Any:
        """Choose, and note what to skip; the choice is kept as an XCom."""
        chosen = self.choose_branch(context)
        context["ti"].skip_downstream(branch_skips(self, chosen))
        return chosen


class ShortCircuitOperator(PythonOperator):
    """Go on only when ``python_callable`` returns something true; what it returns is an XCom.

    Args:
        ignore_downstream_trigger_rules: skip everything downstream, whatever its trigger rule;
            False: skip the direct children, and let trigger rules decide about the rest.
        **kwargs: see PythonOperator.
    """

    def __init__(self, *, ignore_downstream_trigger_rules: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_downstream_trigger_rules = ignore_downstream_trigger_rules

    def execute(self, context: dict[str, Any]) -> Any:
        """Call the function and note what to skip."""
        found = super().execute(context)
        if not found:
            every = self.ignore_downstream_trigger_rules
            skipped = _below(self) if every else list(self.downstream)
            self.log.info("%r is not true: skipping %s", found, ", ".join(skipped) or "nothing")
            context["ti"].skip_downstream(skipped)
        return found


class LatestOnlyOperator(BaseOperator):
    """Skip itself and everything downstream in every run but the latest of the schedule.

    A run is the latest while now lies after the end of its data interval and not after that of
    the next one (S90). In any other, this task and all that is downstream of it are skipped
    directly, whatever their trigger rules (S91, S92). Runs by hand never skip (S93).
    """

    def execute(self, context: dict[str, Any]) -> None:
        """Judge the run.

        Raises:
            SkipTask: it is not the latest.
        """
        run = context["dag_run"]
        if run.external_trigger:
            self.log.info("a run by hand goes on")
            return
        left = run.data_interval_end
        if left is None:
            return
        now, right = from_us(now_us()), self._next_end(to_us(left))
        if left < now and (right is None or now <= right):
            return
        context["ti"].skip_downstream(_below(self))
        raise SkipTask(f"not the latest run: it is {now}, outside ({left}, {right}]")

    def _next_end(self, end: int) -> datetime | None:
        """When the run that follows the interval's ``end`` is due; None: there is none."""
        from roost.dag.timetable import next_run, parse_schedule  # croniter: late, it is dear

        try:
            timetable = parse_schedule(self.dag.schedule, dag_timezone(self.dag))
        except RoostException:
            return None  # a timetable of the user's own, which cannot be asked like this
        found = next_run(timetable, end, None, None, True, now_us())
        return None if found is None else from_us(found.run_after)


class BranchDateTimeOperator(BaseBranchOperator):
    """Follow one branch while now, or the logical date, lies within limits, else the other.

    Args:
        follow_task_ids_if_true: id or ids to follow within the limits.
        follow_task_ids_if_false: id or ids to follow outside.
        target_lower: first moment within, an aware datetime, a time of the day, or None.
        target_upper: last moment within. With two times of which the lower is later, the span
            goes over midnight.
        use_task_logical_date: judge the run's logical date instead of now.
        **kwargs: see BaseOperator.
    """

    def __init__(
        self,
        *,
        follow_task_ids_if_true: str | Iterable[str],
        follow_task_ids_if_false: str | Iterable[str],
        target_lower: datetime | time | None,
        target_upper: datetime | time | None,
        use_task_logical_date: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if target_lower is None and target_upper is None:
            raise DagError(f"task {self.task_id!r}: give target_lower or target_upper")
        self.follow_task_ids_if_true = follow_task_ids_if_true
        self.follow_task_ids_if_false = follow_task_ids_if_false
        self.target_lower = target_lower
        self.target_upper = target_upper
        self.use_task_logical_date = use_task_logical_date

    def choose_branch(self, context: dict[str, Any]) -> str | Iterable[str]:
        """By the clock."""
        moment = _judged(context, self.use_task_logical_date)
        lower, upper = self.target_lower, self.target_upper
        overnight = isinstance(lower, time) and isinstance(upper, time) and lower > upper
        after = lower is None or moment >= _on_day(lower, moment)
        before = upper is None or moment <= _on_day(upper, moment)
        inside = (after or before) if overnight else (after and before)
        return self.follow_task_ids_if_true if inside else self.follow_task_ids_if_false


class BranchDayOfWeekOperator(BaseBranchOperator):
    """Follow one branch on some days of the week, the other on the rest, in UTC.

    Args:
        follow_task_ids_if_true: id or ids to follow on these days.
        follow_task_ids_if_false: id or ids to follow on the others.
        week_day: English name of a day, or several.
        use_task_logical_date: judge the run's logical date instead of now.
        **kwargs: see BaseOperator.
    """

    def __init__(
        self,
        *,
        follow_task_ids_if_true: str | Iterable[str],
        follow_task_ids_if_false: str | Iterable[str],
        week_day: str | Iterable[str],
        use_task_logical_date: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.follow_task_ids_if_true = follow_task_ids_if_true
        self.follow_task_ids_if_false = follow_task_ids_if_false
        days = [week_day] if isinstance(week_day, str) else list(week_day)
        self.week_day = {str(day).lower() for day in days}
        if not self.week_day or self.week_day - set(_DAYS):
            raise DagError(f"task {self.task_id!r}: week_day must name days, not {week_day!r}")
        self.use_task_logical_date = use_task_logical_date

    def choose_branch(self, context: dict[str, Any]) -> str | Iterable[str]:
        """By the day."""
        day = _DAYS[_judged(context, self.use_task_logical_date).weekday()]
        chosen = day in self.week_day
        return self.follow_task_ids_if_true if chosen else self.follow_task_ids_if_false


def _below(task: BaseOperator) -> list[str]:
    """Everything downstream of ``task``, in the DAG's order; not what cleans up (H18)."""
    tasks = task.dag.task_dict
    edges = {task_id: other.downstream for task_id, other in tasks.items()}
    found = graph.reachable(edges, task.downstream)
    return [
        task_id for task_id, other in tasks.items() if task_id in found and not other.is_teardown
    ]


def _judged(context: dict[str, Any], logical: bool) -> datetime:
    if not logical:
        return from_us(now_us())
    date: datetime | None = context["dag_run"].logical_date
    if date is None:
        raise RoostException("this run has no logical date to judge")
    return date


def _on_day(limit: datetime | time, moment: datetime) -> datetime:
    if isinstance(limit, time):
        zone = limit.tzinfo or UTC
        return datetime.combine(moment.astimezone(zone).date(), limit, tzinfo=zone)
    return limit if limit.tzinfo else limit.replace(tzinfo=UTC)
