"""ExternalTaskSensor: wait for a run of another DAG, or for tasks in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from roost.dag import knobs, runtime
from roost.dag.children import microseconds, state_names
from roost.dag.python import context_arguments
from roost.dag.runwait import RunWait, Verdict, verdict
from roost.exceptions import DagError, NotFound, RoostException, SkipTask
from roost.sensors.base import BaseSensorOperator
from roost.support.task_requests import Reply, RunStates
from roost.triggers.runs import DagRunTrigger

__all__ = ["ExternalTaskSensor"]


class ExternalTaskSensor(BaseSensorOperator):
    """Wait until the run of another DAG with this run's logical date, or tasks in it, have ended.

    Args:
        external_dag_id: which DAG, templated.
        external_task_id: one task of it, templated.
        external_task_ids: several, templated.
        external_task_group_id: all tasks of a group, templated. Without any of the three: the run
            as a whole.
        allowed_states: states to wait for; default ``success``.
        skipped_states: states that skip this task at once.
        failed_states: states that fail this task at once.
        execution_delta: how much earlier the other run's logical date is.
        execution_date_fn: called with this run's logical date, and context that it names; gives
            the other's, or several that all must be there.
        check_existence: fail at once when there is no such DAG or task.
        **kwargs: see BaseSensorOperator. Deferred, it waits as a row of the database.

    Raises:
        DagError: arguments exclude each other, or a state is unknown.
    """

    template_fields = (
        "external_dag_id",
        "external_task_id",
        "external_task_ids",
        "external_task_group_id",
    )
    has_trigger = True

    def __init__(
        self,
        *,
        external_dag_id: str,
        external_task_id: str | None = None,
        external_task_ids: Iterable[str] | None = None,
        external_task_group_id: str | None = None,
        allowed_states: Iterable[str] | None = None,
        skipped_states: Iterable[str] | None = None,
        failed_states: Iterable[str] | None = None,
        execution_delta: timedelta | None = None,
        execution_date_fn: Callable[..., Any] | None = None,
        check_existence: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        of = f"task {self.task_id!r}"
        several = None if external_task_ids is None else list(external_task_ids)
        given = [external_task_id, several, external_task_group_id]
        if sum(one is not None for one in given) > 1:
            raise DagError(
                f"{of}: give one of external_task_id, external_task_ids, external_task_group_id"
            )
        if execution_delta is not None and execution_date_fn is not None:
            raise DagError(f"{of}: give execution_delta or execution_date_fn, not both")
        self.external_dag_id = external_dag_id
        self.external_task_id = external_task_id
        self.external_task_ids = several
        self.external_task_group_id = external_task_group_id
        self.allowed_states = state_names(of, "allowed_states", allowed_states or ("success",))
        self.skipped_states = state_names(of, "skipped_states", skipped_states)
        self.failed_states = state_names(of, "failed_states", failed_states)
        named = [*self.allowed_states, *self.skipped_states, *self.failed_states]
        if len(set(named)) < len(named):
            raise DagError(f"{of}: a state may be allowed, skipped or failed, only one of them")
        self.execution_delta = knobs.maybe_duration(of, "execution_delta", execution_delta)
        self.execution_date_fn = execution_date_fn
        self.check_existence = check_existence
        self._wait: RunWait | None = None

    def poke(self, context: dict[str, Any]) -> bool:
        """Ask how the other run is doing."""
        request = RunStates(
            self.external_dag_id,
            logical_dates=self._dates(context),
            task_ids=self._named_tasks() or [],
            group_id=self.external_task_group_id,
        )
        reply = runtime.ask(request, f"DAG {self.external_dag_id!r}")
        if self.check_existence:
            self._check(reply)
        self._wait = self._what(request, reply)
        if self._wait is None:
            return False
        return self._judge(verdict(self._wait, reply.runs))

    def make_trigger(self, context: dict[str, Any]) -> DagRunTrigger | None:
        """The same question as a row; None while the tasks of a group are not known yet."""
        wait = self._wait
        if wait is None:
            return None
        return DagRunTrigger(
            wait.dag_id,
            logical_dates=wait.logical_dates,
            task_ids=wait.task_ids,
            allowed=wait.allowed,
            failed=wait.failed,
            skipped=wait.skipped,
        )

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> None:
        """Judge what it came to."""
        self.log.info("DAG %s: %s", self.external_dag_id, event["states"])
        self._judge(event["status"])

    def _judge(self, found: Verdict | None) -> bool:
        if found == "skipped":
            raise SkipTask(f"DAG {self.external_dag_id!r}: what was waited for was skipped")
        if found == "failed":
            message = f"DAG {self.external_dag_id!r}: what was waited for failed"
            raise SkipTask(message) if self.soft_fail else RoostException(message)
        return found == "success"

    def _what(self, request: RunStates, reply: Reply) -> RunWait | None:
        if self.external_task_group_id is not None:
            if reply.dag is None or not reply.dag.task_ids:
                return None
            task_ids: list[str] | None = reply.dag.task_ids
        else:
            task_ids = self._named_tasks()
        return RunWait(
            self.external_dag_id,
            logical_dates=request.logical_dates,
            task_ids=task_ids,
            allowed=self.allowed_states,
            failed=self.failed_states,
            skipped=self.skipped_states,
        )

    def _named_tasks(self) -> list[str] | None:
        if self.external_task_id is not None:
            return [self.external_task_id]
        return self.external_task_ids

    def _check(self, reply: Reply) -> None:
        """Raise NotFound for what does not exist."""
        if reply.dag is None or not reply.dag.is_active:
            raise NotFound(f"there is no DAG {self.external_dag_id!r} to wait for")
        missing = set(self._named_tasks() or ()) - set(reply.dag.task_ids)
        if missing:
            raise NotFound(f"DAG {self.external_dag_id!r} has no task {sorted(missing)[0]!r}")
        if self.external_task_group_id is not None and not reply.dag.task_ids:
            raise NotFound(
                f"DAG {self.external_dag_id!r} has no group {self.external_task_group_id!r}"
            )

    def _dates(self, context: dict[str, Any]) -> list[int]:
        own: datetime | None = context["dag_run"].logical_date
        if own is None:
            raise RoostException("this run has no logical date that another run could share")
        if self.execution_delta is not None:
            return [microseconds("logical date", own - self.execution_delta)]
        if self.execution_date_fn is None:
            return [microseconds("logical date", own)]
        arguments = context_arguments(self.execution_date_fn, [own], {}, context)
        found = self.execution_date_fn(own, **arguments)
        dates = [found] if isinstance(found, datetime | str) else list(found)
        return [microseconds("execution_date_fn: its result", date) for date in dates]
