"""DagRunTrigger: waits for runs of a DAG or tasks in them, as a row (external lane)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from roost.dag.runwait import RunWait
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

__all__ = ["DagRunTrigger"]


class DagRunTrigger(BaseTrigger):
    """Fires when runs, or tasks in them, have come to an end.

    The scheduler fires it in the turn in which the run or task ends; until then it is a row that
    no process carries. Its payload is ``{"status": …, "states": {run_id: state}}`` with a status
    of ``success``, ``failed``, ``skipped`` or ``gone``. Arguments: see
    :class:`roost.dag.runwait.RunWait`.
    """

    def __init__(
        self,
        dag_id: str,
        run_id: str | None = None,
        logical_dates: Sequence[int] = (),
        task_ids: Sequence[str] | None = None,
        allowed: Sequence[str] = ("success",),
        failed: Sequence[str] = ("failed",),
        skipped: Sequence[str] = (),
        must_exist: bool = False,
    ) -> None:
        if run_id is None and not logical_dates:
            raise RoostException("DagRunTrigger needs a run_id or logical_dates")
        self.wait = RunWait(
            dag_id=dag_id,
            run_id=run_id,
            logical_dates=list(logical_dates),
            task_ids=None if task_ids is None else list(task_ids),
            allowed=tuple(allowed),
            failed=tuple(failed),
            skipped=tuple(skipped),
            must_exist=must_exist,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What it waits for, as plain JSON that the scheduler reads."""
        kwargs: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self.wait))
        return ("roost.triggers.DagRunTrigger", kwargs)

    @property
    def external_key(self) -> str:
        """Under which the scheduler finds it."""
        return self.wait.key

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never called where a scheduler is."""
        raise RoostException(f"{self!r} is fired by the scheduler; it cannot be run by itself")
        yield TriggerEvent()  # makes this an async generator

    def __repr__(self) -> str:
        of = f" tasks {', '.join(self.wait.task_ids)}" if self.wait.task_ids else ""
        return f"<DagRunTrigger {self.wait.key.removeprefix('roost:run/')}{of}>"
