"""When a wait for runs of a DAG, or for tasks in them, is over: a pure decision.

Asked by a sensor that pokes and by the scheduler, which fires the triggers that wait for runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from roost.support.task_requests import RunRecord

__all__ = ["KEY", "RunWait", "Verdict", "keys_of_run", "verdict"]

Verdict = Literal["success", "failed", "skipped", "gone"]
KEY = "roost:run/"


class RunWait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is waited for: one run by its id, or one for each logical date.

    Attributes:
        dag_id: whose runs.
        run_id: of the run; None: ``logical_dates`` say which.
        logical_dates: microseconds since the epoch, UTC; each must come to its end.
        task_ids: these tasks of the runs, with all their instances; None: the runs themselves.
        allowed: states that end the wait well.
        failed: states of one that end it at once with a failure.
        skipped: states of one that end it at once by skipping whoever waits.
        must_exist: whether a run that is not there ends the wait, rather than being waited for.
    """

    dag_id: str
    run_id: str | None = None
    logical_dates: list[int] = []
    task_ids: list[str] | None = None
    allowed: tuple[str, ...] = ("success",)
    failed: tuple[str, ...] = ("failed",)
    skipped: tuple[str, ...] = ()
    must_exist: bool = False

    @property
    def key(self) -> str:
        """The ``external_key`` of a trigger that waits so."""
        if self.run_id is not None:
            return f"{KEY}{self.dag_id}/{self.run_id}"
        if len(self.logical_dates) == 1:
            return f"{KEY}{self.dag_id}@{self.logical_dates[0]}"
        return f"{KEY}{self.dag_id}"


def keys_of_run(dag_id: str, run_id: str, logical_date: int | None) -> list[str]:
    """The keys under which triggers wait for this run."""
    keys = [f"{KEY}{dag_id}", f"{KEY}{dag_id}/{run_id}"]
    return keys if logical_date is None else [*keys, f"{KEY}{dag_id}@{logical_date}"]


def verdict(wait: RunWait, runs: Iterable[RunRecord]) -> Verdict | None:
    """How the wait ends, or None while it goes on.

    Args:
        wait: what is waited for.
        runs: the runs of ``wait.dag_id`` that it may mean, with the tasks that it names.
    """
    found = list(runs)
    wanted: list[list[RunRecord]]
    if wait.run_id is not None:
        wanted = [[run for run in found if run.run_id == wait.run_id]]
    else:
        wanted = [[r for r in found if r.logical_date == date] for date in wait.logical_dates]
    if wait.must_exist and not all(wanted):
        return "gone"
    # Of several runs of one logical date the best counts: one was made by hand beside another.
    ends = [_best([_end(wait, run) for run in group]) for group in wanted]
    for bad in ("failed", "skipped"):
        if bad in ends:
            return "failed" if bad == "failed" else "skipped"
    return "success" if all(end == "success" for end in ends) else None


def _best(ends: Sequence[Verdict | None]) -> Verdict | None:
    if "success" in ends or None in ends or not ends:
        return "success" if "success" in ends else None
    return "skipped" if "skipped" in ends else "failed"


def _end(wait: RunWait, run: RunRecord) -> Verdict | None:
    if wait.task_ids is None:
        groups = [[run.state]]
    else:
        groups = [run.tasks.get(task_id, []) for task_id in wait.task_ids]
    states = {state for group in groups for state in group}
    if states & set(wait.failed):
        return "failed"
    if states & set(wait.skipped):
        return "skipped"
    return "success" if all(groups) and states <= set(wait.allowed) else None
