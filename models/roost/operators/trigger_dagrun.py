"""TriggerDagRunOperator: start a run of another DAG, and wait for it if wanted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from roost.dag import knobs, runtime
from roost.dag.children import microseconds, own_run_id, start_run, state_names
from roost.dag.operator import BaseOperator
from roost.exceptions import RoostException, SkipTask
from roost.support import typedjson
from roost.support.task_requests import OnExists, RunCreate, RunRecord, RunStates
from roost.support.user_settings import default_deferrable
from roost.triggers.runs import DagRunTrigger

__all__ = ["TriggerDagRunOperator"]


class TriggerDagRunOperator(BaseOperator):
    """Start a run of ``trigger_dag_id``.

    One try starts one run, however often its worker is lost. Without ``trigger_run_id`` the run's
    id is made of this task's and its run's, so that a retry comes back to the same run: it waits
    for it where it goes on, and starts it again where it has failed. The id is kept as the XCom
    ``trigger_run_id``.

    Args:
        trigger_dag_id: which DAG, templated.
        trigger_run_id: id of the run, templated. It is an error when that exists already, unless
            an earlier try of this task started it.
        conf: its conf, templated.
        logical_date: its logical date, a datetime or ISO 8601 text, templated; None: the moment
            it is started. ``execution_date`` is the same under its older name.
        reset_dag_run: where the run exists and has ended, clear it and let it run again.
        wait_for_completion: go on only when the run has ended.
        poke_interval: time between two looks when it waits without deferring; a timedelta or
            seconds.
        allowed_states: states of the run that end the wait well.
        failed_states: states of the run that fail this task.
        skip_when_already_exists: be skipped when the run exists.
        fail_when_dag_is_paused: fail, instead of starting a run that waits to be unpaused.
        deferrable: whether to wait without a slot; default: ``core.default_deferrable``.
        **kwargs: see BaseOperator.
    """

    template_fields = ("trigger_dag_id", "trigger_run_id", "logical_date", "conf")

    def __init__(
        self,
        *,
        trigger_dag_id: str,
        trigger_run_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        logical_date: datetime | str | None = None,
        execution_date: datetime | str | None = None,
        reset_dag_run: bool = False,
        wait_for_completion: bool = False,
        poke_interval: timedelta | float = 60.0,
        allowed_states: Iterable[str] | None = None,
        failed_states: Iterable[str] | None = None,
        skip_when_already_exists: bool = False,
        fail_when_dag_is_paused: bool = False,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        of = f"task {self.task_id!r}"
        self.trigger_dag_id = trigger_dag_id
        self.trigger_run_id = trigger_run_id
        self.conf = dict(conf) if conf is not None else {}
        self.logical_date = logical_date if logical_date is not None else execution_date
        self.reset_dag_run = reset_dag_run
        self.wait_for_completion = wait_for_completion
        self.poke_interval = knobs.duration(of, "poke_interval", poke_interval)
        self.allowed_states = state_names(of, "allowed_states", allowed_states or ("success",))
        failing = ("failed",) if failed_states is None else failed_states
        self.failed_states = state_names(of, "failed_states", failing)
        self.skip_when_already_exists = skip_when_already_exists
        self.fail_when_dag_is_paused = fail_when_dag_is_paused
        self.deferrable = default_deferrable() if deferrable is None else deferrable

    def execute(self, context: dict[str, Any]) -> Any:
        """Start the run, and wait for it.

        Raises:
            RoostException: there is no such DAG, it is paused, the run exists, or it failed.
            SkipTask: the run exists and ``skip_when_already_exists`` is set.
        """
        ti = context["ti"]
        run_id = self.trigger_run_id or own_run_id(ti)
        on_exists: OnExists = "restart" if self.reset_dag_run else "leave"
        if self.trigger_run_id is None and not self.reset_dag_run:
            on_exists = "restart_failed"
        date = self.logical_date
        did, run = start_run(
            RunCreate(
                dag_id=self.trigger_dag_id,
                run_id=run_id,
                logical_date=None if date is None else microseconds("logical_date", date),
                conf=msgspec.Raw(typedjson.encode(self.conf, name="conf")),
                on_exists=on_exists,
                refuse_paused=self.fail_when_dag_is_paused,
            )
        )
        self.log.info("run %s of DAG %s: %s", run_id, self.trigger_dag_id, did)
        if did == "exists" and self.skip_when_already_exists:
            raise SkipTask(f"run {run_id!r} of DAG {self.trigger_dag_id!r} exists already")
        if did == "exists" and on_exists == "leave":
            raise RoostException(
                f"run {run_id!r} of DAG {self.trigger_dag_id!r} exists already ({run.state}): "
                "give another trigger_run_id, or reset_dag_run=True"
            )
        if self.wait_for_completion:
            self._wait(run)

    def execute_complete(self, context: dict[str, Any], event: dict[str, Any]) -> None:
        """Judge how the run has ended."""
        for run_id, state in event["states"].items():
            self._judge(RunRecord(run_id, state))
        if event["status"] == "gone":
            raise RoostException(f"the run of DAG {self.trigger_dag_id!r} was deleted")

    def _wait(self, run: RunRecord) -> None:
        while not self._judge(run):
            if self.deferrable:
                self.defer(
                    trigger=DagRunTrigger(
                        self.trigger_dag_id,
                        run_id=run.run_id,
                        allowed=self.allowed_states,
                        failed=self.failed_states,
                        must_exist=True,
                    ),
                    method_name="execute_complete",
                )
            time.sleep(self.poke_interval.total_seconds())
            seen = runtime.ask(RunStates(self.trigger_dag_id, run_id=run.run_id), "the run").runs
            if not seen:
                raise RoostException(f"the run of DAG {self.trigger_dag_id!r} was deleted")
            run = seen[0]

    def _judge(self, run: RunRecord) -> bool:
        """Whether the run has ended as wanted."""
        if run.state in self.failed_states:
            raise RoostException(
                f"run {run.run_id!r} of DAG {self.trigger_dag_id!r} ended as {run.state}"
            )
        return run.state in self.allowed_states
