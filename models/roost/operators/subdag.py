"""SubDagOperator: another DAG as one task (S95-S99)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from roost.dag.children import start_run
from roost.dag.definition import DAG
from roost.dag.operator import BaseOperator
from roost.exceptions import DagError, RoostException
from roost.support import typedjson
from roost.support.clock import to_us
from roost.support.task_requests import RunCreate
from roost.triggers.runs import DagRunTrigger

__all__ = ["SubDagOperator"]


class SubDagOperator(BaseOperator):
    """Run ``subdag`` as a run of its own, with this run's id, dates and conf, and wait for it.

    It waits without a slot and without a process, so its tasks may use the same pool as it does.
    The sub-DAG is never scheduled by itself. A retry goes on with what failed in its run; clearing
    this task clears the tasks inside, marking it does not touch them (S97).

    A sub-DAG whose schedule is None or ``@once`` succeeds without running anything (S96).

    Args:
        subdag: the DAG; its id must be ``<id of this DAG>.<id of this task>`` (S95).
        conf: of its runs; default: that of this run.
        **kwargs: see BaseOperator.

    Raises:
        DagError: the sub-DAG is none, or has another id.
    """

    template_fields = ("conf",)

    def __init__(
        self, *, subdag: DAG, conf: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(subdag, DAG):
            raise DagError(f"task {self.task_id!r}: subdag must be a DAG, not {subdag!r}")
        self.subdag = subdag
        self.conf = dict(conf) if conf is not None else None
        if self.has_dag():
            subdag.join(self)

    def execute(self, context: dict[str, Any]) -> None:
        """Start the run of the sub-DAG and wait for it.

        Raises:
            RoostException: the run failed, or cannot be started.
        """
        if self.subdag.schedule in (None, "@once"):
            self.log.info(
                "nothing to do: the schedule of sub-DAG %s is %s",
                self.subdag.dag_id,
                self.subdag.schedule,
            )
            return
        run = context["dag_run"]
        start, end = run.data_interval_start, run.data_interval_end
        _, child = start_run(
            RunCreate(
                dag_id=self.subdag.dag_id,
                run_id=run.run_id,
                logical_date=None if run.logical_date is None else to_us(run.logical_date),
                interval_start=None if start is None else to_us(start),
                interval_end=None if end is None else to_us(end),
                run_type=run.run_type,
                conf=msgspec.Raw(
                    typedjson.encode(run.conf if self.conf is None else self.conf, name="conf")
                ),
                on_exists="resume_failed",
            )
        )
        if child.state == "success":
            return
        self.defer(
            trigger=DagRunTrigger(self.subdag.dag_id, run_id=child.run_id, must_exist=True),
            method_name="execute_complete",
        )

    def execute_complete(self, context: dict[str, Any], event: dict[str, Any]) -> None:
        """Judge how the run of the sub-DAG has ended."""
        if event["status"] != "success":
            run_id = context["run_id"]
            how = "was deleted" if event["status"] == "gone" else "failed"
            raise RoostException(
                f"run {run_id!r} of sub-DAG {self.subdag.dag_id!r} {how}; "
                f"`roost tasks states-for-dag-run {self.subdag.dag_id} {run_id}` shows its tasks"
            )
